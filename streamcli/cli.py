"""Builds the Typer app, mounts the commands, and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from core import own_options, registry
from core.config import options
from core.errors import Interrupted, StreamError, UsageError
from streamcli import __version__, harmless
from streamcli.commands import (
    bench,
    bundle,
    chat,
    compare,
    db,
    generate,
    paper,
    plot,
    probe,
    report,
    rerun,
    run,
    runs,
    sweep,
    verify,
    worker,
)
from streamcli.jobs import plan

QUESTION = "What does a streaming KV cache cost my model, and what does it buy?"
FIRST = f"""{QUESTION}

Start with [bold]streamcli run[/bold], then [bold]streamcli report[/bold]."""
START = {  # what to type first, and why
    "streamcli run": "measure one method on one model and one text, and record it",
    "streamcli sweep --datasets wikitext pg19": "every method and mode, on two texts",
    "streamcli report": "see what is recorded side by side",
}

app = typer.Typer(
    help=FIRST,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
MEASURE, LOOK, KEEP, WRITE = "Measure", "Look", "Keep", "Write"  # the groups of --help
app.command(rich_help_panel=MEASURE)(run.run)
app.command(rich_help_panel=MEASURE)(sweep.sweep)
app.command(rich_help_panel=MEASURE)(worker.worker)
app.command(rich_help_panel=MEASURE)(paper.paper)
app.command(rich_help_panel=MEASURE)(probe.probe)
app.command(rich_help_panel=MEASURE)(verify.verify)
app.command(rich_help_panel=MEASURE)(rerun.rerun)
app.command(rich_help_panel=MEASURE)(bench.bench)
app.command(rich_help_panel=LOOK)(report.report)
app.command(rich_help_panel=LOOK)(compare.compare)
app.command(rich_help_panel=LOOK)(plot.plot)
app.command(rich_help_panel=WRITE)(generate.generate)
app.command(rich_help_panel=WRITE)(chat.chat)
app.add_typer(runs.app, name="runs", rich_help_panel=KEEP)
app.add_typer(db.app, name="db", rich_help_panel=KEEP)
app.command(rich_help_panel=KEEP)(bundle.bundle)


def _flags(*names: str) -> set[str]:
    return {"--" + name.replace("_", "-") for name in names}


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"streamcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Show what to do first where no command is given; ``debug`` is read by ``main``."""
    if ctx.invoked_subcommand is None:
        _welcome()


def _welcome() -> None:
    from rich.console import Console
    from rich.panel import Panel

    steps = [f"[bold cyan]{words}[/]\n  {what}" for words, what in START.items()]
    body = "\n".join(steps)
    panel = Panel(body, title="Start with", title_align="left", border_style="dim")
    console = Console(highlight=False)
    console.print(f"\n{QUESTION}\n", panel, "streamcli --help lists every command.", sep="\n")


PLURALS = _flags(*plan.LISTS, "lengths", "columns", "add", "remove")
FORMATTED = (["report"], ["compare"])  # have --format
AS_JSON = (  # have --json
    *(["run"], ["bench"], ["probe"], ["generate"], ["chat"], ["paper"]),
    *(["runs", "list"], ["runs", "show"], ["db", "stats"]),
)
EITHER = {  # options that are lists under their own name as well
    "sweep": _flags(*(each.name for each in plan.varied().values())),
    "bench": _flags(*bench.SEVERAL),
}


def spread(words: list[str]) -> list[str]:
    """Words in which each value after a list option has that option of its own.

    ``--datasets wikitext pg19`` and ``--datasets wikitext,pg19`` both become
    ``--datasets wikitext --datasets pg19``. An option that only the chosen method has, such as
    ``--sinks 4``, becomes ``--param sinks=4``; ``--json`` and ``--format json`` become that of the
    two which the command has.

    Raises:
        UsageError: A list option has no value, or an empty one.
    """
    lists = PLURALS | EITHER.get(_command(words), set())
    out: list[str] = []
    option, awaited = "", False
    for word in [*words, "--"]:
        value = word
        if word.startswith("-") and not word[1:2].isdigit():  # -1 is a value
            if awaited:
                raise UsageError(f"{option} requires an argument: one value or more.")
            name, equals, value = word.partition("=")
            option = name if name in lists else ""
            awaited = bool(option)
            if option and not equals:
                continue
        if not option:
            out.append(word)
            continue
        parts = [part for part in value.split(",") if part]
        if not parts:
            raise UsageError(f"{option} has an empty value: give one or more, or leave it out.")
        for part in parts:
            out += [option, part]
        awaited = False
    return _own_options(_json(out[:-1]))


def _command(words: list[str]) -> str:
    """The command among the words, before which ``--debug`` may stand."""
    return next((word for word in words if not word.startswith("-")), "")


def _json(words: list[str]) -> list[str]:
    """The words, ``--json`` and ``--format json`` each as the command has it."""
    command = [word for word in words if not word.startswith("-")][:2]
    if command[:1] in FORMATTED:
        return ["--format=json" if word == "--json" else word for word in words]
    if command not in AS_JSON and command[:1] not in AS_JSON:
        return words
    out: list[str] = []
    for word in words:
        if word == "json" and out[-1:] == ["--format"]:
            out[-1] = "--json"
        else:
            out.append("--json" if word == "--format=json" else word)
    return out


def _own_options(words: list[str]) -> list[str]:
    """The words, each option that only a chosen method has given as ``--param NAME=VALUE``."""
    if (command := _command(words)) not in ("run", "sweep"):
        return words
    pairs = [
        word.split("=", 1) if "=" in word else [word, after]
        for word, after in zip(words, [*words[1:], ""], strict=True)
    ]
    chosen = {value for flag, value in pairs if flag in ("--method", "--methods")}
    chosen = {name for name in chosen if registry.known("method", name)}
    names = [name for each in chosen for name in own_options.parameters(each)]
    own = {f"--{name.replace('_', '-')}" for name in names}
    own -= {each.flag for each in options()}
    out: list[str] = []
    name, awaited = "", False
    for word in [*words, "--"]:
        flag, equals, value = word.partition("=")
        is_flag = word.startswith("-") and not word[1:2].isdigit()
        if awaited and is_flag:
            out += ["--param", f"{name}="]
        if is_flag:
            name = flag.removeprefix("--") if flag in own else ""
            awaited = bool(name) and not equals
            if awaited:
                continue
        if not name:
            out.append(word)
            continue
        for each in (value if equals else word).split(","):
            out += ["--param", f"{name}={each}"]
        awaited = False
        name = name if command == "sweep" else ""
    return out[:-1]


def main() -> None:
    """Run the command line; the console script's entry."""
    words = sys.argv[1:]
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    try:
        code = app(spread(words), standalone_mode=False)
        if code == Interrupted.exit_code:  # Typer's word for Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        _stop("interrupted.", Interrupted.exit_code)
    except Exception as error:
        if "--debug" in words:
            raise
        if isinstance(error, StreamError):
            _stop(str(error), error.exit_code)
        if hasattr(error, "format_message"):  # Typer's own, whose classes it keeps to itself
            command = getattr(getattr(error, "ctx", None), "command_path", "streamcli")
            text = _with_value(error.format_message(), error.__cause__)
            _stop(f"{text}{'' if text.endswith(('.', '?')) else '.'} See {command} --help.", 2)
        text = [*str(error).strip().splitlines(), "no message"][0]
        _stop(f"{type(error).__name__}: {text} (streamcli --debug ... shows where)", 1)


def _with_value(text: str, cause: object) -> str:
    """Typer's message with the value that it is about, which pydantic knows."""
    for found in getattr(cause, "errors", list)()[:1]:
        if repr(found["input"]) not in text:
            return f"{text.replace('Value error, ', '')}: it is {found['input']!r}."
    return text.replace("Value error, ", "")


def _stop(message: str, code: int) -> NoReturn:
    print(f"streamcli: {harmless.line(message)}", file=sys.stderr)
    sys.exit(code)
