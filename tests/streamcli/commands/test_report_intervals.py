"""Reports of how sure a figure is: intervals of changes, accuracies, and what scores are read."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from streamcli.analysis.selection import Query
from streamcli.jobs.select import select
from streamcli.render import tables, terminal_tables
from streamcli.results.columns import format_ends
from streamcli.results.store import Store
from tests.support.databases import sql
from tests.support.records import FOUR, differing, recorded, scored
from tests.support.reported import DB, report, rows_of
from tests.support.typed import Type

INTERVALS = [
    ([3000], "within this text, by Student's t"),
    ([600] * 5, "over 5 documents, by Student's t"),
    ([50] * 60, "over 60 documents, by bootstrap-t"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("lengths", "scope"), INTERVALS)
def test_every_change_has_its_interval_in_every_format_and_a_note_says_over_what(
    home: Path, typed: Type, lengths: list[int], scope: str
) -> None:
    differing(home / DB, lengths, streaming=0.02, window=0.3)
    by_method = {row["method"]: row for row in rows_of(typed)}
    (other,) = (
        row
        for row in json.loads(typed("compare", "--db", DB, "--format", "json").out)
        if row["method"] == "streaming"
    )
    mine = by_method["streaming"]
    for end in ("low", "high"):
        nats = other[f"difference_{end}_nats"]
        assert mine[f"ppl_change_{end}"] == pytest.approx(math.expm1(nats))
    assert mine["ppl_change"] == pytest.approx(math.expm1(other["difference_nats"]), rel=1e-5)
    assert mine["clusters"].startswith(scope) and by_method["recompute"]["clusters"] is None
    (csv_row,) = (
        row
        for row in csv.DictReader(io.StringIO(report(typed, "--format", "csv").out, newline=""))
        if row["method"] == "streaming"
    )
    assert float(csv_row["ppl_change_low"]) == mine["ppl_change_low"]
    ends = format_ends(mine["ppl_change_low"], mine["ppl_change_high"]).strip()
    cell = f"{mine['ppl_change']:+.2%} {ends}"
    assert re.fullmatch(r"\+\d\.\d\d% \(\+\d\.\d+ to \+\d\.\d+\)", cell)
    for form in ("table", "markdown", "html"):
        out = html.unescape(report(typed, "--format", form).out)
        assert cell in out and f"vs recompute: 95 % interval {scope}." in out
        assert len(re.findall(r"\+0\.00%[^(\d]*$", out, re.MULTILINE)) < 2, "the baseline has none"
    assert cell.replace("%", r"\%") in report(typed, "--format", "latex").out
    flat = report(typed, "--columns", "method", "ppl_change", "--format", "markdown").out
    assert f"| streaming | {cell} |" in flat and scope in flat
    assert f"higher {ends}" in report(typed, "--format", "markdown").out


def test_on_a_narrow_terminal_an_interval_stands_below_its_change(home: Path) -> None:
    store = differing(home / DB, [3000], streaming=0.02)
    (sheet,) = (tables.sheet(each) for each in select(store, Query()).comparisons)
    table, needed, _ = terminal_tables.fitted(sheet, 80)
    console = Console(width=needed, file=io.StringIO())
    console.print(table)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= 80 and re.search(r"^ +\(\+[\d.]+ to", shown, re.M)


def test_what_has_no_interval_says_why_in_one_note(home: Path, typed: Type) -> None:
    store = differing(home / DB, [600], streaming=0.02, window=0.3, mit=0.0)
    base = np.linspace(6, 5, 600)
    lonely = np.where(np.arange(600) == 300, 40.0, 0.001 * np.cos(np.arange(600)))
    scores = {"recompute": base, "streaming": base + lonely, "mit": base + 1e-6}
    scored(store, scores | {"window": base + np.cos(np.arange(600) / 50)}, [])
    sql(store, "DELETE FROM documents")
    out = report(typed, "--format", "markdown").out
    (note,) = (line for line in out.splitlines() if line.startswith("- vs recompute:"))
    for said in (
        "no interval for streaming (65 keys, S = 4): about 1 of 600 tokens hold all the spread",
        "for window (65 keys, S = 4): 600 tokens are too few where differences stay alike over",
        "for mit (65 keys, S = 4): equal to 0.0001 nats on every token",
    ):
        assert said in note
    assert all("(" not in line.split("|")[6] for line in out.splitlines() if "| streaming" in line)


def test_damaged_or_missing_scores_cost_the_interval_of_their_run_alone(
    home: Path, typed: Type
) -> None:
    differing(home / DB, [3000], streaming=0.02, window=0.3, mit=0.0)
    hurt = {"streaming": "UPDATE traces SET nll = x'00'", "mit": "DELETE FROM traces"}
    for method, statement in hurt.items():
        mine = f"(SELECT run_id FROM runs WHERE method = '{method}')"
        sql(Store.open(home / DB), f"{statement} WHERE run_id IN {mine}")
    by_method = {row["method"]: row for row in rows_of(typed)}
    assert by_method["window"]["ppl_change_low"] > 0.2
    assert "is damaged" in by_method["streaming"]["clusters"]
    assert by_method["mit"]["clusters"] == "no scores of single tokens are kept"
    assert by_method["mit"]["ppl_change_low"] is None


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ((), 4),
        (("--method", "mit"), 2),
        (("--columns", "method,ppl"), 0),
        (("--columns", "ppl_change"), 4),
        (("--status", "done"), 0),
    ],
)
@pytest.mark.slow
def test_no_more_scores_are_read_than_rows_are_shown(
    home: Path, typed: Type, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], read: int
) -> None:
    differing(home / DB, [600], streaming=0.02, window=0.3, mit=0.0)
    asked: set[str] = set()
    nll = Store.nll

    def counted(store: Store, run_ids: Iterable[str]) -> Any:
        names = set(run_ids)
        asked.update(names)
        return nll(store, names)

    monkeypatch.setattr(Store, "nll", counted)
    assert report(typed, *words).code == 0
    assert len(asked) == read


@pytest.mark.slow
def test_accuracy_and_its_table_by_distance_stand_where_runs_were_asked_and_nowhere_else(
    home: Path, typed: Type
) -> None:
    asked = {"dataset": "recall", "tokens_sha256": "r" * 64, "questions": 8, "chance": 0.1}
    right = {"accuracy": 0.75, "accuracy_low": 0.409, "accuracy_high": 0.929}
    wrong = {"accuracy": 0.0, "accuracy_low": 0.0, "accuracy_high": 0.3244}
    answers = "[[5,1],[9,1],[10,1],[40,1],[50,1],[60,1],[300,0],[301,0]]"
    recorded(
        home / DB,
        *FOUR,
        asked | right | {"answers": answers},
        asked | wrong | {"method": "dense", "answers": answers.replace("1]", "0]")},
    )
    out = report(typed, "--format", "markdown").out
    plain, told, by_distance = sorted(
        out.split("\n**")[1:4],
        key=lambda part: ("recall" in part, "distance" in part.splitlines()[0]),
    )
    for title in ("accuracy", "horizon"):
        assert title not in plain.partition("\n\n")[2].splitlines()[0]
    assert "| 75.0% (41 to 93) | 64 |" in told and "| 0.0% (0 to 32) | 0 |" in told
    rows = [line.split("|")[1:-1] for line in by_distance.splitlines() if "|" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells[0] == ["tokens since it was told", "questions", "streaming", "dense"]
    assert cells[2] == ["1 to 16", "3", "100% (44 to 100)", "0% (0 to 56)"]
    assert [row[:2] for row in cells[3:]] == [["33 to 64", "3"], ["257 to 512", "2"]]
    assert out.count("reaches down to chance") == 1
    every = rows_of(typed, "--dataset", "recall")
    assert {row["method"]: row["accuracy"] for row in every} == {"streaming": 0.75, "dense": 0.0}
    ends = {row["method"]: json.dumps([row["horizon"], row["horizon_open"]]) for row in every}
    assert ends == {"streaming": "[64, false]", "dense": "[0, false]"}
    page = report(typed, "--format", "html").out
    assert "75.0% (41 to 93)" in page and "100% (44 to 100)" in page
