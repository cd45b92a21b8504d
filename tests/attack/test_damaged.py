"""Databases and sizes that no command can work with: one line that says what, and the way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamcli.results import frames
from tests.support.databases import sql
from tests.support.records import BASE, FOUR, recorded, scored
from tests.support.typed import Type

LARGE = str(2**63)
RUNS = [{**BASE, **each} for each in FOUR]


def _damaged(home: Path, statement: str) -> None:
    sql(recorded(home / "runs.db", *FOUR), statement)


CELLS = {  # a cell that only another program writes: what it is called, and what it is not
    ("runs", "n_sink", "'abc'"): "no whole number",
    ("runs", "n_sink", "1.5"): "no whole number",
    ("runs", "ppl", "'abc'"): "no number",
    ("runs", "model", "x'00'"): "no text",
    ("runs", "git_dirty", "'abc'"): "no yes or no",
    ("documents", "scored_tokens", "'abc'"): "no whole number",
    ("traces", "nll", "'abc'"): "no packed numbers",
}


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=" ".join)
def test_a_cell_of_another_kind_is_told_by_table_row_and_column(
    typed: Type, home: Path, cell: tuple[str, str, str]
) -> None:
    table, column, value = cell
    store = recorded(home / "runs.db", *FOUR)
    scored(store, dict.fromkeys((run["method"] for run in RUNS), np.ones(599)), [599])
    method = "streaming" if table == "traces" else "recompute"  # whose documents are read
    (run_id,) = frames.runs(store, method=method)["run_id"]
    sql(store, f"UPDATE {table} SET {column} = {value} WHERE run_id = '{run_id}'")
    named = (f" as {column} of ", f"in the table {table}, which is {CELLS[cell]}")
    assert typed("db", "merge", "runs.db").refuses(1, *named, "correct that row")
    done = typed("db", "check", "--db", "runs.db")
    assert done.code == 1 and all(word in done.out for word in named), done
    if table in ("documents", "traces"):  # costs a report the intervals that take it
        told = {"documents": named[0], "traces": "is damaged"}[table]
        done = typed("report", "--db", "runs.db", "--columns", "clusters")
        assert done.code == 0 and told in done.out
    elif column != "git_dirty":  # which is read as yes
        assert typed("report", "--db", "runs.db").refuses(1, *named, "correct that row")
        if table == "runs":
            assert typed("runs", "show", run_id, "--db", "runs.db").refuses(1, *named)


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
