"""Values of options that no run can have: each is refused in one line before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import options
from tests.support.typed import Type

pytest_plugins = ("tests.support.typed",)

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
def test_a_seed_of_64_bits_is_one(typed: Type, home: Path, value: int) -> None:
    bundled = ("--model", "bundled", "--dataset", "bundled-narrative", "--max-tokens", "40")
    small = ("--mode", "chunked", "--window", "16", "--threads", "1")
    assert typed("run", *bundled, *small, "--seed", str(value)).code == 0


def test_a_database_of_nobody(typed: Type, home: Path) -> None:
    done = typed("runs", "list", "--db", "~nosuchuser/x.db")
    assert done.refuses(2, "~nosuchuser/x.db", "no home of a user 'nosuchuser'")
