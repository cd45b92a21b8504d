"""Accuracies of two runs on the same questions: an exact test and an interval."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from core.result import wilson
from streamcli.analysis import answered, spread
from streamcli.analysis.answered import mcnemar, paired_interval


def answers(rights: list[int], distance: int | None = None) -> str:
    return json.dumps([[distance, right] for right in rights])


@pytest.mark.parametrize(("one", "other"), [(0, 0), (0, 1), (3, 3), (1, 9), (40, 22), (500, 430)])
def test_mcnemars_p_is_that_of_the_binomial_test_of_one_half(one: int, other: int) -> None:
    want = binomtest(one, one + other, 0.5).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(want, rel=1e-9)
    assert mcnemar(one, other) == mcnemar(other, one)


def test_the_interval_is_that_of_independent_shares_where_the_two_have_nothing_in_common() -> None:
    low, high = paired_interval(25, 25, 25, 100)  # both shares one half, and phi is 0
    half = 0.5 - wilson(50, 100)[0]
    assert (low, high) == pytest.approx((-half * math.sqrt(2), half * math.sqrt(2)))
    alike_low, alike_high = paired_interval(48, 2, 2, 100)
    assert high - low > 2 * (alike_high - alike_low) > 0


def test_the_interval_turns_with_its_sides() -> None:
    low, high = paired_interval(30, 12, 5, 80)
    assert paired_interval(30, 5, 12, 80) == pytest.approx((-high, -low))
    assert low < 7 / 80 < high


def test_it_holds_the_true_difference_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(16)
    shares = np.array([0.45, 0.20, 0.08, 0.27])  # both, one, other, neither
    counts = draw.multinomial(110, shares, size=1000)
    ends = np.array([paired_interval(int(a), int(b), int(c), 110) for a, b, c, _ in counts])
    inside = (ends[:, 0] <= 0.12) & (ends[:, 1] >= 0.12)
    assert 0.93 < inside.mean() < 0.98


def test_one_document_is_told_by_its_questions() -> None:
    mine, other = [1] * 30 + [0] * 10, [1] * 21 + [0] * 19
    found = answered.difference(answers(mine), answers(other), [40])
    assert found is not None and not found.same
    assert (found.alone, found.questions) == ((9, 0), 40)
    assert found.share.estimate == pytest.approx(9 / 40)
    assert (found.share.low, found.share.high) == paired_interval(21, 9, 0, 40)
    assert found.share.p == mcnemar(9, 0)
    assert "McNemar" in found.law and "questions" in found.law


def test_many_documents_of_several_questions_are_clusters() -> None:
    draw = np.random.default_rng(3)
    d = [int(x) for _ in range(9) for x in [draw.integers(-1, 2)] * 5]  # alike in a document
    mine, other = [int(x > 0) for x in d], [int(x < 0) for x in d]
    found = answered.difference(answers(mine), answers(other), [5] * 9)
    assert found is not None and "9 documents, by Student's t" in found.law
    sums, sizes = np.array(d, float).reshape(9, 5).sum(1), np.full(9, 5.0)
    want = spread.over_clusters(sums, sizes, resampled=False)
    assert found.share.high - found.share.low == pytest.approx(2 * want.half())
    assert found.share.p == want.chance(float(np.mean(d)))
    alone = answered.difference(answers(mine), answers(other), [45])
    assert alone and alone.share.high - alone.share.low < found.share.high - found.share.low


@pytest.mark.parametrize("documents", [[1] * 45, [5] * 7 + [10], [19, 26], [45], [5] * 5, []])
def test_documents_of_one_question_or_a_single_one_are_no_clusters(documents: list[int]) -> None:
    mine, other = [1, 0, 1] * 15, [0, 1, 1] * 15
    found = answered.difference(answers(mine), answers(other), documents)
    many = len(documents) > 1 and sum(documents) == 45 and max(documents) > 1
    assert found is not None and ("McNemar" in found.law) is not many


@pytest.mark.parametrize("count", [3, 8, 12])
def test_what_one_document_alone_shows_is_not_called_a_difference(count: int) -> None:
    mine = [0] * 20 * count
    mine[20:32] = [1] * 12  # twelve more right answers, all in one document
    found = answered.difference(answers(mine), answers([0] * 20 * count), [20] * count)
    assert found is not None and found.alone == (12, 0)
    assert f"over {count} documents, by Student's t" == found.law
    assert found.share.p > 0.1 and found.share.low < 0 < found.share.high


@pytest.mark.parametrize("count", [2, 5, 8])
@pytest.mark.slow
def test_documents_with_effects_of_their_own_are_seldom_called_different(count: int) -> None:
    draw, alarms = np.random.default_rng(count), 0
    for _ in range(300):
        both, effect = draw.normal(0, 0.5, count), draw.normal(0, 0.6, count)
        shares = [1 / (1 + np.exp(-np.repeat(x, 30))) for x in (both + effect, both)]
        mine, other = ((draw.random(len(x)) < x).astype(int).tolist() for x in shares)
        found = answered.difference(answers(mine), answers(other), [30] * count)
        assert found is not None
        alarms += found.share.p <= 0.05
    assert alarms / 300 <= 0.08  # 17 % where questions were independent


def test_runs_that_are_right_on_the_same_questions_have_nothing_to_test() -> None:
    found = answered.difference(answers([1, 0, 1, 0] * 10), answers([1, 0, 1, 0] * 10), [5] * 8)
    assert found is not None and found.same
    assert found.share.p == 1 and found.share.low < 0 < found.share.high


def test_answers_to_other_questions_are_not_held_against_each_other() -> None:
    assert answered.difference(answers([1, 0], 7), answers([1, 0], 8), [2]) is None
    assert answered.difference(answers([1, 0], 7), answers([1], 7), [2]) is None
