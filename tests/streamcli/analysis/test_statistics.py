"""Intervals cover what they claim to, and the same data give the same interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamcli.analysis import spread, statistics
from streamcli.render.compared import nats_of

SIMULATIONS = 2000
LOW, HIGH = 0.93, 0.97  # of the simulations that an interval of 95 % may cover
KNOWN = 0.05  # nats, the true difference


@pytest.mark.parametrize("rounds", [3, 5, 10])
@pytest.mark.parametrize("truth", [1.0, 1.7])
def test_the_interval_of_rounds_covers_a_known_ratio_on_a_busy_machine(
    rounds: int, truth: float
) -> None:
    random = np.random.default_rng(5)
    busy = np.exp(random.normal(0, 0.5, (SIMULATIONS, rounds)))  # a round's own load
    over, under = (
        level * busy * np.exp(random.normal(0, 0.1, busy.shape)) for level in (10 * truth, 10)
    )
    found = [statistics.ratio(*pair) for pair in zip(over.tolist(), under.tolist(), strict=True)]
    assert LOW <= np.mean([not each.excludes(truth) for each in found]) <= HIGH


def test_the_interval_of_repeats_at_different_times_covers_a_known_ratio() -> None:
    random = np.random.default_rng(6)
    over = 17 * np.exp(random.normal(0, 0.05, (SIMULATIONS, 5)))
    under = 10 * np.exp(random.normal(0, 0.1, (SIMULATIONS, 4)))
    pairs = zip(over.tolist(), under.tolist(), strict=True)
    found = [statistics.independent_ratio(*pair) for pair in pairs]
    assert LOW <= np.mean([not each.excludes(1.7) for each in found]) <= HIGH


def test_the_estimate_is_the_mean_over_all_tokens_whatever_the_clusters() -> None:
    random = np.random.default_rng(8)
    for lengths in ([1200], [900, 300], [7, 500, 693], [120] * 10, [3] * 400, [2] * 1000):
        d = random.normal(size=sum(lengths))
        found = statistics.difference(d, lengths)
        assert found.nats.estimate == pytest.approx(d.mean(), abs=1e-12)
        assert found.nats.low < d.mean() < found.nats.high
        assert found.nats.estimate - found.nats.low == pytest.approx(
            found.nats.high - found.nats.estimate
        )


def test_tokens_before_a_cache_is_full_count_in_the_mean_and_not_in_the_spread() -> None:
    d = np.random.default_rng(9).normal(0.1, 1, 1000)
    alone = statistics.difference(d, [1000])
    padded = statistics.difference(np.concatenate([np.zeros(1000), d]), [2000])
    assert alone.clusters == "within this text, by Student's t on 16 blocks of about 62 tokens"
    assert padded.clusters == f"{alone.clusters} (1,000 before any difference left out)"
    short = statistics.difference(np.concatenate([np.zeros(1000), d[:150]]), [1150])
    assert short.clusters.startswith("150 tokens (1,000 before any difference left out) are too")
    for name in ("estimate", "low", "high"):
        half = getattr(alone.nats, name) / 2
        assert getattr(padded.nats, name) == pytest.approx(half)
    assert padded.nats.p == pytest.approx(alone.nats.p)
    assert padded.variance == pytest.approx(alone.variance), "more text is more of the full cache"


def test_an_interval_says_what_it_is_over() -> None:
    d = np.random.default_rng(10).normal(size=6000)
    said = {
        (6000,): "within this text, by Student's t on 16 blocks of about 375 tokens",
        (3000, 3000): "over 2 documents, by Student's t",
        (600,) * 10: "over 10 documents, by bootstrap-t",
        (6,) * 1000: "over 1,000 documents, by bootstrap-t on 400 groups",
    }
    for lengths, words in said.items():
        found = statistics.difference(d, list(lengths))
        assert found.clusters == words and words.startswith(found.scope) and found.nats.known


def test_documents_without_a_scored_token_are_none() -> None:
    d = np.random.default_rng(12).normal(size=1000)
    assert statistics.difference(d, [0, 1000]) == statistics.difference(d, [1000])
    assert statistics.difference(d, [400, 0, 600]) == statistics.difference(d, [400, 600])


def test_two_documents_of_one_length_have_students_t_of_their_means() -> None:
    d = np.concatenate([np.full(500, 0.1), np.full(500, 0.3)])
    found = statistics.difference(d, [500, 500]).nats
    assert (found.estimate, found.high) == pytest.approx((0.2, 0.2 + 12.7062 * 0.1), abs=1e-4)


def test_a_text_in_which_differences_stay_alike_has_no_interval_but_the_length_it_takes() -> None:
    random = np.random.default_rng(13)
    steps = np.repeat(random.normal(size=16), 50)
    found = statistics.difference(steps, [800])
    assert not found.nats.known and found.scope == "" and found.needed(0.01) is None
    assert "800 tokens are too few where differences stay alike over about" in found.clusters
    takes = int(found.clusters.rpartition(" ")[2].replace(",", ""))
    assert 1000 < takes < 3000
    assert statistics.difference(np.repeat(random.normal(size=200), 50), [10_000]).nats.known


@pytest.mark.parametrize(
    ("lengths", "lost", "why"),
    [
        ([1600], 1, "about 1 of 1,600 tokens hold all the spread: too few to judge"),
        ([1600], 60, "one block of 14 holds 100% of the spread"),
        ([100] * 16, 1, "one document of 16 holds 100% of the spread"),
    ],
)
def test_what_rests_on_one_rare_loss_has_no_interval_but_says_what_holds_the_spread(
    lengths: list[int], lost: int, why: str
) -> None:
    d = np.random.default_rng(14).normal(0, 0.01, 1600)
    d[720 : 720 + lost] = 40 / lost * (np.resize([3, -1], lost) if lost > 1 else 1)
    found = statistics.difference(d, lengths)
    assert not found.nats.known and found.nats.estimate == pytest.approx(0.025, abs=1e-3)
    assert found.clusters == why and found.needed(0.01) is None
    wide = statistics.difference(d, [800, 800]).nats
    assert wide.known and wide.high - wide.low < 2, "two documents are wide, not without end"


def test_equal_within_a_margin_is_the_90_percent_interval_and_not_that_0_is_inside() -> None:
    random = np.random.default_rng(15)
    noise = random.normal(size=2000)
    noise -= noise.mean()
    for documents in (1, 5, 20):
        lengths = [2000 // documents] * documents
        for scale, mean in ((1.0, 0.0), (0.05, 0.0), (0.05, 0.008), (0.05, 0.012), (0.01, 0.008)):
            found = statistics.difference(mean + scale * noise, lengths)
            assert found.spread
            half = found.spread.half(0.9)
            inside = abs(found.nats.estimate) + half < 0.01
            assert (found.outside(0.01) <= 0.05) == inside
    noisy = statistics.difference(noise, [2000])
    assert not noisy.nats.excludes(0) and noisy.outside(0.01) > 0.05


def test_a_p_value_is_below_5_percent_where_the_interval_excludes_no_difference() -> None:
    random = np.random.default_rng(16)
    seen = set()
    for documents in (1, 4, 30):
        for _ in range(40):
            d = random.normal(0.02, 0.5, 1200)
            found = statistics.difference(d, [1200 // documents] * documents).nats
            assert (found.p <= 0.05) == found.excludes(0)
            seen.add(found.p <= 0.05)
        times = [math.exp(random.normal(0.05, 0.1)) for _ in range(5)]
        ratio = statistics.ratio(times, [1.0] * 5)
        assert (ratio.p <= 0.05) == ratio.excludes(1)
    assert seen == {True, False}


def test_holms_correction_is_that_of_his_example() -> None:
    adjusted = spread.holm([0.01, math.nan, 0.04, 0.03, 0.005])
    assert adjusted[0] == pytest.approx(0.03) and math.isnan(adjusted[1])
    assert adjusted[2:] == pytest.approx([0.06, 0.06, 0.02])
    assert spread.holm([0.9, 0.8]) == [1.0, 1.0] and spread.holm([]) == []


def test_a_table_of_many_comparisons_shows_a_difference_that_no_resample_reaches() -> None:
    random = np.random.default_rng(23)
    found = [statistics.difference(random.normal(5, 1, 600), [50] * 12) for _ in range(150)]
    assert max(spread.holm([each.nats.p for each in found])) < 0.001
    law = found[0].spread
    assert law is not None and law.draws is not None
    ends = [law.chance(law.draws[-1] * law.error * by) for by in (1, 1 + 1e-9, 1.1)]
    assert ends[0] >= ends[1] > ends[2] > 0 and ends[1] == pytest.approx(1 / 2000, rel=1e-3)


def test_less_noise_or_a_larger_margin_takes_less_text() -> None:
    d = np.random.default_rng(17).normal(size=4000)
    for lengths in ([4000], [200] * 20):
        found, quiet = (statistics.difference(scale * d, lengths) for scale in (1.0, 0.5))
        assert found.needed(0.01) == pytest.approx(4 * (quiet.needed(0.01) or 0), rel=0.05)
        assert found.needed(0.02) == pytest.approx((found.needed(0.01) or 0) / 4, rel=0.05)
    assert statistics.difference(1e-3 * d, [200] * 20).needed(1.0) == 2


def test_scores_that_are_equal_are_called_so_and_have_no_spread() -> None:
    found = statistics.difference(np.zeros(1000, np.float32), [1000])
    assert found.equal and (found.nats.low, found.nats.high) == (0.0, 0.0)
    assert statistics.difference(np.full(1000, 5e-5), [1000]).equal
    assert not statistics.difference(np.eye(1, 1000)[0], [1000]).equal


def test_too_few_tokens_or_an_infinite_score_have_no_interval() -> None:
    assert not statistics.difference(np.ones(100), [100]).nats.known
    infinite = statistics.difference(np.array([1.0, np.inf, *np.ones(998)]), [1000])
    assert not infinite.nats.known and not infinite.equal
    assert not infinite.nats.excludes(0)
    both = statistics.difference(np.array([math.nan, *np.ones(999)]), [1000])  # infinite in both
    assert (nats_of(infinite), nats_of(both)) == ("+inf", "-")


def test_below_three_rounds_there_is_a_ratio_and_no_interval() -> None:
    found = statistics.ratio([20.0, 22.0], [10.0, 11.0])
    assert found.estimate == pytest.approx(2) and not found.known
    assert not statistics.independent_ratio([20.0, 21, 22], [10.0, 11]).known


def test_the_same_data_give_the_same_interval() -> None:
    d = np.random.default_rng(11).normal(size=3000)
    assert statistics.difference(d, [3000]) == statistics.difference(d.copy(), [3000])


@pytest.mark.parametrize(
    ("degrees", "quantile"),  # Student's table
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423), (200, 1.9719)],
)
def test_students_quantiles_are_those_of_the_table(degrees: int, quantile: float) -> None:
    assert spread.student(degrees) == pytest.approx(quantile, abs=5e-5)
