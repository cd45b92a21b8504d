"""One wording a flag in the whole tool. None means not given: ``settings`` knows the default.

The options of a run are made from the fields of ``RunConfig`` (``run_options``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer

from core import registry
from core.config import MACHINE, MODEL, ORIGIN, options
from core.errors import UsageError
from core.option import KnownOption
from core.sampling import Sampling
from streamcli import completion
from streamcli.completion import Complete
from streamcli.results.columns import FILTERS

OF_A_STREAM = (*MODEL, "method", "n_sink", "window")

Command = TypeVar("Command", bound=Callable[..., None])


def run_options(
    *, lists: Container[str] = (), leave_out: Iterable[str] = (), **defaults: Any
) -> Callable[[Command], Command]:
    """Give a command a flag for each option of a run, in place of its ``**given``.

    Args:
        lists: Names of options that take several values, under their plural.
        leave_out: Options that the command does not have, or words in its own way.
        **defaults: What the help says of a default that is the command's own.
    """
    left_out = set(leave_out)
    made = [
        _parameter(each, several=each.name in lists, default=defaults.get(each.name))
        for each in options()
        if each.name not in left_out
    ]
    return _given(made, first=True)


def stream_options(command: Command) -> Command:
    """Give a command what a stream is made of, and how its tokens are chosen, as ``**given``."""
    left_out = {each.name for each in options() if not _of_a_stream(each)}
    drawn = [_parameter(each, several=False, default=None) for each in options(Sampling)]
    return run_options(leave_out=left_out)(_given(drawn, first=False)(command))


def _of_a_stream(each: KnownOption) -> bool:
    return each.name in OF_A_STREAM or each.about.group in (MACHINE, ORIGIN)


def filtered(command: Command) -> Command:
    """Give a command the flags that narrow down which recorded runs are read, as ``**given``."""
    pairs = zip(FILTERS, WHICH, strict=True)
    made = [_named(name, str | None, _only(words, name)) for name, words in pairs]
    return _given(made, first=False)(command)


def _given(made: list[inspect.Parameter], *, first: bool) -> Callable[[Command], Command]:
    """Put parameters in the place of ``**given``: after the context, or after a command's own.

    One that the command words in its own way stays as it is there.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        kept = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
        names = {each.name for each in kept}
        new = [each for each in made if each.name not in names]
        ordered = [kept[0], *new, *kept[1:]] if first else [*kept, *new]
        ordered.sort(key=lambda each: each.default is not each.empty)  # required ones come first

        @wraps(command)
        def called(*args: Any, **kwargs: Any) -> None:
            command(*args, **kwargs)

        called.__signature__ = own.replace(parameters=ordered)  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in ordered}
        return called  # type: ignore[return-value]

    return decorate


def _parameter(each: KnownOption, *, several: bool, default: Any) -> inspect.Parameter:
    """A parameter of a command function, as Typer reads it."""
    name, kind, words = each.name, each.kind, each.words
    shown = each.default_words if default is None else default
    flags: tuple[str, ...] = (each.flag,)
    annotation: Any = kind | None
    if kind is tuple:
        annotation, shown = list[str] | None, "none"
    elif several:
        name = each.about.several
        flags = tuple(dict.fromkeys((f"--{name.replace('_', '-')}", each.flag)))
        annotation = list[kind] | None  # type: ignore[valid-type]
        words = f"{words.removesuffix('.')}; one value or more."
    info = _option(words, shown, *flags, panel=each.about.group, complete=_complete(each))
    return _named(name, annotation, info)


def _named(name: str, kind: Any, info: Any) -> inspect.Parameter:
    """A parameter that is None where it is not given."""
    kept = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kept, default=None, annotation=Annotated[kind, info])


def _option(
    what: str,
    default: object,
    *names: str,
    panel: str | None = None,
    complete: Complete | None = None,
) -> Any:
    """An option whose help ends with the default that ``settings`` will give it."""
    help_text = f"{what.replace('[', chr(92) + '[')} [dim]\\[default: {default}][/dim]"
    return typer.Option(
        *names,
        help=help_text,
        show_default=False,
        rich_help_panel=panel,
        autocompletion=complete,
    )


def _complete(each: KnownOption) -> Complete | None:
    """What a shell completes a value of an option to."""
    choices = each.about.choices
    return completion.among(choices) if choices else completion.OF.get(each.name)


def of_run(name: str) -> Any:
    """The option ``name`` of a run, for a command that has few of them."""
    each = next(each for each in options() if each.name == name)
    return _option(each.words, each.default_words, each.flag, complete=_complete(each))


def _only(which: str, name: str) -> Any:
    """An option that narrows down which recorded runs are read."""
    return typer.Option(
        f"--{name}",
        help=f"Only runs {which}.",
        show_default=False,
        rich_help_panel="Which runs",
        autocompletion=completion.OF.get(name),
    )


Repeats = Annotated[int | None, _option("Make the run this many times; each is recorded.", 1)]
Database = Annotated[
    str | None, _option("Results database: a path or a SQLAlchemy URL.", "data/streamcli.db")
]
Json = Annotated[bool, _option("Print one JSON object a run to stdout.", "a table", "--json")]

JsonTurn = Annotated[bool, _option("Print one JSON object a turn to stdout.", "the text", "--json")]

Show = Annotated[
    str | None,
    typer.Option(
        "--show",
        help="Show a recorded one instead: its name, the beginning of it, or latest.",
        show_default=False,
    ),
]
Listed = Annotated[
    bool, typer.Option("--list", help="List the recorded ones instead, newest first.")
]

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A name, a beginning of one, or latest.",
        autocompletion=completion.runs,
    ),
]
Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        help="Names, beginnings of them, or latest.",
        autocompletion=completion.runs,
    ),
]
WHICH = (  # runs a filter keeps, one for each of ``FILTERS``
    "of this model",
    "on this text",
    "of this method",
    "in this mode",
    "begun at or after this time (2026-01-31T12:00)",
    "of this git commit, or its beginning",
    "of this sweep",
    "with this tag",
)


def check_alone(ctx: typer.Context, listed: bool) -> None:
    """Refuse what is for measuring beside ``--list`` or ``--show``.

    Raises:
        UsageError: Such an option was given.
    """
    which = "--list" if listed else "--show"
    also = {"db", "json", "listed"} if listed else {"db", "json", "show", "form", "out"}
    every = {each.name or "" for each in ctx.command.params}
    refuse(ctx, every - also, f"{which} shows what is recorded")


def refuse(ctx: typer.Context, names: Container[str], why: str) -> None:
    """Refuse parameters that were typed and that what else was typed makes no use of.

    Raises:
        UsageError: One of these names was given.
    """
    for each in ctx.command.params:
        source = ctx.get_parameter_source(each.name or "")
        flag = each.opts[-1] if each.param_type_name == "option" else each.opts[-1].upper()
        if each.name in names and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{why}: leave {flag} out.")


def filters(params: dict[str, Any]) -> dict[str, Any]:
    """The conditions among a command's parameters, as ``results.frames`` takes them.

    Raises:
        UsageError: No such method or mode.
    """
    for kind in ("method", "mode"):
        if (name := params.get(kind)) is not None:
            registry.check(kind, name)
    return {name: params[name] for name in FILTERS if params.get(name) is not None}
