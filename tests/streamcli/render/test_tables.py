"""Tables: whole on a narrow terminal, and true to what they were given."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from core.result import FILLING, WAITED
from streamcli.analysis.comparison import Comparison, comparisons
from streamcli.render import output, tables, terminal_tables
from streamcli.render.records import repetition
from streamcli.results.columns import COLUMNS, Column
from tests.support.records import BASE, FOUR

RUNS = [
    ("streaming", 4, 1020, 1025, 36.79, 0.0019, 10.95, 1.72, 24.1, 1234.0, "one\nboth"),
    ("kvpress-interval", 4, 1020, 1088, 12345.6, 154.0, 28.5, 0.66, 25.5, 1300.0, "both"),
]
NAMES = [
    "method",
    "n_sink",
    "window",
    "attended_keys",
    "ppl",
    "ppl_change",
    "compared_ms",
    "speed_up",
    "kv_mib",
    "peak_mem_mib",
    "notes",
]


WIDE = 500
WITH_INTERVALS = tables.Sheet(
    "title",
    [
        Column("method", "method", "text", "."),
        Column("n_sink", "S", "count", "."),
        Column("window", "W", "count", "."),
        Column("attended_keys", "keys", "count", "."),
        Column("nats", "nats vs recompute", "fixed", "."),
        Column("ratio", "speed-up", "ratio", "."),
        Column(tables.VERDICT, tables.VERDICT, "text", "."),
    ],
    [
        [
            *("streaming", "4", "1,020", "1,025", "-0.012 [-0.020, -0.004]"),
            *("2.92x [2.80, 3.05]", "better by 0.004 to 0.020 nats; faster"),
        ],
        ["recompute", "-", "-", "1,025", "-", "-", tables.BASE],
    ],
    ["a note"],
)


def _with_changes(runs: pd.DataFrame) -> pd.DataFrame:
    unknown = {"ppl_change_low": math.nan, "ppl_change_high": math.nan, "clusters": None}
    return runs.assign(
        batch_size=4, compared_waited=None, accuracy=math.nan, horizon=None, **unknown
    )


@pytest.fixture
def comparison() -> Comparison:
    same = {name: "x" for name in COLUMNS} | {
        "mode": "decode-loop",
        "scored_tokens": 4095,
        "batch_size": 4,
    }
    return Comparison(same, _with_changes(pd.DataFrame(RUNS, columns=NAMES)), older=0)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_cell_is_cut_on_a_terminal_of_any_width(
    comparison: Comparison,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(output, "Console", lambda **given: Console(**{"width": width, **given}))
    monkeypatch.setattr(Console, "is_terminal", property(lambda _: True))
    monkeypatch.setenv("TERM", "dumb")
    sheet = tables.sheet(comparison)
    output.page(sheet)
    printed = capsys.readouterr().out
    assert "\u2026" not in printed
    for row in sheet.rows:
        assert " ".join(row) in " ".join(printed.split())


def test_a_note_names_the_methods_it_is_about(comparison: Comparison) -> None:
    notes = tables.sheet(comparison).notes
    assert "streaming: one" in notes
    assert "both" in notes


def printed(sheet: tables.Sheet, width: int) -> tuple[str, list[str]]:
    table, needed, notes = terminal_tables.fitted(sheet, width)
    console = Console(width=needed, height=100, file=io.StringIO())
    console.print(table)
    return console.file.getvalue(), notes  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("width", "on_one_line", "as_notes"),
    [(120, True, False), (74, False, False), (55, False, True)],
)
def test_a_table_closes_up_step_by_step_and_loses_nothing(
    width: int, on_one_line: bool, as_notes: bool
) -> None:
    shown, notes = printed(WITH_INTERVALS, width)
    assert max(map(len, shown.splitlines())) <= width
    assert ("-0.012 [-0.020, -0.004]" in shown) is on_one_line
    assert "[-0.020, -0.004]" in shown and "[2.80, 3.05]" in shown
    said = "streaming (1,025 keys, S = 4): better by 0.004 to 0.020 nats; faster"
    assert notes == ([said] if as_notes else []) + ["a note"]
    words = " ".join(shown.split())
    assert as_notes or all(word in words for word in ("better by", "nats;", "faster"))


def test_verdicts_below_a_table_tell_its_rows_apart_whatever_its_columns() -> None:
    row = WITH_INTERVALS.rows[0]
    alike = replace(WITH_INTERVALS, rows=[row, [row[0], "1", "1,023", *row[3:]]])
    first, second, _ = printed(alike, 55)[1]
    assert first.startswith("streaming (1,025 keys, S = 4): better")
    assert second.startswith("streaming (1,025 keys, S = 1): better")
    run = {**dict.fromkeys(COLUMNS), **BASE, "run_id": "1"}
    changes = repetition(run, run, "bit for bit the same", [])
    assert "ppl: the same" in printed(changes, 30)[1]


def compared(*changes: dict[str, Any]) -> Comparison:
    """A comparison of runs that differ in this."""
    rows = [
        {**dict.fromkeys(COLUMNS), **BASE, "run_id": f"{i}", "config_key": f"{i}", **changed}
        for i, changed in enumerate(changes)
    ]
    (found,) = comparisons(pd.DataFrame(rows))
    return found


def keys(found: Comparison) -> dict[str, str]:
    sheet = tables.sheet(found)
    place = [column.name for column in sheet.columns].index("attended_keys")
    return {row[0]: row[place] for row in sheet.rows}


SAW_TOOTH = {
    **{"method": "kvpress-interval", "eviction": "every-64", "evict_every": 64},
    **{"attended_keys": 128, "attended_keys_mean": 96.0},
}


def test_a_time_says_what_it_is_of_where_a_cache_is_filling_or_rows_go_in_step() -> None:
    long = {"window": 5000, "attended_keys": 5005, "notes": FILLING, "batch_size": 4}
    (_, timed, note, *_) = tables.sheet(compared({"batch_size": 4}, long)).notes
    assert timed.endswith("with a full cache; each step reads a token of 4 documents.")
    of = "the time is of its filling in streaming (5,005 keys, S = 4)."
    assert note == f"too few tokens to fill the cache: {of}"
    (_, timed, *others) = tables.sheet(compared(FOUR[0])).notes
    assert timed.endswith("the median decode step with a full cache.")
    assert not any("filling" in each for each in others)


def test_times_taken_while_others_had_the_processors_are_told() -> None:
    busy = ({"waited": 0.734}, {**FOUR[1], "waited": WAITED / 2}, {**FOUR[2], "waited": 0.2})
    (_, timed, note, *_) = tables.sheet(compared(*busy)).notes
    assert timed.endswith("with a full cache.")
    told = "waited for one 73% in streaming (65 keys, S = 4), 20% in recompute (65 keys)"
    assert note.startswith("times are too long where other programs had the processors: ")
    assert note.endswith(f"{told}; run these again on an idle machine, or with --threads 1.")
    (_, _, note, *_) = tables.sheet(compared({"waited": 0.734, "threads": 1})).notes
    assert note.endswith("73% in streaming (65 keys, S = 4); run these again on an idle machine.")


def test_a_report_marks_every_budget_that_is_not_the_baselines() -> None:
    found = compared(*FOUR, SAW_TOOTH)
    assert keys(found) == {
        **{"streaming": "65", "window": "65", "recompute": "65"},
        **{"kvpress-interval": "128*", "dense": "599*"},
    }
    note = "* not the 65 keys of re-computation: kvpress-interval up to 128, 96 on average; dense"
    assert any(each.startswith(note) for each in tables.sheet(found).notes)


def test_equal_budgets_have_no_mark_and_no_note() -> None:
    more = {"window": 124, "attended_keys": 129}
    found = compared(*FOUR[:3], more, {**FOUR[2], **more})
    assert not any("*" in cell for cell in keys(found).values())
    assert not any(note.startswith("*") for note in tables.sheet(found).notes)


def test_without_a_baseline_the_budget_of_most_rows_is_the_common_one() -> None:
    found = compared(FOUR[0], FOUR[1], {"method": "mit", "window": 124, "attended_keys": 129})
    assert keys(found) == {"streaming": "65", "window": "65", "mit": "129*"}
    assert any("* not the 65 keys of most rows" in note for note in tables.sheet(found).notes)


def test_rows_that_look_alike_are_told_apart() -> None:
    lazy = {"evict_every": 16, "eviction": "every-16", "attended_keys": 80}
    found = compared(FOUR[0], {"chunk_size": 64}, {"method": "mit", **lazy})
    assert set(keys(found)) == {
        *("streaming (chunks of 256)", "streaming (chunks of 64)", "mit (every 16)")
    }


@pytest.mark.parametrize("cells", ["1", "12,345.6", "中文", "a few words"])
@pytest.mark.parametrize("title", ["n", "a title of words", "peak (MiB)"])
@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("width", [WIDE, 21, 20])
def test_a_table_that_fits_is_set_as_rich_sets_it(
    cells: str, title: str, number: int, width: int
) -> None:
    columns = [Column("a", title, "text", "."), Column("b", title, "count", ".")]
    sheet = tables.Sheet("", columns, [[cells, cells[: 3 + at]] for at in range(number)], [])
    plain = terminal_tables.set_plainly(sheet, width)
    table, wide, _ = terminal_tables.fitted(sheet, width)
    shown = io.StringIO()
    Console(file=shown, width=wide, height=50).print(table, width=wide, crop=False)
    if plain:
        assert [*plain[0], *plain[1]] == shown.getvalue().splitlines()
    assert plain or width < WIDE
