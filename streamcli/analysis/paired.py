"""Paired comparisons: one run against another, token by token and round by round.

Which run is held against which is a plan; from a plan and what was measured of its runs come the
pairs. A round is what one sweep ran in turn; for repeats see ``repeats``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.config import LATER, RunConfig
from core.errors import UsageError
from streamcli.analysis import answered, repeats, statistics
from streamcli.analysis.answered import Answered
from streamcli.analysis.comparison import (
    Comparison,
    Row,
    by_bytes,
    number,
    same_clock,
    saw_tooths,
)
from streamcli.analysis.repeats import Key, Times
from streamcli.analysis.statistics import Difference, Interval
from streamcli.results.columns import CLOCK, HASHES, missing

Planned: TypeAlias = tuple[Row, Row | None, str]  # a run, what it is held against, and why not

UNMEASURED = ("source", "trust")  # of a configuration, what changes no figure


@dataclass(frozen=True)
class Pair:
    """A run, held against another where there is one.

    Attributes:
        run: Its columns.
        base: Those of the other; None where there is none.
        times: Of the run and its repeats.
        base_times: Of the other and its repeats.
        difference: In nats, the run less the other; None where there is no other.
        answered: Of their accuracies; None likewise, or where the text asks nothing.
        speed_up: Time of the other over the run's; None likewise, or where clocks differ.
        rounds: How many repeats the speed-up's interval is made of; 0 where it has none.
        why: What stands against comparing the two.
    """

    run: Row
    base: Row | None
    times: Times
    base_times: Times
    difference: Difference | None = None
    answered: Answered | None = None
    speed_up: Interval | None = None
    rounds: int = 0
    why: str = ""

    @property
    def is_base(self) -> bool:
        """Whether the run is what the others are held against."""
        return self.base is not None and self.base["run_id"] == self.run["run_id"]


@dataclass(frozen=True)
class Paired:
    """Pairs that share a table.

    Attributes:
        comparison: What their runs share.
        pairs: One a row.
    """

    comparison: Comparison
    pairs: list[Pair]


def plan(comparison: Comparison, *, across: bool = False) -> list[Planned]:
    """Each row, the baseline that it is held against, and why it is not.

    Args:
        comparison: The rows and their baseline.
        across: Whether rows of another budget are compared too, with the nearest baseline.
    """
    rows: list[Row] = comparison.rows
    by_name = {row["run_id"]: row for row in rows}
    bases = [row for row in rows if row["method"] == comparison.baseline]
    planned: list[Planned] = []
    for row in rows:
        held = by_name.get(row["baseline_run_id"])
        if held and (row["budget"] == "equal" or row["method"] == comparison.baseline):
            planned.append((row, held, ""))
        elif not bases:
            planned.append((row, None, f"no {comparison.baseline} run"))
        else:
            nearest = min(bases, key=lambda base: abs(math.log(keys_of(base) / keys_of(row))))
            planned.append((row, nearest if across else None, _unequal(row, nearest)))
    return planned


def at_both(before: Sequence[Row], after: Sequence[Row]) -> tuple[list[Planned], int]:
    """Hold each configuration's run after a change against its run before it.

    Args:
        before: Runs before the change, newest first.
        after: Runs after it, likewise.

    Returns:
        A plan, newest first, of the configurations that ran on both sides, and how many did not.
    """
    olds, news = ({_configuration(row): row for row in reversed(rows)} for rows in (before, after))
    both = [key for key in reversed(news) if key in olds]
    planned: list[Planned] = [
        (news[key], olds[key], other_clocks(news[key], olds[key])) for key in both
    ]
    return planned, len(olds) + len(news) - 2 * len(both)


def configurations(rows: Sequence[Row]) -> int:
    """How many configurations these runs have, whatever the commit."""
    return len({_configuration(row) for row in rows})


def of_two(base: Row, run: Row) -> Planned:
    """Hold one run against another.

    Raises:
        UsageError: One is not done, they are the same, or they scored different tokens.
    """
    for row in (base, run):
        if row["status"] != "done":
            raise UsageError(
                f"run {row['run_id']} is {row['status']}: only finished runs are compared."
            )
    names = base["run_id"], run["run_id"]
    if run["tokens_sha256"] != base["tokens_sha256"]:
        raise UsageError(
            f"{names[0]} and {names[1]} scored different tokens ({_short(base)} and "
            f"{_short(run)}): compare runs of one text, tokenizer and --max-tokens."
        )
    if run["scored_tokens"] != base["scored_tokens"]:
        raise UsageError(
            f"{names[0]} and {names[1]} scored {base['scored_tokens']:,} ({base['mode']}) and "
            f"{run['scored_tokens']:,} ({run['mode']}) of the same tokens: they can't be paired."
        )
    return run, base, other_clocks(run, base)


@dataclass(frozen=True)
class Measured:
    """What was measured of some runs.

    Attributes:
        nll: Nats of every scored token, by run.
        lengths: Scored tokens of every document, by run.
        times: Times of a run and its repeats, by what repeats share.
        asked: Questions of every document, by run, of texts that ask some.
        apart: Whether the two runs of a pair were made at different times, each with its repeats.
        alone: Whether each run is taken without its repeats, even where one repeats the other.
    """

    nll: dict[str, NDArray[np.float32]]
    lengths: dict[str, list[int]]
    times: dict[Key, Times]
    asked: dict[str, list[int]] = field(default_factory=dict)
    apart: bool = False
    alone: bool = False

    def _key(self, row: Row) -> Key:
        return (row["run_id"],) if self.alone else repeats.key(row)

    def pair(self, run: Row, base: Row | None, why: str) -> Pair:
        """Hold ``run`` against ``base``."""
        times = self.times.get(self._key(run), Times())
        if base is None or base is run:
            return Pair(run, base, times, times, why=why)
        base_times = self.times.get(self._key(base), Times())
        faster, rounds = speed_up(run, base, times, base_times, apart=self.apart)
        apart = difference(run, base, self.nll, self.lengths)
        told = self.answered(run, base)
        return Pair(run, base, times, base_times, apart, told, faster, rounds, why)

    def answered(self, run: Row, base: Row) -> Answered | None:
        """How the accuracies of two runs differ, where both were asked something."""
        mine, other = (row.get("answers") for row in (run, base))
        if missing(mine) or missing(other):
            return None
        return answered.difference(str(mine), str(other), self.asked.get(base["run_id"], []))


def difference(
    run: Row, base: Row, nll: dict[str, NDArray[np.float32]], lengths: dict[str, list[int]]
) -> Difference:
    """How the scores of a run differ from those of another on the same tokens.

    Args:
        run: Its columns.
        base: Those of the other.
        nll: Nats of every scored token, by run.
        lengths: Scored tokens of every document, by run.
    """
    mine, other = (nll.get(row["run_id"]) for row in (run, base))
    if mine is None or other is None or len(mine) != len(other):
        apart = number(run["nll_nats"]) - number(base["nll_nats"])
        return Difference(Interval(apart), math.nan, "no scores of single tokens are kept")
    documents = lengths.get(base["run_id"], [])
    if sum(documents) != len(mine):
        documents = [len(mine)]
    with np.errstate(invalid="ignore"):  # infinite in both
        return statistics.difference(mine.astype(np.float64) - other, documents)


def _unequal(row: Row, base: Row) -> str:
    """How a row's budget differs, in words."""
    if row["budget"] == "none":
        return "no budget"
    if by_bytes(row) or by_bytes(base):
        return f"other budget: {_size(row)} against {_size(base)}"
    mean = f", {row['attended_keys_mean']:,.0f} on average," if saw_tooths(row) else ""
    alike = "as many at most, but fewer on average: " if keys_of(row) == keys_of(base) else ""
    return f"other budget: {alike}{keys_of(row):,} keys{mean} against {keys_of(base):,}"


def _size(row: Row) -> str:
    return f"{row['budget_mib']:.4g} MiB" if by_bytes(row) else f"{keys_of(row):,} keys"


def keys_of(row: Row) -> int:
    """The most keys that a run's queries see."""
    return int(row["attended_keys"])


def speed_up(
    run: Row, base: Row, times: Times, base_times: Times, *, apart: bool = False
) -> tuple[Interval | None, int]:
    """Time of ``base`` over that of ``run``, and how many repeats its interval is made of.

    By rounds, or by repeats made ``apart``; without an interval where there are few, and then of
    their medians. None where clocks differ, or nothing was timed.
    """
    if not (same_clock(run, base) and times.every and base_times.every):
        return None, 0
    if apart:
        found = statistics.independent_ratio(base_times.every, times.every)
        return found, min(len(times.every), len(base_times.every)) if found.known else 0
    shared = [each for each in times.rounds if each in base_times.rounds]
    if len(shared) < statistics.ROUNDS:
        return Interval(base_times.median / times.median), 0
    over, under = ([each.rounds[turn] for turn in shared] for each in (base_times, times))
    return statistics.ratio(over, under), len(shared)


def other_clocks(run: Row, base: Row) -> str:
    """Why times can't be compared; empty where they can."""
    other = [name for name in CLOCK if not same(run, base, name)]
    differing = [f"{name} {base[name]} against {run[name]}" for name in other]
    return f"times not compared: {', '.join(differing)}" if differing else ""


def _configuration(row: Row) -> tuple[str, ...]:
    """What a configuration is at any commit; its key changes when a field is added."""
    names = [name for name in RunConfig.names() if name not in UNMEASURED]
    known = {name: str(row[name]) for name in (*names, *HASHES)}
    older = {name: str(LATER[name]) for name in LATER if missing(row[name])}
    return tuple({**known, **older}.values())


def same(run: Row, base: Row, name: str) -> bool:
    """Whether two runs have one value in a column."""
    return str(run[name]) == str(base[name])


def _short(row: Row) -> str:
    return str(row["tokens_sha256"])[:10]
