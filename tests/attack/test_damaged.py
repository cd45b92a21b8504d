"""Databases and sizes that no command can work with: one line that says what, and the way out."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.support.records import FOUR, recorded
from tests.support.typed import Type

pytest_plugins = ("tests.support.typed",)

LARGE = str(2**63)


def _damaged(home: Path, statement: str) -> None:
    recorded(home / "runs.db", *FOUR)
    with sqlite3.connect(home / "runs.db") as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("words", [("report", "--db"), ("db", "merge")])
@pytest.mark.parametrize("name", ["n_sink", "ppl"])
def test_text_where_a_number_belongs(
    typed: Type, home: Path, words: tuple[str, ...], name: str
) -> None:
    _damaged(home, f"UPDATE runs SET {name} = 'abc' WHERE method = 'window'")
    done = typed(*words, "runs.db")
    assert done.refuses(1, "'abc'", f" as {name} of ", "no number", "correct that row")


def test_a_schema_that_is_not_named(typed: Type, home: Path) -> None:
    _damaged(home, "DELETE FROM alembic_version")
    assert typed("report", "--db", "runs.db").refuses(1, "alembic_version is empty", "--db")


@pytest.mark.parametrize(
    "words",
    [
        ("runs", "list", "--limit", LARGE),
        ("report", "--limit", LARGE),
        ("bench", "decode", "--rounds", LARGE),
        ("bench", "decode", "--steps", LARGE),
        ("bench", "decode", "--threads", LARGE),
        ("bench", "length", "--lengths", LARGE),
    ],
    ids=" ".join,
)
def test_sizes_that_nobody_means(typed: Type, home: Path, words: tuple[str, ...]) -> None:
    (home / "data").mkdir()
    recorded(home / "data" / "streamcli.db", *FOUR)
    assert typed(*words).refuses(2, words[2].strip("-"), LARGE)


def test_a_plan_of_a_million_runs(typed: Type, home: Path) -> None:
    windows = ", ".join(map(str, range(1, 1001)))
    (home / "plan.yaml").write_text(f"windows: [{windows}]\nseeds: [{windows}]\n")
    words = ("--models", "bundled", "--datasets", "bundled-narrative", "--methods", "streaming")
    done = typed("sweep", "--file", "plan.yaml", *words, "--modes", "chunked", "--dry-run")
    assert done.refuses(2, "1,000,000 runs", "1000 window", "100,000", "split it up")
