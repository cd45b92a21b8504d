"""Statistics of paired runs: a mean difference in nats and a ratio of times, with 95 % intervals.

Knows nothing of runs or databases. What an interval says is how far the figure may be off by the
draw of the documents, of the tokens of one text, or of the rounds. How often the truth is inside
was simulated: docs/decisions/0008-intervals.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcli.analysis import clusters
from streamcli.analysis.spread import DOMINATED, Spread, needed, over_clusters

ROUNDS = 3  # of times below which there is no interval
EQUAL = 1e-4  # nats on a token that float32 may lose


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; ``low`` and ``high`` are NaN where there is none.

    ``p`` is the p value of no difference: of 0 nats, or of a ratio of 1.
    """

    estimate: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def excludes(self, value: float) -> bool:
        """Whether there is an interval and ``value`` is outside."""
        return self.known and not self.low <= value <= self.high


@dataclass(frozen=True)
class Difference:
    """How two scorings of the same tokens differ.

    Attributes:
        nats: Mean over all tokens, with its interval.
        largest: Largest absolute difference on a token, in nats.
        clusters: What the interval is over, in words; why there is none, where there is none.
        documents: How many documents it is over; 1 where it is of one text.
        spread: Of ``nats``; None where there is no interval.
        variance: Of one document, or token, as far as it tells what more of them would show.
    """

    nats: Interval
    largest: float
    clusters: str
    documents: int = 1
    spread: Spread | None = None
    variance: float = math.nan

    @property
    def equal(self) -> bool:
        """Whether no token differs by more than number formats do."""
        return self.largest < EQUAL

    @property
    def scope(self) -> str:
        """For what the interval holds."""
        return clusters.scope(self.clusters) if self.nats.known else ""

    def outside(self, margin: float) -> float:
        """The p value of a difference of more than ``margin`` nats; NaN without an interval."""
        return self.spread.outside(self.nats.estimate, margin) if self.spread else math.nan

    def needed(self, margin: float) -> int | None:
        """How many documents, or tokens of one text, show ``margin`` nats with 80 % power."""
        if not self.spread:
            return None
        blocks = self.spread.degrees if self.documents == 1 else None
        return needed(self.variance, margin, blocks)


def difference(d: NDArray[Any], lengths: list[int]) -> Difference:
    """The mean paired difference a token, with its interval over clusters of tokens.

    ``d[t]`` is the one run's nats on token t less the other's, so what makes a token hard drops
    out. The estimate is the mean over all tokens whatever the clusters are. There is no interval
    where a text is too short for blocks that are independent, or where one cluster of many holds
    nearly all the spread: that one is then all that is known of it.

    Args:
        d: Differences in nats, documents end to end.
        lengths: Scored tokens of each document.
    """
    values = np.asarray(d, dtype=np.float64)
    if not np.isfinite(values).all():
        return Difference(Interval(float(values.mean())), math.inf, "a score is infinite")
    mean, largest = float(values.mean()), float(np.abs(values).max())
    found = clusters.of(values, lengths, EQUAL)
    if not len(found.starts):
        return Difference(Interval(mean), largest, found.words)
    sums = np.add.reduceat(np.where(found.inside, values, 0.0), found.starts)
    sizes = np.add.reduceat(found.inside.astype(np.float64), found.starts)
    resampled = found.documents >= clusters.RESAMPLED
    spread = over_clusters(sums, sizes, resampled=resampled)
    if spread.largest > DOMINATED:
        words = f"one {found.one} of {len(sums)} holds {spread.largest:.0%} of the spread"
        return Difference(Interval(mean), largest, words, found.documents)
    kept = float(sizes.sum())
    units = found.documents if found.documents > 1 else kept
    part = kept / len(values)
    whole = Spread(part * spread.error, spread.degrees, spread.draws)
    half = whole.half()
    nats = Interval(mean, mean - half, mean + half, whole.chance(mean))
    return Difference(nats, largest, found.words, found.documents, whole, units * spread.error**2)


def ratio(over: list[float], under: list[float]) -> Interval:
    """The ratio of times of two runs that took turns, round by round.

    The mean of log(over / under) over n rounds, with Student's t of n - 1 degrees of freedom:
    exact for normal logs, and with few rounds the only interval that covers as it should. What a
    round's machine was busy with drops out of its ratio. Below 3 rounds there is no interval.

    Args:
        over: Times of each round, any unit.
        under: Times of the same rounds.
    """
    logs = np.log(np.asarray(over) / np.asarray(under))
    if len(logs) < ROUNDS:
        return Interval(float(np.exp(logs.mean())))
    error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
    return _exponential(float(logs.mean()), Spread(error, len(logs) - 1))


def independent_ratio(over: list[float], under: list[float]) -> Interval:
    """The ratio of times of repeats that were made at different times; none below 3 of each.

    Welch's t on logs, degrees of freedom rounded down. It covers how much repeats differ among
    themselves, and not a machine that was another one on another day.
    """
    a, b = np.log(np.asarray(over)), np.log(np.asarray(under))
    if min(len(a), len(b)) < ROUNDS:
        return Interval(float(np.median(over) / np.median(under)))
    parts = [float(each.var(ddof=1)) / len(each) for each in (a, b)]
    middle, variance = float(a.mean() - b.mean()), sum(parts)
    if not variance:
        return _exponential(middle, Spread(0.0, 1))
    degrees = variance**2 / sum(
        part**2 / (len(each) - 1) for part, each in zip(parts, (a, b), strict=True)
    )
    return _exponential(middle, Spread(math.sqrt(variance), max(1, int(degrees))))


def _exponential(middle: float, spread: Spread) -> Interval:
    """The interval of a ratio whose log is ``middle``."""
    low, high = (math.exp(middle + end) for end in (-spread.half(), spread.half()))
    return Interval(math.exp(middle), low, high, spread.chance(middle))
