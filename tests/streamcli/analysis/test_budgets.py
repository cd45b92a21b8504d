"""Runs that were made to fit as many MiB are held against each other, whatever keys they hold."""

from __future__ import annotations

from typing import Any

from streamcli.analysis.comparison import command, comparisons, same_budget
from streamcli.render import tables
from tests.support.figure_runs import frame, run


def fitting(number: int, method: str, window: int, mib: float = 4.0, **more: Any) -> dict[str, Any]:
    key = f"{number}"
    return run(number, method=method, window=window, budget_mib=mib, config_key=key, **more) | {
        "attended_keys_mean": float(window + 4),
        "notes": "",
    }


ROWS = [
    fitting(1, "streaming", 80),
    fitting(2, "streaming-int", 300, param='{"kv_bits": 8}'),
    fitting(3, "streaming-int", 560, param='{"kv_bits": 4}'),
    fitting(4, "streaming", 160, 8.0),
    run(5, window=80, config_key="typed") | {"attended_keys_mean": 84.0, "notes": ""},
]


def compared(baseline: str, *more: dict[str, Any]) -> Any:
    (found,) = comparisons(frame([*ROWS, *more]), baseline)
    return found


def test_equal_mib_are_one_budget_and_equal_keys_are_not() -> None:
    first, second, third, other, typed = ROWS
    assert same_budget(first, second) and same_budget(second, third)
    assert not same_budget(first, other) and not same_budget(first, typed)


def test_a_baseline_of_as_many_mib_is_what_a_run_is_held_against() -> None:
    found = compared("streaming")
    held = dict(zip(found.runs["run_id"], found.runs["baseline_run_id"], strict=True))
    name = {n: f"{n:026d}" for n in range(1, 6)}
    assert held == {name[n]: name[base] for n, base in ((1, 1), (2, 1), (3, 1), (4, 4), (5, 5))}
    assert set(found.runs["budget"]) == {"equal"}
    assert (found.keys, found.mib) == ((85,), (4.0, 8.0))


def test_without_one_the_budget_is_other_and_a_note_says_so() -> None:
    base = fitting(6, "recompute", 80)
    found = compared("recompute", base)
    budgets = dict(zip(found.runs["run_id"], found.runs["budget"], strict=True))
    others = [int(name) for name, budget in budgets.items() if budget == "other"]
    assert sorted(others) == [4, 5]
    words = " ".join(tables.sheet(found).notes)
    assert (
        "* not the 4 MiB of re-computation: streaming up to 85 keys; streaming in 8 MiB." in words
    )
    assert command(ROWS[1], "recompute").endswith("--n-sink 4 --budget-mib 4 --max-tokens 400") or (
        "--budget-mib 4 " in command(ROWS[1], "recompute")
    )
    assert "--window" not in command(ROWS[1], "recompute")


def test_a_table_shows_what_was_asked_and_tells_variants_of_other_sizes_apart() -> None:
    page = tables.sheet(compared("streaming"))
    titles = [column.title for column in page.columns]
    cells = {row[titles.index("window")]: row for row in page.rows}
    assert cells["300"][0] == "streaming-int (kv_bits 8)"
    assert cells["560"][0] == "streaming-int (kv_bits 4)"
    asked = titles.index("KV asked (MiB)")
    assert [row[asked] for row in page.rows] == ["-", "4.00", "4.00", "4.00", "8.00"]
    (plain,) = comparisons(frame(ROWS[4:]))
    assert "KV asked (MiB)" not in [column.title for column in tables.sheet(plain).columns]
