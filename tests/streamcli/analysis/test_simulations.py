"""Intervals hold the truth as often as they say, and verdicts are wrong as seldom as they say.

The figures of docs/decisions/0008-intervals.md are of these simulations with 4,000 of each:
``python -m tests.streamcli.analysis.test_simulations`` prints them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from streamcli.analysis import statistics
from streamcli.analysis.spread import ALPHA, holm
from streamcli.analysis.statistics import Difference

Floats = NDArray[np.float64]
SIMULATIONS = 1000
LOW, HIGH = 0.93, 0.97  # of the simulations that an interval of 95 % may cover
NOISE = 0.009  # twice the standard error of a share of 5 % or 95 % in so many simulations, and more
KNOWN = 0.05  # nats, the true difference
MARGIN = 0.01
BEGUN = 300  # tokens before a text begins, so that its process is in its stride


@dataclass(frozen=True)
class Tally:
    """Shares of the simulations.

    Attributes:
        known: That have an interval.
        covered: Of these, whose interval holds the truth.
        missed: Of all, that print an interval without the truth in it.
    """

    known: float
    covered: float
    missed: float


def process(
    random: np.random.Generator, shape: tuple[int, int], rho: float, tail: str
) -> Iterator[Floats]:
    """AR(1) series of mean 0, one after the other."""
    size = (shape[0], shape[1] + BEGUN)
    if tail == "normal":
        shocks = random.standard_normal(size)
    elif tail == "heavy":
        shocks = random.standard_t(3, size)
    elif tail == "skewed":
        shocks = random.lognormal(0, 1, size) - math.exp(0.5)
    else:
        shocks = (random.random(size) < 0.01) * random.exponential(3, size) - 0.03
    series: Floats = np.array(shocks)
    for t in range(1, size[1]):
        series[:, t] += rho * series[:, t - 1]
    yield from series[:, BEGUN:]


def one_text(tokens: int, rho: float, tail: str, count: int = SIMULATIONS) -> Iterator[Difference]:
    """Differences on one text, whose process has the mean ``KNOWN``."""
    for series in process(np.random.default_rng(tokens), (count, tokens), rho, tail):
        yield statistics.difference(KNOWN + series, [tokens])


def several(
    documents: int, effect: str, count: int = SIMULATIONS, spread: float = 0.2, mean: float = KNOWN
) -> Iterator[Difference]:
    """Differences on documents of log-normal lengths (sigma 0.6), each with its own effect."""
    random = np.random.default_rng(documents)
    lengths = np.maximum(20, random.lognormal(4, 0.6, (count, documents))).astype(int)
    own = np.zeros(lengths.shape)
    if effect == "normal":
        own = random.normal(0, spread, lengths.shape)
    elif effect == "skewed":
        own = spread * (random.lognormal(0, 0.8, lengths.shape) - math.exp(0.32))
    longest = int(lengths.sum(1).max())
    for noise, sizes, effects in zip(
        process(random, (count, longest), 0.5, "heavy"), lengths, own, strict=True
    ):
        series = mean + np.repeat(effects, sizes) + spread * noise[: sizes.sum()]
        yield statistics.difference(series, sizes.tolist())


def tally(found: Iterator[Difference], truth: float = KNOWN) -> Tally:
    """How many of them have an interval, and hold the truth."""
    every = [each.nats for each in found]
    known = [each for each in every if each.known]
    missed = sum(each.excludes(truth) for each in known)
    return Tally(len(known) / len(every), 1 - missed / max(1, len(known)), missed / len(every))


@pytest.mark.parametrize("tail", ["normal", "heavy", "skewed"])
@pytest.mark.parametrize(("tokens", "rho"), [(800, 0.0), (800, 0.5), (800, 0.8), (2000, 0.8)])
@pytest.mark.slow
def test_the_interval_of_one_text_covers_the_mean_of_its_process(
    tokens: int, rho: float, tail: str
) -> None:
    found = tally(one_text(tokens, rho, tail))
    assert found.known > 0.95 and LOW - NOISE <= found.covered <= HIGH + NOISE


@pytest.mark.parametrize(("tokens", "rho"), [(300, 0.9), (300, 0.95), (800, 0.95), (2000, 0.98)])
@pytest.mark.slow
def test_where_differences_stay_alike_for_long_few_intervals_are_printed_and_fewer_are_wrong(
    tokens: int, rho: float
) -> None:
    found = tally(one_text(tokens, rho, "normal"))
    assert found.known < 0.6 and found.missed < 0.07


@pytest.mark.slow
def test_of_rare_losses_few_intervals_are_printed_and_fewer_are_wrong() -> None:
    found = tally(one_text(800, 0.0, "rare"))
    assert found.known < 0.25 and found.missed < 0.07


@pytest.mark.parametrize("effect", ["no", "normal"])
@pytest.mark.parametrize("documents", [2, 3, 5, 9, 10, 60])
@pytest.mark.slow
def test_the_interval_of_documents_covers_the_mean_of_their_population(
    documents: int, effect: str
) -> None:
    found = tally(several(documents, effect))
    assert found.known > 0.95 and LOW - NOISE <= found.covered <= HIGH + NOISE


@pytest.mark.parametrize(("documents", "spread"), [(1, 0.1), (5, 0.004), (10, 0.008), (60, 0.02)])
@pytest.mark.slow
def test_what_is_a_margin_apart_is_seldom_called_equal_within_it(
    documents: int, spread: float
) -> None:
    assert claimed(documents, spread, MARGIN) <= 0.05 + NOISE
    assert claimed(documents, spread, 0.0) > 0.3, "the test can tell"


def claimed(documents: int, spread: float, apart: float, count: int = SIMULATIONS) -> float:
    """How often what is so far apart is called equal within the margin."""
    if documents > 1:
        found = list(several(documents, "normal", count, spread, apart))
    else:
        series = process(np.random.default_rng(5), (count, 2000), 0.5, "normal")
        found = [statistics.difference(apart + spread * each, [2000]) for each in series]
    return float(np.mean([each.outside(MARGIN) <= ALPHA for each in found]))


@pytest.mark.slow
def test_several_comparisons_in_a_table_find_something_by_chance_as_seldom_as_one() -> None:
    found = [each.nats.p for each in several(10, "normal", 4 * SIMULATIONS, mean=0.0)]
    tables = np.asarray(found).reshape(-1, 8)
    corrected = np.mean([min(holm(list(row))) <= ALPHA for row in tables])
    uncorrected = np.mean((tables <= ALPHA).any(axis=1))
    assert corrected <= 0.07 and uncorrected > 0.2


@pytest.mark.parametrize("documents", [1, 40])
@pytest.mark.slow
def test_as_much_text_as_is_named_shows_the_difference_in_four_of_five(documents: int) -> None:
    random = np.random.default_rng(6)
    if documents == 1:
        series, one = random.normal(0, 0.08, 2000), 1
    else:
        series, one = np.repeat(random.normal(0, 0.02, documents), 50), 50
    lengths = [one] * documents if documents > 1 else [len(series)]
    needed = statistics.difference(series, lengths).needed(MARGIN)
    assert needed
    again = np.repeat(random.normal(MARGIN, series.std(), (SIMULATIONS, needed)), one, axis=1)
    lengths = [one] * needed if documents > 1 else [needed]
    shown = [statistics.difference(each, lengths).nats.excludes(0) for each in again]
    assert 0.7 < np.mean(shown) < 0.9  # the variance is one draw's


def main() -> None:
    """Print the figures."""
    for tail in ("normal", "heavy", "skewed", "rare"):
        for tokens, rho in (
            *((800, 0.0), (800, 0.5), (800, 0.8), (2000, 0.8), (4096, 0.95)),
            *((300, 0.9), (300, 0.95), (800, 0.9), (800, 0.95), (2000, 0.98)),
        ):
            print("text", tail, tokens, rho, tally(one_text(tokens, rho, tail, 4000)), flush=True)
    for effect in ("no", "normal", "skewed"):
        for documents in (2, 3, 5, 9, 10, 60):
            print("documents", effect, documents, tally(several(documents, effect, 4000)))
    for documents, spread in ((1, 0.1), (5, 0.004), (10, 0.008), (60, 0.02)):
        shares = [claimed(documents, spread, apart, 4000) for apart in (MARGIN, 0.0)]
        print("equal", documents, shares, flush=True)


if __name__ == "__main__":
    main()
