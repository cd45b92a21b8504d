"""Values of options that no run can have: each is refused in one line before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main

from core.config import options
from streamcli import cli
from tests.support.typed import Type

LARGE = [2**63, 2**64, 10**30, -(2**63) - 1]
BOUNDED = [each.name for each in options() if each.about.most and each.kind is int]
OPTIONS = (*BOUNDED, "repeats")
ONLY_IN = {"chunk_size": "chunked", "context_tokens": "kvpress-official"}


@pytest.mark.parametrize("value", LARGE)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_whole_number_of_more_than_64_bits(
    typed: Type, home: Path, name: str, value: int
) -> None:
    method = "kvpress" if name == "context_tokens" else "streaming"
    words = ("--mode", ONLY_IN.get(name, "decode-loop"), "--method", method)
    flag = f"--{name.replace('_', '-')}"
    done = typed("run", "--model", "nothing/at/all", *words, flag, str(value))
    assert done.refuses(2, f"{name} is {value}: ", "or ")
    assert not (home / "data").exists()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_variable_of_more_than_64_bits(
    typed: Type, home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"STREAMCLI_{name.upper()}", str(10**30))
    if name in ONLY_IN:
        monkeypatch.setenv("STREAMCLI_MODE", ONLY_IN[name])
        monkeypatch.setenv("STREAMCLI_METHOD", "kvpress")
    done = typed("run", "--model", "nothing/at/all")
    said = name if name in BOUNDED else "STREAMCLI_REPEATS"
    assert done.refuses(2, f"{said} is ", str(10**30), "less")


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63) + 1])
@pytest.mark.slow
def test_a_seed_of_64_bits_is_one(typed: Type, home: Path, value: int) -> None:
    bundled = ("--model", "bundled", "--dataset", "bundled-narrative", "--max-tokens", "40")
    small = ("--mode", "chunked", "--window", "16", "--threads", "1")
    assert typed("run", *bundled, *small, "--seed", str(value)).code == 0


def test_a_database_of_nobody(typed: Type, home: Path) -> None:
    done = typed("runs", "list", "--db", "~nosuchuser/x.db")
    assert done.refuses(2, "~nosuchuser/x.db", "no home of a user 'nosuchuser'")


MODEL = ("--model", "nobody/nothing")
SWEPT = ("--models", *MODEL[1:], "--datasets", "bundled-narrative", "--methods", "kvpress")
BESIDE: dict[str, tuple[str, ...]] = {  # what a command must be given besides
    **dict.fromkeys(("run", "verify", "probe", "paper", "chat"), MODEL),
    "sweep": (*SWEPT, "--dry-run"),
    "generate": ("a word", *MODEL),
    "bench": ("decode",),
}
IN = {  # what has an option that not all have
    ("run", "chunk_size"): ("--mode", "chunked"),
    ("run", "context_tokens"): ("--method", "kvpress", "--mode", "kvpress-official"),
    ("bench", "lengths"): ("length",),
    ("bench", "chunk_size"): ("prompt",),
}
NO_LEAST = ("seed", "seeds")
FROM_0 = (*NO_LEAST, "n_sink", "n_sinks", "skip_tokens", "limit")


def _whole_numbers(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every option of every command that takes whole numbers: the command, its flag and name."""
    for name, each in getattr(command, "commands", {}).items():
        yield from _whole_numbers(each, (*words, name))
    for each in command.params:
        kind = each.type_descriptor.annotation
        if int in (kind, *get_args(kind)):
            yield (*words,), each.opts[0], each.name


NUMBERS = [
    (*found, value)
    for found in _whole_numbers(typer.main.get_command(cli.app))
    for value in (2**63, 10**30, -(2**63) - 1, -1, 0)
    if not (value in (-1, 0) and found[2] in (NO_LEAST if value else FROM_0))
]


def test_every_command_with_whole_numbers_is_among_them() -> None:
    named = {words[0] for words, *_ in NUMBERS}
    assert named >= {"run", "sweep", "bench", "verify", "report", "compare", "plot", "generate"}
    assert len(NUMBERS) > 200


@pytest.mark.parametrize(("words", "flag", "name", "value"), NUMBERS, ids=str)
def test_a_whole_number_that_nobody_means_is_refused(
    typed: Type, home: Path, words: tuple[str, ...], flag: str, name: str, value: int
) -> None:
    beside = IN.get((words[0], name)) if words[0] == "bench" else None
    more = () if beside else IN.get((words[0], name), ())
    given = (*words, *(beside or BESIDE.get(words[0], ())), *more, flag, str(value))
    assert typed(*given).refuses(2, str(value))
    assert not (home / "data").exists()
