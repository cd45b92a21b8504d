"""Runs are paired from rows and vectors alone: no database is there."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from core.config import RunConfig
from core.errors import UsageError
from streamcli.analysis import paired, repeats, verdicts
from streamcli.analysis.paired import Measured
from streamcli.render import compared
from streamcli.results.columns import COLUMNS

RUN: dict[str, Any] = {
    **dict.fromkeys(COLUMNS),
    **{name: getattr(RunConfig(), name) for name in RunConfig.names()},
    "run_id": "A",
    "status": "done",
    "tokens_sha256": "t" * 64,
    "scored_tokens": 400,
    "nll_nats": 3.0,
    "ppl": 20.0,
    "ms_per_token_p50": 4.0,
}


def test_two_rows_and_their_scores_make_a_pair() -> None:
    other = {**RUN, "run_id": "B", "ms_per_token_p50": 8.0}
    nats = np.random.default_rng(0).gamma(2, 1, 400).astype(np.float32)
    nll = {"A": nats, "B": nats + np.float32(0.5)}
    times = repeats.own_times([RUN, other])
    measured = Measured(nll, {"A": [400]}, times, alone=True)
    pair = measured.pair(*paired.of_two(RUN, other))
    assert pair.difference and pair.difference.nats.estimate == pytest.approx(0.5)
    assert pair.speed_up and pair.speed_up.estimate == 0.5
    assert verdicts.judged([pair])[0].verdict.startswith("worse by")


def test_two_runs_one_of_which_waited_are_said_to_have_taken_too_long() -> None:
    size = {"attended_keys": 65, "window": 60}
    base, run = {**RUN, **size, "waited": 0.25}, {**RUN, **size, "run_id": "B", "waited": 0.0}
    measured = Measured({}, {}, repeats.own_times([base, run]), alone=True)
    notes = compared.two(measured.pair(*paired.of_two(base, run))).notes
    assert any("waited for one 25% in streaming (65 keys, S = 4)" in note for note in notes)


def asked(name: str, rights: list[int]) -> dict[str, Any]:
    """A run with answers."""
    answers = json.dumps([[None, right] for right in rights])
    return {**RUN, "run_id": name, "questions": len(rights), "answers": answers}


def test_accuracies_are_told_apart_by_questions_and_corrected_over_the_table() -> None:
    base = asked("A", [1] * 20 + [0] * 20)
    runs = [
        asked("B", [1] * 27 + [0] * 13),  # 7 questions alone, against none: p = 0.016
        asked("C", [0] * 7 + [1] * 13 + [0] * 20),
        asked("D", [1] * 20 + [0] * 20),
        asked("E", [0] * 20 + [1] * 12 + [0] * 8),
        {**RUN, "run_id": "F"},
    ]
    measured = Measured({}, {}, repeats.own_times([base, *runs]), {"A": [40]}, alone=True)
    pairs = [measured.pair(*paired.of_two(base, run)) for run in runs]
    lone = verdicts.judged(pairs[:1])[0]
    assert lone.accuracy_p == pytest.approx(2 / 2**7)
    assert lone.answers.startswith("more accurate by ") and lone.answers in lone.verdict
    words = [each.answers for each in verdicts.judged(pairs)]
    assert words[2:] == [
        "right on the same questions",
        "no difference in accuracy shown",
        "",
    ]
    assert words[0].startswith("more accurate") and words[1].startswith("less accurate")
    lost = [verdicts.losses(pair, times=False).get("accuracy, in points") for pair in pairs]
    assert lost == [None, 7 / 40, None, None, None]  # the fourth might be chance
    judged = verdicts.judged([*pairs, *pairs[3:4] * 3])  # three more tests
    assert judged[0].accuracy_p == pytest.approx(6 * 2 / 2**7) and verdicts.tests(judged) == 6
    assert judged[0].answers == "no difference in accuracy shown"


def test_runs_that_cannot_be_paired_are_refused() -> None:
    for changed, words in (
        ({"status": "failed"}, "is failed"),
        ({"tokens_sha256": "u" * 64}, "scored different tokens"),
        ({"scored_tokens": 399}, "can't be paired"),
    ):
        with pytest.raises(UsageError, match=words):
            paired.of_two(RUN, {**RUN, "run_id": "B", **changed})


def test_configurations_that_ran_on_both_sides_are_paired() -> None:
    lone = {**RUN, "run_id": "B", "method": "window"}
    after = {**RUN, "run_id": "C", "config_key": "of a newer version"}
    plan, alone = paired.at_both([RUN, lone], [after])
    assert [(run["run_id"], base and base["run_id"]) for run, base, _ in plan] == [("C", "A")]
    assert alone == 1 and paired.configurations([RUN, lone, after]) == 2
