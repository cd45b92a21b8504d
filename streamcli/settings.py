"""Defaults from ``STREAMCLI_*`` variables and a ``.env`` file: the only reader of the environment.

A flag beats a variable, a variable beats ``.env``, and ``.env`` beats the built-in default.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.config import RunConfig
from core.errors import UsageError, unknown

PREFIX = "STREAMCLI_"
DOTENV = Path(".env")
FIELDS = {"db": "database_url"}  # flags whose settings have a longer name
SOURCES = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid")
DATABASE: Any = Field(
    "data/streamcli.db", description="Results database: a path or SQLAlchemy URL."
)


class Settings(BaseSettings):
    """What a run is made of when no flag says otherwise. One field a flag."""

    model_config = SOURCES

    model: str = Field(
        RunConfig.model, description="A Hub id (ID@REVISION), a folder, a .gguf file or bundled."
    )
    dataset: str = Field(RunConfig.dataset, description="wikitext, pg19 or a path.")
    method: str = Field(RunConfig.method, description="Cache method.")
    mode: str = Field(RunConfig.mode, description="How tokens are fed.")
    n_sink: int = Field(RunConfig.n_sink, description="S, sinks kept from the start.")
    window: int | None = Field(
        None, description="W, recent tokens kept; empty: half the trained length, less S."
    )
    max_tokens: int | None = Field(
        None,
        description="Tokens to read; empty: 4096, or twice the trained length where that is less.",
    )
    timed_tokens: int | None = Field(None, description="Decode steps to time; empty: every one.")
    context_tokens: int | None = Field(
        None, description="Tokens of context in kvpress-official; empty: 3/4 of each document."
    )
    evict_every: int | None = Field(
        None, description="k, steps between evictions; empty: 1, and 64 in kvpress-interval."
    )
    chunk_size: int | None = Field(
        None, description="C, tokens a forward in chunks; empty: 256, or 1024 over the batch."
    )
    batch_size: int = Field(RunConfig.batch_size, description="Documents read in step.")
    dtype: str = Field(RunConfig.dtype, description="float32, bfloat16 or float16.")
    device: str = Field(RunConfig.device, description="auto, cpu, cuda, cuda:N or mps.")
    engine: str = Field(
        RunConfig.engine, description="auto, eager, compiled or cudagraph: a decode step."
    )
    threads: int | None = Field(None, description="CPU threads; empty: torch's choice.")
    seed: int = Field(RunConfig.seed, description="Random seed.")
    repeats: int = Field(1, ge=1, le=10**6, description="Times to run, each recorded.")
    source: str = Field(RunConfig.source, description="auto, hub or bundled.")
    trust: bool = Field(RunConfig.trust, description="Allow pickled weights and a model's code.")
    database_url: str = DATABASE

    def config(self, **changed: Any) -> RunConfig:
        """The run that these settings describe, but for what is ``changed``."""
        values = {name: getattr(self, name) for name in RunConfig.names()}
        return RunConfig(**{**values, **changed})

    @property
    def model_is_explicit(self) -> bool:
        """Whether somebody named the model, so that no stand-in may take its place."""
        return "model" in self.model_fields_set


class Place(BaseSettings):
    """The one setting of what makes no run, which no other may stop."""

    model_config = SOURCES

    database_url: str = DATABASE


Kind = TypeVar("Kind", Settings, Place)


def read(flags: dict[str, Any]) -> Settings:
    """Settings under the given flags; a flag that is None was not given.

    Raises:
        UsageError: ``.env`` is malformed, a variable is unknown, or a value is of the wrong kind.
    """
    return _read(Settings, flags)


def place(db: str | None) -> str:
    """The results database, whatever the values of other settings; ``db`` is the flag's.

    Raises:
        UsageError: ``.env`` is malformed, or a variable is unknown.
    """
    return _read(Place, {"db": db}).database_url


def _read(kind: type[Kind], flags: dict[str, Any]) -> Kind:
    given = {FIELDS.get(name, name): value for name, value in flags.items() if value is not None}
    for name in os.environ:
        if name.startswith(PREFIX):
            _check_name(name, "the environment")
    unset = {
        name: value
        for name, value in _dotenv().items()
        if name in kind.model_fields and PREFIX + name.upper() not in os.environ
    }
    try:
        return kind(**{**unset, **given})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        flags_of = {field: flag for flag, field in FIELDS.items()}
        flag = flags_of.get(name, name).replace("_", "-")
        source = f"--{flag}" if name in given else PREFIX + name.upper()
        raise UsageError(f"{source} is {first['input']!r}: {first['msg'].lower()}.") from error


def _dotenv() -> dict[str, str]:
    if not DOTENV.is_file():
        return {}
    try:
        with DOTENV.open(encoding="utf-8") as lines:
            bad = next((line for line in parse_stream(lines) if line.error), None)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{DOTENV} can't be read ({error}): make it readable UTF-8 text."
        ) from error
    if bad:
        text = bad.original.string.strip().splitlines()[0]
        raise UsageError(f"{DOTENV} line {bad.original.line}: {text!r} is not NAME=value.")
    found = {}
    for name, value in dotenv_values(DOTENV).items():
        if name.startswith(PREFIX):
            _check_name(name, str(DOTENV))
            if value:
                found[name.removeprefix(PREFIX).lower()] = value
    return found


def _check_name(name: str, where: str) -> None:
    names = [PREFIX + field.upper() for field in Settings.model_fields]
    if name not in names:
        raise unknown(f"setting in {where}", name, names)
