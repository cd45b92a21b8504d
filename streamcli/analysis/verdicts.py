"""What pairs of runs amount to, in words: a verdict, a loss, and what a table lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from streamcli.analysis import statistics
from streamcli.analysis.comparison import SAME, Comparison, command, number
from streamcli.analysis.paired import Pair, same
from streamcli.analysis.spread import ALPHA, holm
from streamcli.analysis.statistics import Difference, Interval

MOST_NAMED = 3  # differences that are named; where there are more, none is
MARGIN = 0.01  # nats, 1 % of perplexity: what is called equal where nothing else is asked for
UNSHOWN = "no difference shown"


@dataclass(frozen=True)
class Judged:
    """A pair and what may be said of it; p values are Holm-corrected over the pairs of a table.

    Attributes:
        pair: The pair.
        difference_p: Of no difference in nats; NaN where that is not tested.
        equivalence_p: Of a difference of more than ``margin``, likewise.
        accuracy_p: Of no difference in accuracy, likewise.
        speed_up_p: Of no difference in time, likewise.
        margin: In nats.
    """

    pair: Pair
    difference_p: float
    equivalence_p: float
    accuracy_p: float
    speed_up_p: float
    margin: float

    @property
    def verdict(self) -> str:
        """What may be said, in words."""
        pair = self.pair
        if pair.is_base:
            return "baseline"
        if pair.difference is None:
            return pair.why
        parts = [self.cost, self.answers]
        if pair.speed_up and pair.speed_up.known:
            faster = "faster" if pair.speed_up.estimate > 1 else "slower"
            parts.append(faster if self.speed_up_p <= ALPHA else "no difference in time shown")
        other = pair.why.partition(":")[0] if pair.run.get("budget") in ("other", "none") else ""
        words = "; ".join(filter(None, parts))
        return ": ".join(filter(None, (other, words))) or "-"

    @property
    def cost(self) -> str:
        """What may be said of the difference in nats; nothing where it has no interval."""
        difference = self.pair.difference
        if difference is None:
            return ""
        if difference.equal:  # a fact of every token, and no test
            return f"equal to {statistics.EQUAL:g} nats"
        if not difference.nats.known:
            return ""
        if self.difference_p <= ALPHA:
            return _apart(difference.nats)
        return f"equal within {self.margin:g} nats" if self.equivalence_p <= ALPHA else UNSHOWN

    @property
    def answers(self) -> str:
        """What may be said of the difference in accuracy; nothing where the text asks nothing."""
        told = self.pair.answered
        if told is None:
            return ""
        if told.same:
            return "right on the same questions"
        if self.accuracy_p > ALPHA:
            return "no difference in accuracy shown"
        more = "more" if told.share.estimate > 0 else "less"
        return f"{more} accurate by {_points(told.share)} points"

    @property
    def needed(self) -> int | None:
        """How many tokens or documents it takes, where no difference is shown."""
        difference = self.pair.difference
        return difference.needed(self.margin) if difference and self.cost == UNSHOWN else None


def judged(pairs: Sequence[Pair], margin: float = MARGIN) -> list[Judged]:
    """The pairs of one table, in order, with what may be said of each.

    Several comparisons would find something by chance: the p values of each kind of verdict are
    corrected together, as Holm has it. Intervals are not. A pair whose scores are equal on every
    token is no test, and does not count.

    Args:
        pairs: The pairs that share the table.
        margin: Nats within which a difference is called none: by two one-sided tests at 5 %, which
            is the 90 % interval, and never because an interval has 0 in it.
    """
    tested: list[Difference | None] = [
        None if pair.is_base or (pair.difference and pair.difference.equal) else pair.difference
        for pair in pairs
    ]
    apart = holm([each.nats.p if each else math.nan for each in tested])
    outside = holm([each.outside(margin) if each else math.nan for each in tested])
    told = [None if pair.is_base or not pair.answered else pair.answered for pair in pairs]
    right = holm([math.nan if not each or each.same else each.share.p for each in told])
    times = holm(
        [math.nan if pair.is_base or not pair.speed_up else pair.speed_up.p for pair in pairs]
    )
    figures = zip(pairs, apart, outside, right, times, strict=True)
    return [Judged(*each, margin) for each in figures]


def tests(found: Sequence[Judged]) -> int:
    """How many comparisons of a table are tested at once, of nats, of answers or of times."""
    kinds = ("difference_p", "accuracy_p", "speed_up_p")
    return max(sum(not math.isnan(getattr(each, kind)) for each in found) for kind in kinds)


def losses(pair: Pair, *, times: bool) -> dict[str, float]:
    """By how much a run got worse, as fractions: what is certain, as far as intervals tell.

    Args:
        pair: A run against another.
        times: Whether a longer time is a loss, and not only a higher perplexity or lower accuracy.
    """
    found = {}
    difference, speed_up = pair.difference, pair.speed_up
    if difference and not difference.equal and pair.base and number(pair.base["ppl"]) < math.inf:
        nats = difference.nats
        if not (nats.known and nats.low <= 0):
            lost = math.expm1(min(nats.estimate, 700))
            found["perplexity"] = math.inf if math.isnan(lost) else lost
    share = pair.answered.share if pair.answered else None
    if share and share.estimate < 0 and not (share.known and share.high >= 0):
        found["accuracy, in points"] = -share.estimate
    if times and speed_up and not (speed_up.known and speed_up.high >= 1):
        found["time a token"] = 1 / speed_up.estimate - 1
    return found


def decimals(interval: Interval) -> int:
    """How many decimals show two digits of an interval's width: 3 to 6; 4 where there is none."""
    width = interval.high - interval.low
    if not (interval.known and width > 0):
        return 4
    return min(6, max(3, 1 - math.floor(math.log10(width))))


def missing(comparison: Comparison, others: Sequence[Comparison]) -> str:
    """What a table without its baseline lacks, in words: what differs, and what to type."""
    mine, method = comparison.same, comparison.baseline
    near = [
        other.same
        for other in others
        if other.same["mode"] == mine["mode"] and method in set(other.runs["method"])
    ]
    differences = [
        [f"{name} {other[name]}, not {mine[name]}" for name in SAME if not same(mine, other, name)]
        for other in near
    ]
    differs = min((each for each in differences if each), key=len, default=[])
    nearest = f"; the nearest has {' and '.join(differs)}" if 0 < len(differs) <= MOST_NAMED else ""
    return (
        f"no {method} run with the same model, tokens, batch, dtype, device and threads{nearest}. "
        f"Record one: {command(comparison.runs.iloc[0].to_dict(), method)}"
    )


def _points(share: Interval) -> str:
    """The ends of a difference of shares that is not 0, in percentage points towards it."""
    sign = math.copysign(100, share.estimate)
    low, high = sorted((sign * share.low, sign * share.high))
    return f"{low:.1f} to {high:.1f}"


def _apart(nats: Interval) -> str:
    ends = sorted((abs(nats.low), abs(nats.high)))
    places = decimals(nats)
    by = " to ".join(f"{end:.{places}f}" for end in ends)
    return f"{'worse' if nats.estimate > 0 else 'better'} by {by} nats"
