"""Intervals cover what they claim to, and the same data give the same interval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamcli.analysis import statistics

SIMULATIONS = 2000
LOW, HIGH = 0.93, 0.97  # of the simulations that an interval of 95 % may cover
KNOWN = 0.05  # nats, the true difference


def autocorrelated(
    random: np.random.Generator, shape: tuple[int, int], rho: float, tail: str
) -> NDArray[np.float64]:
    """AR(1) series of mean 0, heavy-tailed or normal."""
    shocks = random.standard_t(3, shape) if tail == "heavy" else random.standard_normal(shape)
    series = np.empty(shape)
    series[:, 0] = shocks[:, 0] / math.sqrt(1 - rho**2)
    for t in range(1, shape[1]):
        series[:, t] = rho * series[:, t - 1] + shocks[:, t]
    return series


def documents(
    random: np.random.Generator, count: int, effect: float
) -> tuple[list[NDArray[np.float64]], list[list[int]]]:
    """Differences on documents of unequal lengths, each with an effect of its own."""
    series, lengths = [], []
    for _ in range(SIMULATIONS):
        sizes = np.maximum(20, random.lognormal(4, 0.5, count)).astype(int)
        own = np.repeat(random.normal(0, effect, count), sizes)
        series.append(own + random.standard_t(3, sizes.sum()) * 0.5)
        lengths.append(sizes.tolist())
    return series, lengths


def coverage(series: Any, lengths: Any, truth: float) -> float:
    """The share of intervals that hold the truth."""
    found = [statistics.difference(d, n).nats for d, n in zip(series, lengths, strict=True)]
    assert all(each.known for each in found)
    return float(np.mean([not each.excludes(truth) for each in found]))


@pytest.mark.parametrize(
    ("tokens", "rho", "tail"),
    [(1000, 0.0, "normal"), (1000, 0.8, "heavy"), (4096, 0.5, "heavy"), (4096, 0.8, "normal")],
)
@pytest.mark.slow
def test_the_interval_of_one_document_covers_a_known_difference(
    tokens: int, rho: float, tail: str
) -> None:
    random = np.random.default_rng(1)
    series = KNOWN + autocorrelated(random, (SIMULATIONS, tokens), rho, tail)
    assert LOW <= coverage(series, [[tokens]] * SIMULATIONS, KNOWN) <= HIGH


@pytest.mark.parametrize("count", [10, 100])
@pytest.mark.slow
def test_the_interval_of_many_documents_covers_a_known_difference(count: int) -> None:
    series, lengths = documents(np.random.default_rng(2), count, effect=0.2)
    assert LOW <= coverage([KNOWN + d for d in series], lengths, KNOWN) <= HIGH


def test_a_few_documents_are_cut_into_blocks_that_cover() -> None:
    random = np.random.default_rng(3)
    series = KNOWN + autocorrelated(random, (SIMULATIONS, 1500), 0.5, "heavy")
    assert LOW <= coverage(series, [[900, 400, 200]] * SIMULATIONS, KNOWN) <= HIGH


def test_a_against_a_shows_no_difference_in_nats() -> None:
    random = np.random.default_rng(4)
    truth = random.gamma(2, 1.5, 1000)  # what makes tokens hard is in both
    a, b = (truth + autocorrelated(random, (SIMULATIONS, 1000), 0.3, "heavy") for _ in range(2))
    assert LOW <= coverage(a - b, [[1000]] * SIMULATIONS, 0.0) <= HIGH


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


def test_percentiles_alone_would_not_cover_with_ten_documents() -> None:
    random = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        means = random.normal(0, 1, 10)
        drawn = means[random.integers(0, 10, (999, 10))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        covered += low <= 0 <= high
    assert covered / 400 < LOW


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
    assert alone.clusters == "16 blocks of about 62 tokens"
    assert padded.clusters == f"{alone.clusters} (1,000 before any difference left out)"
    short = statistics.difference(np.concatenate([np.zeros(1000), d[:150]]), [1150])
    assert short.clusters.startswith("150 tokens (1,000 before any difference left out) are too")
    for name in ("estimate", "low", "high"):
        half = getattr(alone.nats, name) / 2
        assert getattr(padded.nats, name) == pytest.approx(half)


def test_the_clusters_are_named() -> None:
    d = np.random.default_rng(10).normal(size=6000)
    assert statistics.difference(d, [6000]).clusters == "16 blocks of about 375 tokens"
    assert statistics.difference(d, [600] * 10).clusters == "10 documents"
    assert statistics.difference(d, [6] * 1000).clusters == "400 groups of 1,000 documents"
    assert "too few" in statistics.difference(d[:150], [150]).clusters


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
    assert statistics.student(degrees) == pytest.approx(quantile, abs=5e-5)
