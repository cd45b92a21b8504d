"""Two runs' answers to the same questions, held against each other question by question.

Only questions that one of the two alone answers rightly tell them apart: what makes a question
easy or hard drops out. Where several documents ask several questions each, documents are the
clusters, as they are of nats; elsewhere questions count as independent.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np

from core.result import wilson
from streamcli.analysis import clusters, spread
from streamcli.analysis.spread import Spread
from streamcli.analysis.statistics import Interval

INDEPENDENT = "over questions, as if independent (McNemar's exact test, Newcombe's interval)"


@dataclass(frozen=True)
class Answered:
    """How the accuracies of two runs differ.

    Attributes:
        share: Accuracy of the run less that of the other, with its interval.
        alone: Questions that the run alone answers rightly, and those that the other alone does.
        questions: How many both were asked.
        law: What the interval is over, and by which law; the test, too.
    """

    share: Interval
    alone: tuple[int, int]
    questions: int
    law: str

    @property
    def scope(self) -> str:
        """Over what the interval is, without how it was made."""
        return self.law.partition(" (")[0]

    @property
    def same(self) -> bool:
        """Whether both are right on the same questions, so that there is nothing to test."""
        return not any(self.alone)


def difference(run: str, base: str, documents: list[int]) -> Answered | None:
    """The difference of two runs' accuracies; None where they were not asked the same questions.

    Args:
        run: Answers of the one, as the column ``answers`` has them.
        base: Those of the other.
        documents: How many questions each document has, in order.
    """
    mine, other = ([tuple(each) for each in json.loads(some)] for some in (run, base))
    if [distance for distance, _ in mine] != [distance for distance, _ in other]:
        return None
    d = np.array([a - b for (_, a), (_, b) in zip(mine, other, strict=True)], np.float64)
    alone = int((d > 0).sum()), int((d < 0).sum())
    both = sum(a and b for (_, a), (_, b) in zip(mine, other, strict=True))
    sizes = np.array([each for each in documents if each], np.float64)
    if len(sizes) > 1 and sizes.max() > 1 and sizes.sum() == len(d):
        starts = np.cumsum(sizes).astype(int) - sizes.astype(int)
        sums, law = np.add.reduceat(d, starts), "Student's t"
        found = spread.over_clusters(sums, sizes, resampled=False)
        if len(sizes) >= clusters.RESAMPLED and found.largest <= spread.DOMINATED:
            found, law = spread.over_clusters(sums, sizes, resampled=True), "bootstrap-t"
        if found.error:
            words = f"over {len(sizes):,} documents, by {law}"
            return Answered(_around(float(d.mean()), found), alone, len(d), words)
    low, high = paired_interval(both, *alone, len(d))
    share = Interval(float(d.mean()), low, high, mcnemar(*alone))
    return Answered(share, alone, len(d), INDEPENDENT)


def mcnemar(one: int, other: int) -> float:
    """The exact p value of two shares of the same trials being one (McNemar 1947).

    Of the trials that only one of the two won, as many as not are the one's: the two-sided
    binomial test of 1/2.

    Args:
        one: Trials that the one alone won.
        other: Those that the other alone won.
    """
    from scipy.stats import binomtest

    tested = one + other
    return float(binomtest(one, tested).pvalue) if tested else 1.0


def paired_interval(both: int, one: int, other: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two shares of the same trials.

    Newcombe, Statistics in Medicine 17 (1998) 2635, method 10: the Wilson intervals of both shares,
    squared and added, less what the shares have in common (phi, with a continuity correction).

    Args:
        both: Trials that both won.
        one: Trials that the one alone won.
        other: Those that the other alone won.
        trials: All of them.
    """
    neither = trials - both - one - other
    p, q = ((both + alone) / trials for alone in (one, other))
    (p_low, p_high), (q_low, q_high) = (wilson(both + alone, trials) for alone in (one, other))
    margins = (both + one) * (other + neither) * (both + other) * (one + neither)
    apart: float = both * neither - one * other
    if apart > 0:
        apart = max(0, apart - trials / 2)
    phi = apart / math.sqrt(margins) if margins else 0.0

    def half(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    return p - q - half(p - p_low, q_high - q), p - q + half(p_high - p, q - q_low)


def _around(share: float, found: Spread) -> Interval:
    half = found.half()
    return Interval(share, max(-1.0, share - half), min(1.0, share + half), found.chance(share))
