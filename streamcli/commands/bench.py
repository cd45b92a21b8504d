"""``streamcli bench``: what a step costs, every arm timed in turn, beside what it must cost."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from core import extras, registry
from core.config import CHUNK, DTYPES, ENGINES, RunConfig, check_threads, delaying, static
from core.errors import UsageError, unknown
from core.models.shapes import SHAPES
from streamcli import options
from streamcli.render import images


@dataclass(frozen=True)
class Bench:
    """One kind of benchmark: what it is for, and what it takes where nothing is said."""

    purpose: str
    defaults: dict[str, Any]


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
LEAST = {"rounds": 2, "steps": 1, "n_sink": 0} | dict.fromkeys(
    ("windows", "batch_sizes", "lengths", "evict_every", "chunk_size", "threads"), 1
)
MOST = 10**6  # of each of these
LISTS = ("methods", "engines", "windows", "batch_sizes", "lengths", "evict_every")


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
    return "; ".join(f"{what}: {value}" for what, value in shown.items()) or "all"


def _option(what: str, name: str) -> Any:
    return typer.Option(help=f"{what} [dim]\\[default: {_default(name)}][/dim]", show_default=False)


WHAT = "; ".join(f"[bold]{name}[/bold]: {each.purpose}" for name, each in BENCHES.items())


def bench(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help=f"What to time. {WHAT}.", autocompletion=lambda: list(BENCHES)
        ),
    ],
    shape: Annotated[
        str | None, _option(f"Random weights of this shape: {', '.join(SHAPES)}.", "shape")
    ] = None,
    methods: Annotated[list[str] | None, _option("Methods, by spaces.", "methods")] = None,
    engines: Annotated[
        list[str] | None,
        _option(f"{', '.join(ENGINES[1:])}: of {', '.join(static())}, by spaces.", "engines"),
    ] = None,
    n_sink: Annotated[int | None, _option("S, sinks kept from the start.", "n_sink")] = None,
    windows: Annotated[list[int] | None, _option("W, separated by spaces.", "windows")] = None,
    batch_sizes: Annotated[
        list[int] | None,
        _option("Documents in step, by spaces; times are a token's.", "batch_sizes"),
    ] = None,
    evict_every: Annotated[
        list[int] | None,
        _option(
            f"k, steps between evictions, by spaces, of {', '.join(delaying())}; a figure is the "
            "mean over whole cycles.",
            "evict_every",
        ),
    ] = None,
    lengths: Annotated[
        list[int] | None, _option("Tokens of stream or prompt, separated by spaces.", "lengths")
    ] = None,
    chunk_size: Annotated[int | None, _option("C, tokens a forward.", "chunk_size")] = None,
    rounds: Annotated[int | None, _option("Rounds; each takes every arm once.", "rounds")] = None,
    steps: Annotated[int | None, _option("Steps of an arm in a round.", "steps")] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads [dim]\\[default: torch's choice][/dim]")
    ] = None,
    dtype: Annotated[str | None, _option("float32, bfloat16 or float16.", "dtype")] = None,
    device: Annotated[str | None, _option("auto, cpu, cuda, cuda:N or mps.", "device")] = None,
    seed: Annotated[int | None, _option("Of weights, tokens and order.", "seed")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Draw time and memory against size or length: .html, .png, .svg, .pdf."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a list of rows to stdout.")] = False,
    db: options.Database = None,
) -> None:
    """Time steps in turn, beside what this machine must take for them.

    Weights are random, of a published shape: times mean something,
    predictions do not. The floor is the larger of bytes over read bandwidth
    and FLOPs over matrix rate. A step of one token with n keys reads
    b x (N + 2 x layers x K x D x n) bytes and takes
    2 x N + 4 x layers x H x D x n FLOPs
    (N weights of b bytes, H heads, K of them with keys, of D numbers).

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
    from streamcli.render.figures import benchmarks as figures

    others = ("what", "out", "json", "db")
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
        rows, sheet = timed.rows, benchmarks.sheet(what, asked, timed)
        if out:
            drawn = figures.draw(out.stem, rows, f"{timed.model}, {timed.where}", timed.weights_mib)
            for path in images.write([drawn], out.parent, out.suffix[1:]):
                output.say(f"drawn: {path}")
    if json:
        sys.stdout.write(documents.json_list(rows))
    else:
        output.page(sheet)
    if what != "startup":
        ledger.settle()


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
            fit = "what takes a step" if shared else " or ".join(others)
            raise UsageError(
                f"--{name.replace('_', '-')} is for bench {fit}, not for {what}: leave it out."
            )
    asked = {"threads": None, **known, **named, "named": frozenset(named)}
    if "shape" in asked and asked["shape"] not in SHAPES:
        raise unknown("shape", asked["shape"], SHAPES)
    for method in asked.get("methods") or ():
        registry.check("method", method)
        if "methods" in named:  # what nobody named is left out where it can't run
            extras.check(method)
    if "dtype" in asked and asked["dtype"] not in DTYPES:
        raise unknown("dtype", asked["dtype"], DTYPES)
    for name, least in LEAST.items():
        values = named.get(name, least)
        for value in values if isinstance(values, list | tuple) else [values]:
            if not least <= value <= MOST:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} is {value}: it must be from {least:,} to {MOST:,}.")
    check_threads(asked["threads"])
    RunConfig(seed=asked.get("seed", 0))  # which refuses one that torch does not take
    return asked
