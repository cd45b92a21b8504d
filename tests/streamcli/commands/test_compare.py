"""``streamcli compare`` as it is typed: its tables, its records and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamcli.results.store import Store
from tests.support.process import imported
from tests.support.records import FOUR, recorded, run_ids
from tests.support.reported import DB, cells, compare
from tests.support.typed import Type


def test_the_command_of_the_mission_prints_one_table(four: Store, typed: Type) -> None:
    done = compare(typed, "--mode", "decode-loop")
    assert (done.code, done.err) == (0, "")
    assert "bundled on bundled-narrative (599 tokens scored), decode-loop, float32" in done.out
    for method in ("streaming", "window", "recompute", "dense"):
        assert f"\n{method} " in done.out


def test_markdown_has_a_row_a_method_and_says_how_it_was_made(four: Store, typed: Type) -> None:
    out = compare(typed, "--format", "markdown").out
    lines = [cells(line) for line in out.splitlines() if line.startswith("|")]
    assert lines[0] == [
        *("method", "S", "W", "keys", "runs", "ppl", "nats vs recompute", "ms/token"),
        *("speed-up", "KV (MiB)", "verdict"),
    ]
    rows = {line[0]: line for line in lines[2:]}
    assert rows["streaming"][6:9] == ["0.0000", "4.31", "4.66x"]
    assert rows["streaming"][-1] == "equal to 0.0001 nats"
    assert rows["recompute"][-1] == "baseline"
    assert rows["dense"][3] == "599*" and rows["dense"][-1] == "no budget"
    assert "one run each: use sweep --repeats 5 for an interval" in out
    assert "--across-budgets" in out


def test_json_is_a_list_of_objects_with_the_figures_as_numbers(four: Store, typed: Type) -> None:
    found = json.loads(compare(typed, "--format", "json").out)
    by_method = {row["method"]: row for row in found}
    streaming = by_method["streaming"]
    assert streaming["difference_nats"] == streaming["largest_nats"] == 0.0
    assert streaming["speed_up"] == pytest.approx(20.1 / 4.31)
    assert streaming["speed_up_low"] is None and streaming["rounds"] == 0
    assert streaming["baseline_run_id"] == by_method["recompute"]["run_id"]
    assert by_method["dense"]["baseline_run_id"] is None
    assert all(row["verdict"] for row in found)


def test_across_budgets_is_marked(four: Store, typed: Type) -> None:
    out = compare(typed, "--across-budgets", "--format", "markdown").out
    dense = next(cells(line) for line in out.splitlines() if line.startswith("| dense"))
    assert dense[6] == "0.0000" and dense[-1] == "no budget: equal to 0.0001 nats"
    assert "compared all the same" in out


def test_any_method_can_be_the_baseline(four: Store, typed: Type) -> None:
    out = compare(typed, "--baseline", "window", "--format", "markdown").out
    assert "nats vs window" in out and "| window | 0 | 64 | 65 | 1 | 217.51 | - |" in out


def test_a_filter_on_the_method_keeps_its_baseline(four: Store, typed: Type) -> None:
    found = json.loads(compare(typed, "--method", "streaming", "--format", "json").out)
    assert [row["method"] for row in found] == ["streaming", "recompute"]


def test_a_filter_on_the_method_keeps_its_baseline_of_as_many_mib(home: Path, typed: Type) -> None:
    recorded(home / DB, *({**run, "budget_mib": 2.0} for run in FOUR[:3]))
    found = json.loads(compare(typed, "--method", "streaming", "--format", "json").out)
    assert [row["method"] for row in found] == ["streaming", "recompute"]
    assert typed("report", "--method", "window").code == 0


def test_a_missing_baseline_is_told_with_the_command_that_records_it(
    home: Path, typed: Type
) -> None:
    recorded(home / DB, FOUR[0])
    done = compare(typed)
    assert done.code == 0 and "no recompute run" in done.out
    assert "streamcli run --model bundled --dataset bundled-narrative --method rec" in done.err


def test_an_empty_database_is_told_in_one_line(home: Path, typed: Type) -> None:
    Store.open(home / DB)
    done = compare(typed)
    assert (done.code, done.out) == (0, "")
    assert "holds no finished run that matches: record one with streamcli sweep" in done.err
    assert compare(typed, "--format", "json").out == "[]\n"


def test_only_the_newest_tables_are_shown_and_it_is_said(home: Path, typed: Type) -> None:
    texts = [{"dataset": f"text-{i}", "tokens_sha256": f"{i}" * 64} for i in range(7)]
    recorded(home / DB, *texts)
    done = compare(typed)
    assert "text-6" in done.out and "text-2" in done.out and "text-1" not in done.out
    assert "the newest 5 of 7 tables" in done.err
    assert "text-0" in compare(typed, "--limit", "0").out
    assert "text-5" not in compare(typed, "--limit", "1").out


def test_two_runs_stand_side_by_side(four: Store, typed: Type) -> None:
    streaming, window, recompute, _ = run_ids(four)
    out = compare(typed, recompute, streaming, "--format", "markdown").out
    rows = {cells(line)[0]: cells(line) for line in out.splitlines() if line.startswith("|")}
    assert rows["method"][1:3] == ["recompute", "streaming"]
    assert rows["ppl"][1:3] == ["216.98", "216.21"]
    assert rows["ms/token"][3] == "4.66x speed-up, one run each"
    assert "model" not in rows and "window" not in rows
    found = json.loads(compare(typed, window, "latest", "--format", "json").out)
    assert [row["method"] for row in found] == ["dense"]


def test_two_commits_have_a_row_a_configuration(home: Path, typed: Type) -> None:
    new = {"git_commit": "e" * 40}
    recorded(home / DB, *FOUR[:3], *({**run, **new} for run in FOUR[:2]))
    done = compare(typed, "--commit", "0123", "--commit", "eeee", "--format", "markdown")
    assert "eeee against 0123" in done.out and "nats vs 0123" in done.out
    rows = [cells(line)[0] for line in done.out.splitlines() if line.startswith("|")]
    assert sorted(rows[2:]) == ["streaming", "window"]
    assert "1 configurations finished at one of the two commits only" in done.err


BAD = {
    "--baseline steaming": "unknown method 'steaming': choose one of",
    "--fail-above 2": "--fail-above is '2': write a percentage such as 2%, or 0.02",
    "--fail-above few": "--fail-above is 'few'",
    "--margin 0": "--margin is 0: it must be more than 0 nats",
    "--margin nan": "--margin is nan: it must be",
    "--limit -1": "--limit is -1: it must be from 1 to 1,000,000,000,000, or 0 for all",
    "--format pdf": "Invalid value for '--format'",
    "--commit a --commit a": "--commit is a and a: give one, or two that differ",
    "--commit a --commit b": "has no finished run of commit 'a' that matches",
    "latest": "1 run named (latest): name two, or none",
    "latest latest latest": "3 runs named",
    "latest latest": "are both run",
    "latest ZZZ": "has no run 'ZZZ'",
    "latest ZZZ --mode chunked": "two runs are named, so --mode has nothing to choose",
    "latest ZZZ --published": "--published goes with methods",
    "latest ZZZ --across-budgets": "two runs are compared, not methods: leave --across-budgets out",
    "--commit a --commit b --baseline window": "not methods: leave --baseline out",
    "--published --fail-above 2%": "--published shows whole tables, and judges none: leave --fail",
    "--published --limit 2": "leave --limit out",
    "--since yesterday": "'yesterday' is not a time",
}


@pytest.mark.parametrize("words", BAD)
def test_what_is_asked_wrongly_ends_in_one_line_with_code_2(
    four: Store, typed: Type, words: str
) -> None:
    assert compare(typed, *words.split()).refuses(2, BAD[words])


@pytest.mark.slow
def test_it_never_imports_torch(four: Store) -> None:
    lines = (f"compare --db {DB}", "compare --help", f"compare --db {DB} --published")
    assert not {"torch", "transformers", "plotly", "alembic"} & imported(*lines)
    assert "scipy" not in imported("compare --help", f"compare --db {DB} --published")
