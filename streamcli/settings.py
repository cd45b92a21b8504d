"""Defaults from ``STREAMCLI_*`` variables and a ``.env`` file: the only reader of the environment.

A flag beats a variable, a variable beats ``.env``, and ``.env`` beats the built-in default.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import Field, PrivateAttr, ValidationError, create_model
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.config import RunConfig, options
from core.errors import UsageError, unknown
from core.option import KnownOption

PREFIX = "STREAMCLI_"
DOTENV = Path(".env")
ENCODING = "utf-8-sig"  # of which editors of Windows write a mark first
FIELDS = {"db": "database_url"}  # flags whose settings have a longer name
SOURCES = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid")
EXAMPLE = """\
# Copy to .env and change what you need. A flag beats a variable, a variable beats this file.
# Every line shows the built-in default.
"""
REPEATS: Any = Field(1, ge=1, le=10**6, description="Times to run, each recorded.")
DATABASE: Any = Field(
    "data/streamcli.db", description="Results database: a path or SQLAlchemy URL."
)


class Settings(BaseSettings):
    """What a run is made of when no flag says otherwise; ``_Every`` adds the options of a run."""

    model_config = SOURCES

    repeats: int = REPEATS
    database_url: str = DATABASE
    _param: tuple[tuple[str, str], ...] = PrivateAttr(())

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @property
    def given_param(self) -> tuple[tuple[str, str], ...]:
        """The options of single methods that were given, whichever method has them."""
        return self._param

    def config(self, **changed: Any) -> RunConfig:
        """The run that these settings describe, but for what is ``changed``."""
        held = {each.name: getattr(self, each.name) for each in settable()}
        return RunConfig(**{**held, "param": self._param, **changed})

    @property
    def model_is_explicit(self) -> bool:
        """Whether somebody named the model, so that no stand-in may take its place."""
        return "model" in self.model_fields_set


def settable() -> list[KnownOption]:
    """The options of a run that a variable can hold: all but those of single methods."""
    return [each for each in options() if each.kind is not tuple]


def _field(each: KnownOption) -> tuple[Any, Any]:
    empty = f" Empty: {each.default_words}." if each.default is None else ""
    kind = each.kind | None if each.default is None else each.kind
    return kind, Field(each.default, description=f"{each.words}{empty}")


_Every = create_model(  # type: ignore[call-overload]
    "_Every", __base__=Settings, **{each.name: _field(each) for each in settable()}
)


def example() -> str:
    """The text of .env.example: every setting with its default."""
    known = _Every.model_fields
    last = [name for name in known if name in Settings.model_fields]
    names = [*(name for name in known if name not in last), *last]
    lines = [
        f"# {known[name].description}\n{PREFIX}{name.upper()}="
        f"{'' if known[name].default is None else known[name].default}"
        for name in names
    ]
    return "\n".join([EXAMPLE, *lines]) + "\n"


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
    given = dict(flags)
    param = given.pop("param", None) or ()
    found: Settings = _read(_Every, given)
    found._param = tuple(map(_pair, param))
    return found


def _pair(text: str) -> tuple[str, str]:
    """NAME=VALUE in two."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--param is {text!r}: write NAME=VALUE, such as --param sinks=4.")
    return name.strip().replace("-", "_"), value.strip()


def place(db: str | None) -> str:
    """The results database, whatever the values of other settings; ``db`` is the flag's.

    Raises:
        UsageError: ``.env`` is malformed, or a variable is unknown.
    """
    return _read(Place, {"db": db}).database_url


def environment(database_url: str) -> dict[str, str]:
    """The environment of a process that records there: of its arguments anyone may read."""
    return {**os.environ, f"{PREFIX}DATABASE_URL": database_url}


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
        with DOTENV.open(encoding=ENCODING) as lines:
            bad = next((line for line in parse_stream(lines) if line.error), None)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{DOTENV} can't be read ({error}): make it readable UTF-8 text."
        ) from error
    if bad:
        # What stands there may be a password.
        raise UsageError(f"{DOTENV} line {bad.original.line} is not NAME=value: mend that line.")
    found = {}
    for name, value in dotenv_values(DOTENV, encoding=ENCODING).items():
        if name.startswith(PREFIX):
            _check_name(name, str(DOTENV))
            if value:
                found[name.removeprefix(PREFIX).lower()] = value
    return found


def _check_name(name: str, where: str) -> None:
    names = [PREFIX + field.upper() for field in _Every.model_fields]
    if name not in names:
        raise unknown(f"setting in {where}", name, names)
