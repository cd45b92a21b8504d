"""The paper's tables: one budget where the paper has one, every cell tied to its run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core import registry
from core.config import RunConfig
from streamcli import settings
from streamcli.analysis.paper import TABLES, Cell, Found, Wanted
from streamcli.analysis.published import figures
from streamcli.analysis.statistics import Difference, Interval
from streamcli.jobs import paper
from streamcli.render import paper as rendered
from streamcli.render import tables
from streamcli.results.store import Store
from tests.support.typed import Type

TRAINED = 2048


def arms() -> dict[RunConfig, int]:
    """Every configuration of the plan as a model of so many positions makes it, and its keys."""
    asked = settings.read({"dataset": "pg19", "concatenate": True})
    fitted = [arm.fitted(TRAINED) for arm in paper.plan(asked).arms]
    return {arm: arm.attended_keys for arm in fitted}


def test_tables_1_and_2_have_one_budget_and_share_their_runs(home: Path) -> None:
    found = arms()
    # Streaming with 4 sinks is in tables 1 and 2, and here half the trained length is in table 6.
    assert len(found) == 5 + (5 - 1) + (5 - 1)
    assert all(arm.concatenate and arm.mode == registry.CHUNKED for arm in found)
    bounded = {keys for arm, keys in found.items() if arm.spec.has_budget}
    assert bounded == {TRAINED // 2 + 1, 257, 513, 1025, 2049, 4097}
    assert paper.plan(settings.read({})).within_trained


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name.replace(" ", "-").lower())
def test_every_row_has_the_published_figures_that_answer_to_it(table: Wanted) -> None:
    theirs = [each for each in figures().series if each.table == table.name]
    assert theirs and all(each.by == table.by for each in theirs)
    names = {table.published.get(name, name) for name in table.cells}
    assert all(set(each.values) <= names for each in theirs)
    assert table.base in table.cells


def test_a_row_without_an_interval_is_named_with_the_reason() -> None:
    run = {"run_id": "01AB", "attended_keys": 1025, "ppl": 12.5, "model": "m", "dataset": "d"}
    run |= {"scored_tokens": 99, "dtype": "float32"}
    known = Difference(Interval(0.5, 0.4, 0.6), 1.0, "within this text, by Student's t on 8 blocks")
    unknown = Difference(Interval(0.5), 1.0, "98 tokens are too few, it takes 200")
    cells = [Cell("0", run, known), Cell("1", run, unknown), Cell("4", run)]
    assert rendered.sheet(Found(TABLES[1], cells)).notes[1] == (
        "nats: mean over all tokens, lower is better; 95 % interval within this text, by Student's "
        "t; no interval for 1: 98 tokens are too few, it takes 200."
    )


def test_what_was_not_run_is_said_to_be_and_what_was_published_stands_beside() -> None:
    run = {"run_id": "01AB", "attended_keys": 1025, "ppl": 12.5, "model": "m", "dataset": "d"}
    run |= {"scored_tokens": 99, "dtype": "float32"}
    nats = Difference(Interval(0.5, 0.4, 0.6), 1.0, "within this text")
    cells = [Cell("0", run, nats), Cell("1", None), Cell("4", run)]
    sheet = rendered.sheet(Found(TABLES[1], cells))
    assert [column.title for column in sheet.columns][-4:-2] == ["Falcon-7B", "MPT-7B"]
    first, second, third = sheet.rows
    assert first[:4] == ["0", "1,025", "12.50", "+0.500 [+0.400, +0.600]"]
    assert first[5:7] == ["17.90", "460.29"] and third[3] == "-"
    assert second[1:5] == ["-", "not run", "-", "-"]
    assert any(note.startswith("not run:") for note in sheet.notes)
    assert any("within this text" in note for note in sheet.notes)
    [record, *_] = rendered.records([Found(TABLES[1], cells)])
    assert record["published"]["Pythia-12B"] == 21.62 and record["difference_low_nats"] == 0.4


def test_notes_name_the_tables_of_the_paper_by_their_names() -> None:
    found = [Found(table, [Cell(name, None) for name in table.cells]) for table in TABLES]
    apart, shared = tables.together([rendered.sheet(each) for each in found])
    assert [sheet.title.partition(":")[0] for sheet in apart] == ["Table 1", "Table 2", "Table 6"]
    assert any(note.startswith("Table 6: published") for note in shared)


def test_a_figure_that_cannot_be_drawn_is_refused_before_anything_is_loaded(typed: Type) -> None:
    done = typed("paper", "--model", "bundled", "--dataset", "bundled-narrative", "--out", "x.gif")
    assert done.refuses(2, ".gif")


def test_a_text_that_is_not_there_is_refused_before_anything_is_loaded(typed: Type) -> None:
    assert typed("paper", "--model", "bundled", "--dataset", "nothing").refuses(2, "nothing")


@pytest.mark.slow
def test_the_tables_are_made_and_made_again_from_what_is_recorded(typed: Type, home: Path) -> None:
    words = ["paper", "--model", "bundled", "--dataset", "bundled-narrative", "--json"]
    words += ["--max-tokens", "300", "--threads", "1", "--out", "figures/three.html"]
    first = typed(*words)
    page = (home / "figures" / "three.html").read_text()
    assert all(name in page for name in ("streaming", "line-breaks", "nats a token"))
    assert first.code == 0 and "4 left out" in first.err
    rows = json.loads(first.out)
    assert [row["table"] for row in rows] == ["Table 1"] * 5 + ["Table 2"] * 5 + ["Table 6"] * 5
    store = Store.open(home / "data" / "streamcli.db")
    for row in rows:
        run = store.get(row["run_id"]) if row["run_id"] else None
        assert (run.ppl if run else None) == row["ppl"]
        assert run is None or (run.concatenate and run.mode == registry.CHUNKED)
    assert {row["attended_keys"] for row in rows[1:9]} == {257}
    again = typed(*words[:-2])
    assert json.loads(again.out) == rows and "10 finished" in again.err
