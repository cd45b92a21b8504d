"""How far an estimate may be off: its standard error, and the law of its error in such units.

From these come intervals, chances, and how much text a difference takes to be seen. SciPy is
imported where a quantile is asked for, since that takes a while.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

LEVEL = 0.95  # of every interval
ALPHA = 1 - LEVEL
POWER = 0.8
RESAMPLES = 1999
SEED = 20260131
MANY = 8  # clusters from which on one may be said to hold all the spread
DOMINATED = 0.9  # of the spread that one cluster may hold


@dataclass(frozen=True)
class Spread:
    """The error of an estimate.

    Attributes:
        error: Its standard error, in the estimate's unit.
        degrees: Degrees of freedom of Student's t, the law of the error over ``error``.
        draws: In its stead, sizes of that ratio in resamples, sorted; None where t is the law.
        largest: Share of the squared error that one cluster holds, from 0 to 1.
    """

    error: float
    degrees: float
    draws: Floats | None = field(default=None, compare=False, repr=False)
    largest: float = 0.0

    def half(self, level: float = LEVEL) -> float:
        """Half the width of the interval of this level."""
        if not self.error:
            return 0.0
        if self.draws is None:
            return student(self.degrees, level) * self.error
        return float(self.draws[math.ceil(level * (len(self.draws) + 1)) - 1]) * self.error

    def chance(self, distance: float) -> float:
        """How probable it is that the estimate is off by so much or more, either way."""
        if not self.error:
            return float(not distance)
        t = abs(distance) / self.error
        from scipy.special import stdtr

        if self.draws is None:
            return float(2 * stdtr(self.degrees, -t))
        if above := len(self.draws) - int(np.searchsorted(self.draws, t)):
            return (1 + above) / (len(self.draws) + 1)
        # Beyond all draws the law falls off as Student's does: or else, times a hundred tests, no
        # difference however large could be shown.
        beyond = stdtr(self.degrees, -t) / stdtr(self.degrees, -self.draws[-1])
        return float(beyond / (len(self.draws) + 1))

    def outside(self, estimate: float, margin: float) -> float:
        """The p value of two one-sided tests that the truth is not within ``margin`` of 0.

        Schuirmann 1987: at 5 % they reject just where the 90 % interval is within the margin.
        """
        half = self.chance(margin - abs(estimate)) / 2
        return half if abs(estimate) < margin else 1 - half


def over_clusters(sums: Floats, sizes: Floats, *, resampled: bool) -> Spread:
    r"""The spread of the ratio sum S / sum n over G clusters with sums S_g of n_g tokens.

    With m the ratio and e_g = S_g - m n_g, the standard error is the jackknife's,
    s^2 = (G-1)/G sum (e_g / (1 - n_g / sum n))^2 / (sum n)^2, and its degrees of freedom are those
    of as many equal clusters as weigh the same, (sum n)^2 / sum n^2 - 1, at least 1. Linearised
    errors and G - 1 cover 87 % with clusters of very unequal sizes where this covers 96 %. With
    equal sizes both are Student's t of the clusters' means. docs/decisions/0008-intervals.md

    ``resampled`` clusters have the law of their own resamples, the symmetric bootstrap-t of Hall
    1988: it covers a little more where clusters have skewed effects, but takes 10 of them or more.

    Args:
        sums: (G,), at least two.
        sizes: (G,), none of them 0.
        resampled: Whether the law is the bootstrap's, and not Student's.
    """
    clusters, total = len(sums), float(sizes.sum())
    residual = sums - sums.sum() / total * sizes
    pseudo = residual / (1 - sizes / total)
    squares = float((pseudo**2).sum())
    error = math.sqrt((clusters - 1) / clusters * squares) / total
    degrees = max(1.0, total**2 / float((sizes**2).sum()) - 1)
    # Of the squares about their own mean, what goes where the largest residual is left out.
    spread = float((residual**2).sum())
    held = clusters / (clusters - 1) * float((residual**2).max()) / spread if spread else 0.0
    draws = _resampled(residual, sizes) if resampled else None
    return Spread(error, degrees, draws, held if clusters >= MANY else 0.0)


def needed(variance: float, margin: float, degrees: float | None) -> int:
    """How many units show a difference of ``margin`` at 5 % with a power of 80 %.

    The least n with n >= variance (t(97.5 %) + t(80 %))^2 / margin^2.

    Args:
        variance: Of one unit: a mean over n of them has variance / n.
        margin: The difference, in the variance's unit.
        degrees: Degrees of freedom, where they do not grow with n; None where they are n - 1.
    """
    from scipy.special import ndtri, stdtrit

    levels = ((1 + LEVEL) / 2, POWER)

    def units(quantiles: Any) -> int:
        return max(2, math.ceil(variance * (float(sum(quantiles)) / margin) ** 2))

    if degrees is not None:
        return units(stdtrit(degrees, levels))
    found = units(ndtri(levels))
    while found < units(stdtrit(found - 1, levels)):
        found += 1
    return found


def holm(chances: Sequence[float]) -> list[float]:
    """P values, adjusted for there being several; NaN is of no test, and stays.

    Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    tested = sorted((p, place) for place, p in enumerate(chances) if not math.isnan(p))
    adjusted, highest = list(chances), 0.0
    for rank, (p, place) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        adjusted[place] = highest
    return adjusted


@lru_cache
def student(degrees: float, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + level) / 2))


def _resampled(residual: Floats, sizes: Floats) -> Floats:
    """Sizes of t in resamples of the clusters, sorted; infinite where a resample has no spread."""
    clusters = len(sizes)
    draws = _draws(clusters)  # (G, resamples): how often each cluster is drawn
    drawn = sizes @ draws
    shift = (residual @ draws) / drawn
    squares = (
        (residual**2) @ draws
        - 2 * shift * ((residual * sizes) @ draws)
        + shift**2 * (sizes**2 @ draws)
    )
    spread = np.sqrt(clusters / (clusters - 1) * np.maximum(squares, 0)) / drawn
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(shift / spread)
    t[np.isnan(t)] = 0  # 0 / 0: all clusters drawn are alike, and like the mean
    found: Floats = np.sort(t)
    return found


@lru_cache(maxsize=4)
def _draws(clusters: int) -> NDArray[Any]:
    random = np.random.default_rng(SEED)
    even = np.full(clusters, 1 / clusters)
    return random.multinomial(clusters, even, RESAMPLES).T.astype(np.float64)
