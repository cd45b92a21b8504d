"""``streamcli bench``: what a step costs, every arm timed in turn, beside what it must cost."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core import extras, registry
from core.config import CHUNK, RunConfig, check_threads
from core.config import options as known_options
from core.errors import UsageError, unknown
from core.models.shapes import SHAPES
from streamcli import options
from streamcli.render import images

if TYPE_CHECKING:
    from streamcli.render.benchmarks import Timed


@dataclass(frozen=True)
class Bench:
    """One kind of benchmark: what it is for, and what it takes where nothing is said."""

    purpose: str
    defaults: dict[str, Any]


USUAL = "eager, and compiled (on a GPU cudagraph) where a method has it, else as-shipped"
COMMON = {"shape": "pythia-70m", "n_sink": 4, "dtype": "float32", "device": "auto", "seed": 0}
BENCHES = {
    "decode": Bench(
        "a token with a full cache, by every method and engine",
        {
            **{"methods": list(registry.COMPARED), "engines": None, "windows": [1020]},
            **{"batch_sizes": [1], "evict_every": [1], "rounds": 15, "steps": 20},
        },
    ),
    "window": Bench(
        "the same against the size of the cache, as the paper's figure 10",
        {
            **{"methods": [registry.STREAMING, registry.BASELINE], "engines": None},
            **{"windows": [252, 508, 1020, 2044, 4092], "rounds": 7, "steps": 10},
        },
    ),
    "prompt": Bench(
        "a prompt until its first token is predicted",
        {
            **{"methods": [*registry.COMPARED, registry.DENSE], "lengths": [512, 2048, 8192]},
            **{"windows": [1020], "chunk_size": CHUNK, "rounds": 7, "steps": 1},
        },
    ),
    "length": Bench(
        "a token against the length of the stream: flat where the cache is bounded",
        {
            **{"methods": [registry.STREAMING, registry.DENSE], "lengths": [2048, 8192, 32768]},
            **{"windows": [252], "rounds": 7, "steps": 20},
        },
    ),
    "perplexity": Bench(
        "the scoring of a token: exact chunks, plain forwards over chunks, the decode loop",
        {"windows": [1020], "chunk_size": CHUNK, "rounds": 15, "steps": 4},
    ),
    "startup": Bench("whole commands, each in a process of its own", {"rounds": 7}),
}
TAKEN = {"threads", *COMMON, *(name for each in BENCHES.values() for name in each.defaults)}
OF_A_RUN = {  # the options of a run among these, by what each is called here
    name: each
    for each in known_options()
    for name in (each.name, each.about.several)
    if name in TAKEN
}
SEVERAL = {each.name for name, each in OF_A_RUN.items() if name == each.about.several}
MOST = 10**6  # of each number but the seed


def _default(name: str) -> str:
    """What the help says of an option's default, benchmark by benchmark where they differ."""
    if name in COMMON:
        return str(COMMON[name])
    given = {what: each.defaults[name] for what, each in BENCHES.items() if name in each.defaults}
    shown = {
        what: " ".join(map(str, value)) if isinstance(value, list) else str(value)
        for what, value in given.items()
        if value is not None
    }
    if len(set(shown.values())) == 1 and len(shown) > 1:
        return next(iter(shown.values()))
    return "; ".join(f"{what}: {value}" for what, value in shown.items()) or USUAL


def _own(what: str, name: str, **more: Any) -> Any:
    words = f"{what} [dim]\\[default: {_default(name)}][/dim]"
    return typer.Option(help=words, show_default=False, **more)


def _number(what: str, name: str, least: int) -> Any:
    return _own(what, name, min=least, max=MOST)


WHAT = "; ".join(f"[bold]{name}[/bold]: {each.purpose}" for name, each in BENCHES.items())


@options.run_options(
    lists=SEVERAL,
    leave_out={*RunConfig.names()} - {each.name for each in OF_A_RUN.values()},
    **{each.name: _default(name) for name, each in OF_A_RUN.items() if name != "threads"},
)
def bench(
    ctx: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="WHAT",
            help=f"What to time. {WHAT}.",
            autocompletion=lambda: list(BENCHES),
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        str | None,
        _own(
            f"Random weights of this shape: {', '.join(SHAPES)}.",
            "shape",
            autocompletion=lambda: list(SHAPES),
        ),
    ] = None,
    lengths: Annotated[
        list[int] | None,
        _number("Tokens of stream or prompt; one value or more.", "lengths", least=1),
    ] = None,
    rounds: Annotated[
        int | None, _number("Rounds, in each of which every arm is timed once.", "rounds", least=2)
    ] = None,
    steps: Annotated[int | None, _number("Steps of an arm in a round.", "steps", least=1)] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Draw time and memory against size or length: .html, .png, .svg, .pdf."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a list of rows to stdout.")] = False,
    show: options.Show = None,
    listed: options.Listed = False,
    db: options.Database = None,
    **given: Any,
) -> None:
    """Time steps in turn, beside what this machine must take for them.

    Weights are random, of a published shape: times mean something,
    predictions do not. The floor is the larger of bytes over read bandwidth
    and FLOPs over matrix rate. A step of one token with n keys reads
    b x (N + 2 x layers x K x D x n) bytes and takes
    2 x N + 4 x layers x H x D x n FLOPs
    (N weights of b bytes, H heads, K of them with keys, of D numbers).
    Times are a token's; where only every k-th step evicts, they are means
    over whole cycles of k.

    [dim]streamcli bench decode --shape pythia-70m --windows 1020
    streamcli bench decode --methods streaming mit --engines eager --evict-every 1 16 64
    streamcli bench decode --methods streaming recompute --batch-sizes 1 4 8
    streamcli bench prompt --lengths 2048 8192
    streamcli bench perplexity --chunk-size 256
    streamcli bench length --methods streaming dense --lengths 2048 8192
    streamcli bench window --engines eager --out window.html
    streamcli bench startup[/dim]
    """
    from streamcli.jobs import bench as job
    from streamcli.render import benchmarks, documents, output

    if listed or show is not None:
        options.check_alone(ctx, listed)
        _recorded(show, db, json, out)
        return
    if what is None:
        raise UsageError(f"name what to time: {', '.join(BENCHES)}.")
    others = ("what", "out", "json", "show", "listed", "db")
    asked = _asked(what, {k: v for k, v in ctx.params.items() if k not in others})
    if out:
        _check_figure(what, asked, out)
    if what == "startup":
        if db:
            raise UsageError(
                "--db is for what is recorded, and bench startup is not: leave it out."
            )
        rows = job.startup(asked["rounds"])
        sheet = benchmarks.startup(rows, asked["rounds"])
    else:
        timed, ledger = job.run(what, asked, db)
        rows, sheet = timed.rows, benchmarks.sheet(timed)
        if out:
            _draw(timed, out)
    if json:
        sys.stdout.write(documents.json_list(rows))
    else:
        output.page(sheet)
    if what != "startup":
        ledger.settle()


def _recorded(which: str | None, db: str | None, json: bool, out: Path | None) -> None:
    """Show a benchmark that is recorded, or list them all."""
    from streamcli.jobs import bench as job
    from streamcli.jobs.database import opened
    from streamcli.render import benchmarks, documents, output

    store = opened(db)
    if which is None:
        rows = job.recorded(store)
        page = benchmarks.listing(rows, store.place) if rows else None
    else:
        timed = job.shown(which, store)
        rows, page = timed.rows, benchmarks.sheet(timed)
        if out:
            along = "length" if timed.what in ("length", "prompt") else "window"
            _check_figure(timed.what, {f"{along}s": [row[along] for row in rows]}, out)
            _draw(timed, out)
    if json:
        sys.stdout.write(documents.json_list(rows))
    elif page:
        output.page(page)
    else:
        output.say(f"{store.place} has no benchmark yet: record one with streamcli bench.")


def _draw(timed: Timed, out: Path) -> None:
    """Write the figure of a benchmark."""
    from streamcli.render import output
    from streamcli.render.figures import benchmarks as figures

    drawn = figures.draw(out.stem, timed)
    for path in images.write([drawn], out.parent, out.suffix[1:]):
        output.say(f"drawn: {path}")


def _check_figure(what: str, asked: dict[str, Any], out: Path) -> None:
    """Refuse a figure that can't be drawn before anything is timed.

    Raises:
        UsageError: Of nothing that varies, or in no such format.
    """
    images.check(out)
    along = "lengths" if what in ("length", "prompt") else "windows"
    if len(set(asked.get(along, ()))) < 2:
        raise UsageError(f"--out draws a line against --{along}: give two of them at least.")


def _asked(what: str, given: dict[str, Any]) -> dict[str, Any]:
    """Every option of the benchmark ``what``, given or not.

    Raises:
        UsageError: No such benchmark, shape or method, an option that it does not have, or a
            number out of range.
    """
    if what not in BENCHES:
        raise unknown("benchmark", what, BENCHES)
    named = {name: value for name, value in given.items() if value not in (None, (), [])}
    known = {**(COMMON if what != "startup" else {}), **BENCHES[what].defaults}
    for name in named:
        if name not in known and (name != "threads" or what == "startup"):
            shared = name in COMMON or name == "threads"
            others = [w for w, each in BENCHES.items() if name in each.defaults]
            fit = "benchmarks of steps" if shared else f"bench {' or '.join(others)}"
            raise UsageError(
                f"--{name.replace('_', '-')} is for {fit}, not for {what}: leave it out."
            )
    asked = {"threads": None, **known, **named, "named": frozenset(named)}
    if "shape" in asked and asked["shape"] not in SHAPES:
        raise unknown("shape", asked["shape"], SHAPES)
    for name, each in OF_A_RUN.items():
        values = named.get(name, [])
        for value in values if isinstance(values, list | tuple) else [values]:
            each.check(value)
            if name != "seed" and isinstance(value, int) and value > MOST:
                raise UsageError(f"{name} is {value}: it must be {MOST:,} or less.")
    for method in named.get("methods", ()):  # others are left out where they can't run
        extras.check(method)
    check_threads(asked["threads"])
    return asked
