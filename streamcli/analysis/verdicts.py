"""What pairs of runs amount to, in words: a verdict, a loss, and what a table lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from streamcli.analysis import statistics
from streamcli.analysis.comparison import SAME, Comparison, command, number
from streamcli.analysis.paired import Pair, same
from streamcli.analysis.statistics import Difference, Interval

MOST_NAMED = 3  # differences that are named; where there are more, none is


def verdict(pair: Pair) -> str:
    """What may be said of a pair, in words."""
    if pair.is_base:
        return "baseline"
    if pair.difference is None:
        return pair.why
    parts = [_cost(pair.difference)]
    if pair.speed_up and pair.speed_up.known:
        faster = "faster" if pair.speed_up.estimate > 1 else "slower"
        parts.append(faster if pair.speed_up.excludes(1) else "no difference in time shown")
    other = pair.why.partition(":")[0] if pair.run.get("budget") in ("other", "none") else ""
    words = "; ".join(filter(None, parts))
    return ": ".join(filter(None, (other, words))) or "-"


def losses(pair: Pair, *, times: bool) -> dict[str, float]:
    """By how much a run got worse, as fractions: what is certain, as far as intervals tell.

    Args:
        pair: A run against another.
        times: Whether a longer time is a loss, and not only a higher perplexity.
    """
    found = {}
    difference, speed_up = pair.difference, pair.speed_up
    if difference and not difference.equal and pair.base and number(pair.base["ppl"]) < math.inf:
        nats = difference.nats
        if not (nats.known and nats.low <= 0):
            lost = math.expm1(min(nats.estimate, 700))
            found["perplexity"] = math.inf if math.isnan(lost) else lost
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


def _cost(difference: Difference) -> str:
    nats = difference.nats
    if difference.equal:
        return f"equal to {statistics.EQUAL:g} nats"
    if not nats.known:
        return ""
    if not nats.excludes(0):
        return "no difference shown"
    ends = sorted((abs(nats.low), abs(nats.high)))
    places = decimals(nats)
    by = " to ".join(f"{end:.{places}f}" for end in ends)
    return f"{'worse' if nats.estimate > 0 else 'better'} by {by} nats"
