"""Pairs are of runs that may be compared, and hold what was recorded, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlmodel import Session

from core.errors import UsageError
from streamcli.analysis import summary, verdicts
from streamcli.analysis.comparison import comparisons
from streamcli.analysis.paired import Pair
from streamcli.analysis.selection import Query
from streamcli.jobs import compare
from streamcli.jobs.select import select
from streamcli.render import tables
from streamcli.results import frames
from streamcli.results.schema import Trace
from streamcli.results.store import Store
from tests.support.records import recorded, scored

TOKENS = 599
STREAMING: dict[str, Any] = {}
RECOMPUTE = {"method": "recompute", "ms_per_token_p50": 20.0}
DENSE = {"method": "dense", "window": None, "attended_keys": 599, "attended_keys_mean": 300.0}
LAZY = {
    **{"method": "mit", "evict_every": 16, "eviction": "every-16", "config_key": "lazy"},
    **{"attended_keys": 80, "attended_keys_mean": 72.0},
}


def pairs(store: Store, *, baseline: str = "recompute", across: bool = False) -> dict[str, Pair]:
    """The pairs of the first table by method."""
    found = comparisons(frames.latest(store), baseline)
    table = compare.against_baseline(store, found, {}, across=across)[0]
    return {str(pair.run["method"]): pair for pair in table.pairs}


def verdict(pair: Pair) -> str:
    return verdicts.judged([pair])[0].verdict


def turns(method: dict[str, Any], times: list[float], sweep: str | None = "A") -> list[Any]:
    """A run a round."""
    timed = [{**method, "ms_per_token_p50": t} for t in times]
    return [{**run, "sweep": sweep, "repeat": turn} for turn, run in enumerate(timed)]


def test_a_difference_is_the_mean_of_the_recorded_scores_less_the_baselines(
    tmp_path: Path,
) -> None:
    store = recorded(tmp_path / "runs.db", STREAMING, RECOMPUTE)
    random = np.random.default_rng(0)
    base = random.gamma(2, 1, TOKENS).astype(np.float32)
    mine = base + random.normal(0.3, 0.1, TOKENS).astype(np.float32)
    scored(store, {"streaming": mine, "recompute": base}, [300, 299])
    found = pairs(store)["streaming"]
    assert found.difference and found.difference.nats.excludes(0)
    apart = float((mine.astype(float) - base).mean())
    assert found.difference.nats.estimate == pytest.approx(apart, abs=1e-9)
    assert found.difference.clusters == "over 2 documents, by Student's t"
    assert verdict(found).startswith("worse by 0.")
    assert verdict(pairs(store)["recompute"]) == "baseline"
    assert verdict(pairs(store, baseline="streaming")["recompute"]).startswith("better by")


def test_documents_are_the_clusters_where_there_are_ten(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", STREAMING, RECOMPUTE)
    random = np.random.default_rng(1)
    scores = {name: random.normal(5, 1, TOKENS) for name in ("streaming", "recompute")}
    scored(store, scores, [60] * 9 + [59])
    difference = pairs(store)["streaming"].difference
    assert difference and difference.clusters == "over 10 documents, by bootstrap-t"


def test_scores_that_floating_point_tells_apart_are_called_equal(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", STREAMING, RECOMPUTE)
    base = np.random.default_rng(2).gamma(2, 1, TOKENS)
    scored(store, {"streaming": base + 3e-5, "recompute": base}, [TOKENS])
    assert verdict(pairs(store)["streaming"]) == "equal to 0.0001 nats"


def test_times_are_paired_by_the_rounds_of_a_sweep(tmp_path: Path) -> None:
    busy = [1.0, 3.0, 1.0, 2.0, 5.0]
    store = recorded(
        tmp_path / "runs.db",
        *turns(STREAMING, [4 * b for b in busy]),
        *turns(RECOMPUTE, [20.0 * b for b in busy]),
    )
    found = pairs(store)["streaming"]
    assert found.speed_up and found.rounds == 5
    assert found.speed_up.low == pytest.approx(5) == pytest.approx(found.speed_up.high)
    assert found.times.median == 8.0 and "faster" in verdict(found)


@pytest.mark.parametrize("sweeps", [("A", "B"), (None, None)])
def test_times_that_did_not_take_turns_have_a_ratio_and_no_interval(
    tmp_path: Path, sweeps: tuple[str | None, str | None]
) -> None:
    store = recorded(
        tmp_path / "runs.db",
        *turns(STREAMING, [4.0, 5, 6, 4, 5], sweeps[0]),
        *turns(RECOMPUTE, [20.0, 21, 22, 20, 21], sweeps[1]),
    )
    found = pairs(store)["streaming"]
    assert found.speed_up and not found.speed_up.known and found.rounds == 0
    assert found.speed_up.estimate == pytest.approx(21 / 5)
    assert "faster" not in verdict(found)


def test_repeats_at_other_commits_are_not_counted(tmp_path: Path) -> None:
    old = [{**run, "git_commit": "f" * 40} for run in turns(STREAMING, [99.0, 98.0])]
    store = recorded(tmp_path / "runs.db", *old, *turns(STREAMING, [4.0]), RECOMPUTE)
    assert pairs(store)["streaming"].times.every == [4.0]


def test_another_budget_is_not_compared_unless_asked_for(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", STREAMING, RECOMPUTE, DENSE, LAZY)
    held = pairs(store)
    assert held["streaming"].difference
    assert held["dense"].difference is held["mit"].difference is None
    assert verdict(held["dense"]) == "no budget"
    assert verdict(held["mit"]) == "other budget: 80 keys, 72 on average, against 65"
    across = pairs(store, across=True)
    assert across["dense"].difference and across["mit"].speed_up
    assert verdict(across["mit"]).startswith("other budget: ")


def test_a_saw_tooth_of_as_many_keys_at_most_is_another_budget(tmp_path: Path) -> None:
    steady = {**RECOMPUTE, "attended_keys": 80, "attended_keys_mean": 78.0}
    store = recorded(tmp_path / "runs.db", LAZY, steady)
    held = pairs(store)["mit"]
    assert held.difference is None
    words = "as many at most, but fewer on average: 80 keys, 72 on average, against 80"
    assert verdict(held) == f"other budget: {words}"


def test_without_a_baseline_it_is_said_what_differs_and_what_to_type(tmp_path: Path) -> None:
    half = {**RECOMPUTE, "dtype": "bfloat16"}
    store = recorded(tmp_path / "runs.db", half, STREAMING)
    both = comparisons(frames.latest(store))
    found = next(each for each in both if each.same["dtype"] == "float32")
    said = verdicts.missing(found, both)
    assert "no recompute run with the same model, tokens, batch, dtype, device and threads" in said
    assert "the nearest has dtype bfloat16, not float32" in said
    assert "--method recompute --mode decode-loop --n-sink 4 --window 60 --max-tokens 600" in said


@pytest.mark.parametrize(
    "change",
    [
        {"tokens_sha256": "c" * 64},
        {"dtype": "float16"},
        {"softmax_type": "off-by-one"},
        {"batch_size": 4},
        {"threads": 1},
        {"host": "there"},
    ],
)
def test_runs_of_other_tokens_batches_formats_threads_or_machines_are_never_paired(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    store = recorded(tmp_path / "runs.db", {**RECOMPUTE, **change}, STREAMING)
    found = compare.against_baseline(store, comparisons(frames.latest(store)), {}, across=True)
    assert [len(table.pairs) for table in found] == [1, 1]
    assert all(pair.difference is None for table in found for pair in table.pairs)


def test_a_run_without_a_trace_has_a_difference_and_no_interval(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", {"nll_nats": 5.5}, {**RECOMPUTE, "nll_nats": 5.0})
    with Session(store.engine.execution_options(writes=True)) as session:
        for run_id in frames.runs(store)["run_id"]:
            session.delete(session.get(Trace, run_id))
        session.commit()
    difference = pairs(store)["streaming"].difference
    assert difference and difference.nats.estimate == pytest.approx(0.5)
    assert not difference.nats.known and not difference.equal


def test_two_commits_are_paired_by_what_was_run_even_if_keys_changed(tmp_path: Path) -> None:
    new = {"git_commit": "e" * 40, "config_key": "new"}
    store = recorded(
        tmp_path / "runs.db",
        *turns(STREAMING, [4.0, 4.1, 4.2], None),
        RECOMPUTE,
        *[{**run, **new} for run in turns(STREAMING, [8.0, 8.2, 8.4], None)],
    )
    found, alone = compare.against_commit(store, "0123", "eeee", {})
    (pair,) = found
    assert alone == 1 and pair.base and pair.base["git_commit"].startswith("0123")
    assert pair.speed_up and pair.speed_up.excludes(1) and pair.rounds == 3
    assert verdicts.losses(pair, times=True)["time a token"] == pytest.approx(1, rel=1e-3)
    assert verdicts.losses(pair, times=False) == {}


def test_two_commits_without_a_common_configuration_are_refused(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", STREAMING, {**RECOMPUTE, "git_commit": "e" * 40})
    with pytest.raises(UsageError, match="no configuration was run on the same tokens at both"):
        compare.against_commit(store, "0123", "eeee", {})
    with pytest.raises(UsageError, match="no finished run of commit 'dddd'"):
        compare.against_commit(store, "0123", "dddd", {})
    with pytest.raises(UsageError, match="are one commit"):
        compare.against_commit(store, "0123", "01234", {})


def test_two_runs_on_different_tokens_are_refused_by_both_hashes(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", STREAMING, {**RECOMPUTE, "tokens_sha256": "c" * 64})
    first = str(frames.runs(store)["run_id"].iloc[-1])
    with pytest.raises(UsageError, match=r"bbbbbbbbbb and\s+cccccccccc"):
        compare.of_two(store, first, "latest")


def test_two_runs_of_one_configuration_have_each_its_own_time(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", *turns(STREAMING, [4.0, 8.0], None))
    slow, fast = frames.runs(store, sort="ms_per_token_p50")["run_id"].iloc[[-1, 0]]
    if frames.runs(store, run_id=[slow])["ms_per_token_p50"].iloc[0] == 4:
        slow, fast = fast, slow
    pair = compare.of_two(store, str(fast), str(slow))
    assert (pair.base_times.every, pair.times.every) == ([4.0], [8.0])
    assert pair.speed_up and pair.speed_up.estimate == 0.5
    assert verdicts.losses(pair, times=True) == {"time a token": 1}


def test_two_runs_of_other_modes_are_paired_but_their_times_are_not(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", STREAMING, {**RECOMPUTE, "mode": "chunked"})
    first = str(frames.runs(store)["run_id"].iloc[-1])
    pair = compare.of_two(store, first, "latest")
    assert pair.difference and pair.difference.equal and pair.speed_up is None
    assert pair.why == "times not compared: mode decode-loop against chunked"


def test_times_of_machines_of_one_name_and_other_processors_are_not_compared(
    tmp_path: Path,
) -> None:
    store = recorded(tmp_path / "runs.db", {**RECOMPUTE, "cpu": "Another"}, STREAMING)
    (found,) = comparisons(frames.latest(store))
    times = dict(zip(found.runs["method"], found.runs["speed_up"], strict=True))
    assert np.isnan(times["streaming"]) and times["recompute"] == 1
    said = [note for note in tables.sheet(found).notes if "several processors" in note]
    assert said == [
        "times are of several processors, and are not to be compared: A processor in streaming "
        "(65 keys, S = 4); Another in recompute (65 keys)."
    ]
    assert "x the speed" not in summary.words(found)[0]
    first = str(frames.runs(store)["run_id"].iloc[-1])
    pair = compare.of_two(store, first, "latest")
    assert pair.difference and pair.speed_up is None
    assert pair.why == "times not compared: cpu Another against A processor"


def test_the_time_of_a_run_is_no_median_over_processors_of_one_name(tmp_path: Path) -> None:
    slow = {"cpu": "Another", "ms_per_token_p50": 80.0}
    store = recorded(tmp_path / "runs.db", slow, slow, STREAMING, RECOMPUTE)
    found = select(store, Query())
    (row,) = found.rows[found.rows["method"] == "streaming"].to_dict("records")
    assert row["runs"] == 3 and row["compared_ms"] == row["ms_per_token_p50"] == 4.31


def test_a_loss_is_one_that_the_interval_does_not_doubt(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", STREAMING, RECOMPUTE)
    random = np.random.default_rng(3)
    base = random.gamma(2, 1, TOKENS)
    noisy = base + random.normal(0, 1, TOKENS)
    noisy += 0.05 - (noisy - base).mean()  # worse by 0.05 nats, if one could tell
    scored(store, {"streaming": noisy, "recompute": base}, [TOKENS])
    assert verdicts.losses(pairs(store)["streaming"], times=False) == {}


def test_a_score_that_became_infinite_is_a_loss(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", STREAMING, RECOMPUTE)
    base = np.full(TOKENS, 5.0)
    scored(store, {"streaming": np.where(base < 6, np.inf, 0), "recompute": base}, [TOKENS])
    assert verdicts.losses(pairs(store)["streaming"], times=False)["perplexity"] > 1e9
