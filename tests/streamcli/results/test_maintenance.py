"""What a database says of itself: how much it holds, and everything that is wrong with it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.result import RunResult
from streamcli.results import maintenance, transfer
from streamcli.results.maintenance import Finding
from streamcli.results.schema import DOCUMENTS, pack
from streamcli.results.store import Store
from tests.support.databases import sql
from tests.support.records import Begin


@pytest.fixture
def filled(store: Store, begin: Begin, sound: RunResult) -> tuple[Store, str]:
    """Two sound runs (one with a score that is infinite), a failed one; the first one's name."""
    first = begin(store)
    store.finish(first, sound)
    lost, rest = sound.documents
    nll = sound.nll.copy()
    nll[0] = np.inf
    odd = replace(sound, documents=(replace(lost, nll_nats=np.inf), rest), nll=nll)
    store.finish(begin(store, method="window"), odd)
    store.fail(begin(store), "no")
    return store, first


def test_a_sound_database_has_no_findings(filled: tuple[Store, str]) -> None:
    assert maintenance.check(filled[0]) == []


def test_a_run_that_ends_meanwhile_is_no_finding(
    filled: tuple[Store, str], begin: Begin, sound: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = filled
    runs = [begin(store, number) for number in (1, 2)]
    read = transfer._rows

    def ends(connection: Any, table: Any, columns: Any, names: Any) -> Any:
        if table is DOCUMENTS:  # when the rows of runs have been read
            store.finish(runs.pop(), sound)
        return read(connection, table, columns, names)

    monkeypatch.setattr(transfer, "_rows", ends)
    assert maintenance.check(store) == [] and len(runs) == 1


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "has no trace": ("DELETE FROM traces WHERE run_id = :run", {}),
    "its trace is damaged": (
        "UPDATE traces SET nll = :blob WHERE run_id = :run",
        {"blob": b"damaged"},
    ),
    "its trace has 3 tokens, not 1000": (
        "UPDATE traces SET nll = :blob WHERE run_id = :run",
        {"blob": pack(np.ones(3, np.float32))},
    ),
    "has 1 of its 2 documents": ("DELETE FROM documents WHERE run_id = :run AND position = 0", {}),
    "its documents have 1001 tokens, not 1000": (
        "UPDATE documents SET scored_tokens = scored_tokens + 1 "
        "WHERE run_id = :run AND position = 1",
        {},
    ),
    "nll_nats is not the mean over its documents": (
        "UPDATE runs SET nll_nats = nll_nats * 1.00001 WHERE run_id = :run",
        {},
    ),
    "created_at is '2026-11-93', which is no time": (
        "UPDATE runs SET created_at = '2026-11-93' WHERE run_id = :run",
        {},
    ),
    "ppl is not exp(nll_nats)": ("UPDATE runs SET ppl = ppl + 0.001 WHERE run_id = :run", {}),
    "is failed, yet has documents or a trace": (
        "UPDATE runs SET status = 'failed' WHERE run_id = :run",
        {},
    ),
}


@pytest.mark.parametrize("words", WRONG)
@pytest.mark.slow
def test_a_run_whose_parts_do_not_fit_is_found(filled: tuple[Store, str], words: str) -> None:
    store, run_id = filled
    statement, values = WRONG[words]
    assert sql(store, statement, run=run_id, **values) == 1
    assert Finding(run_id, words) in maintenance.check(store)
    assert {each.run_id for each in maintenance.check(store)} == {run_id}


def test_a_single_token_that_was_changed_is_found(filled: tuple[Store, str]) -> None:
    store, run_id = filled
    nll = store.trace(run_id)[0]
    nll[700] += 0.01
    sql(store, "UPDATE traces SET nll = :blob WHERE run_id = :run", blob=pack(nll), run=run_id)
    (finding,) = maintenance.check(store)
    assert finding.what.startswith("document 1: its trace sums to")


LAYOUT = {
    "DROP VIEW results": "the view results is missing",
    "DROP INDEX ix_runs_sweep": "the schema needs: add index ix_runs_sweep",
    "DROP VIEW results; CREATE VIEW results AS SELECT run_id FROM runs": "has other columns",
}


@pytest.mark.parametrize("statements", LAYOUT)
@pytest.mark.slow
def test_a_changed_layout_is_found(filled: tuple[Store, str], statements: str) -> None:
    store = filled[0]
    for statement in statements.split("; "):
        sql(store, statement)
    (finding,) = maintenance.check(store)
    assert finding.run_id is None and LAYOUT[statements] in finding.what


@pytest.mark.slow
def test_an_owners_own_table_is_no_fault(filled: tuple[Store, str]) -> None:
    sql(filled[0], "CREATE TABLE mine (x INTEGER)")
    assert maintenance.check(filled[0]) == []


def test_rows_of_a_run_that_is_gone_are_found(file: Path, begin: Begin, sound: RunResult) -> None:
    store = Store.open(file)
    store.finish(run_id := begin(store), sound)
    connection = sqlite3.connect(file)  # which does not enforce foreign keys
    connection.execute("DELETE FROM runs")
    connection.commit()
    connection.close()
    found = maintenance.check(store)
    assert [each.what for each in found if each.run_id == run_id] == [
        "is gone, but rows of it are left in documents",
        "is gone, but rows of it are left in traces",
    ]


def test_a_damaged_page_is_found(file: Path, begin: Begin, sound: RunResult) -> None:
    store = Store.open(file)
    store.finish(begin(store), sound)
    query = "SELECT rootpage FROM sqlite_master WHERE name = 'ix_runs_latest'"
    ((page,),) = sql(store, query)  # the index's name in the schema stays; its root page goes
    ((size,),) = sql(store, "PRAGMA page_size")
    raw = bytearray(file.read_bytes())
    raw[(page - 1) * size + 3 : (page - 1) * size + 5] = b"\0\0"  # no cells: rows are missing
    file.write_bytes(raw)
    found = maintenance.check(Store.open(file))
    assert any(each.what.startswith("integrity check: ") for each in found)


def test_stats_count_by_kind(filled: tuple[Store, str]) -> None:
    found = maintenance.stats(filled[0])
    assert (found["runs"], found["scored_tokens"]) == (3, 2000)
    assert found["status"] == {"done": 2, "failed": 1}
    assert found["method"] == {"streaming": 2, "window": 1}
    assert found["oldest"] < found["newest"] and found["size_bytes"] > 10_000


def test_stats_of_nothing(store: Store) -> None:
    found = maintenance.stats(store)
    assert (found["runs"], found["oldest"], found["model"]) == (0, None, {})


def test_a_vacuum_gives_back_the_room_and_keeps_the_rest(
    store: Store, begin: Begin, sound: RunResult
) -> None:
    large = np.random.default_rng(0).random(400_000, np.float32)
    document = replace(
        sound.documents[0], scored_tokens=len(large), nll_nats=float(large.astype(float).sum())
    )
    kept = begin(store)
    store.finish(kept, sound)
    gone = begin(store)
    store.finish(gone, replace(sound, documents=(document,), nll=large))
    full = maintenance.stats(store)["size_bytes"]
    store.delete(gone)
    before, after = maintenance.vacuum(store)
    assert before >= full > 1_000_000 and after < before - 1_000_000
    assert maintenance.check(store) == [] and store.get("latest").run_id == kept
