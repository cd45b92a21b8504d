"""From recorded runs to paired comparisons: one run against another, token by token.

Reads from the database no more than the runs at hand need: their scores, where their documents
end, and the times of their repeats. A repeat is a run of the same configuration at the same commit;
a round is what one sweep ran in turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median as median_of
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.config import RunConfig
from core.errors import UsageError
from streamcli.analysis import statistics
from streamcli.analysis.comparison import Comparison, Row, number, saw_tooths, time_column
from streamcli.analysis.statistics import Difference, Interval
from streamcli.results import frames
from streamcli.results.schema import SAME_RUN
from streamcli.results.store import Store

Round: TypeAlias = tuple[str, int]
Planned: TypeAlias = tuple[Row, Row | None, str]  # a run, what it is held against, and why not

REPEATED = (*SAME_RUN, "git_commit")
TIMED = (*REPEATED, "mode", "sweep", "repeat", "ms_per_token", "ms_per_token_p50")
# What must be equal where times are compared.
CLOCK = ("mode", "batch_size", "host", "device", "gpu", "threads")
UNMEASURED = ("source", "trust")  # of a configuration, what changes no figure


@dataclass(frozen=True)
class Times:
    """The times a token of a run and its repeats, in ms: all of them, and those of rounds."""

    every: list[float] = field(default_factory=list)
    rounds: dict[Round, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Their median, NaN where there are none."""
        return median_of(self.every) if self.every else math.nan


@dataclass(frozen=True)
class Pair:
    """A run, held against another where there is one.

    Attributes:
        run: Its columns.
        base: Those of the other; None where there is none.
        times: Of the run and its repeats.
        base_times: Of the other and its repeats.
        difference: In nats, the run less the other; None where there is no other.
        speed_up: Time of the other over the run's; None likewise, or where clocks differ.
        rounds: How many repeats the speed-up's interval is made of; 0 where it has none.
        why: What stands against comparing the two.
    """

    run: Row
    base: Row | None
    times: Times
    base_times: Times
    difference: Difference | None = None
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


def against_baseline(
    store: Store, found: Sequence[Comparison], where: dict[str, Any], *, across: bool = False
) -> list[Paired]:
    """Hold every row against the baseline with the same budget.

    Args:
        store: The opened database.
        found: The comparisons to show.
        where: The conditions that repeats must meet, as ``frames.runs`` takes them.
        across: Whether rows of another budget are compared too, with the nearest baseline.
    """
    plans = [_plan(comparison, across) for comparison in found]
    measured = _Measured.read(store, [each for plan in plans for each in plan], where)
    return [
        Paired(comparison, [measured.pair(*each) for each in plan])
        for comparison, plan in zip(found, plans, strict=True)
    ]


def against_commit(
    store: Store, before: str, after: str, where: dict[str, Any]
) -> tuple[list[Pair], int]:
    """Hold each configuration's runs at one commit against those at another.

    Returns:
        The pairs, newest first, and how many configurations ran at one of the two only.

    Raises:
        UsageError: A commit has no finished run, or no configuration ran at both.
    """
    sides = []
    for commit in (before, after):
        rows = frames.latest(store, **{**where, "commit": commit}).to_dict("records")
        if not rows:
            raise UsageError(
                f"{store.place} has no finished run of commit {commit!r} that matches."
            )
        sides.append({_configuration(row): row for row in reversed(rows)})
    olds, news = sides
    both = [key for key in reversed(news) if key in olds]
    if not both:
        raise UsageError(
            f"no configuration was run on the same tokens at both commits: {len(olds)} ran at "
            f"{before}, {len(news)} others at {after}."
        )
    if any(news[key]["run_id"] == olds[key]["run_id"] for key in both):
        raise UsageError(f"{before!r} and {after!r} are one commit: name two.")
    plan: list[Planned] = [(news[key], olds[key], _clocks(news[key], olds[key])) for key in both]
    measured = replace(_Measured.read(store, plan, where), apart=True)
    return [measured.pair(*each) for each in plan], len(olds) + len(news) - 2 * len(both)


def of_two(store: Store, before: str, after: str) -> Pair:
    """Hold one run against another, each alone, whatever repeats there are.

    Args:
        store: The opened database.
        before: The name of the run to hold against, its beginning, or ``latest``.
        after: That of the other.

    Raises:
        UsageError: No such run, one that is not done, the same one, or one of other tokens.
    """
    names = [store.get(which).run_id for which in (before, after)]
    found = frames.runs(store, run_id=names, status=None).to_dict("records")
    by_name = {row["run_id"]: row for row in found}
    base, run = (by_name[name] for name in names)
    for row in (base, run):
        if row["status"] != "done":
            raise UsageError(
                f"run {row['run_id']} is {row['status']}: only finished runs are compared."
            )
    if run is base:
        raise UsageError(f"{before!r} and {after!r} are both run {names[0]}: name two.")
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
    plan: Planned = (run, base, _clocks(run, base))
    return _Measured.read(store, [plan], None).pair(*plan)


@dataclass(frozen=True)
class _Measured:
    """What was read of some runs: scores and lengths of documents by run, times by repeats.

    ``apart`` tells that the two runs of a pair were made at different times, each with its repeats;
    ``alone`` that each is taken without them, even where one is a repeat of the other.
    """

    nll: dict[str, NDArray[np.float32]]
    lengths: dict[str, list[int]]
    times: dict[tuple[Any, ...], Times]
    apart: bool = False
    alone: bool = False

    @classmethod
    def read(cls, store: Store, plan: Iterable[Planned], where: dict[str, Any] | None) -> _Measured:
        """Read once for all; ``where`` is None where each run stands alone."""
        plan = list(plan)
        held = [(run, base) for run, base, _ in plan if base and base is not run]
        nll = store.nll(row["run_id"] for pair in held for row in pair)
        lengths: dict[str, list[int]] = {}
        documents = frames.documents(store, {base["run_id"] for _, base in held})
        for run_id, tokens in zip(documents["run_id"], documents["scored_tokens"], strict=True):
            lengths.setdefault(run_id, []).append(int(tokens))
        rows = [row for run, base, _ in plan for row in (run, base) if row]
        if where is None:
            return cls(nll, lengths, {(row["run_id"],): _alone(row) for row in rows}, alone=True)
        return cls(nll, lengths, _times(store, rows, where))

    def _key(self, row: Row) -> tuple[Any, ...]:
        return (row["run_id"],) if self.alone else tuple(row[name] for name in REPEATED)

    def pair(self, run: Row, base: Row | None, why: str) -> Pair:
        """Hold ``run`` against ``base``."""
        times = self.times.get(self._key(run), Times())
        if base is None or base is run:
            return Pair(run, base, times, times, why=why)
        base_times = self.times.get(self._key(base), Times())
        speed_up, rounds = None, 0
        if all(same(run, base, name) for name in CLOCK) and times.every and base_times.every:
            speed_up, rounds = _speed_up(times, base_times, self.apart)
        difference = self._difference(run, base)
        return Pair(run, base, times, base_times, difference, speed_up, rounds, why)

    def _difference(self, run: Row, base: Row) -> Difference:
        mine, other = (self.nll.get(row["run_id"]) for row in (run, base))
        if mine is None or other is None or len(mine) != len(other):
            apart = number(run["nll_nats"]) - number(base["nll_nats"])
            return Difference(Interval(apart), math.nan, "no scores of single tokens are kept")
        lengths = self.lengths.get(base["run_id"], [])
        if sum(lengths) != len(mine):
            lengths = [len(mine)]
        with np.errstate(invalid="ignore"):  # infinite in both
            return statistics.difference(mine.astype(np.float64) - other, lengths)


def _plan(comparison: Comparison, across: bool) -> list[Planned]:
    """Each row, what it is held against, and why it is not."""
    rows: list[Row] = comparison.runs.to_dict("records")
    by_name = {row["run_id"]: row for row in rows}
    bases = [row for row in rows if row["method"] == comparison.baseline]
    plan: list[Planned] = []
    for row in rows:
        held = by_name.get(row["baseline_run_id"])
        if held and (row["budget"] == "equal" or row["method"] == comparison.baseline):
            plan.append((row, held, ""))
        elif not bases:
            plan.append((row, None, f"no {comparison.baseline} run"))
        else:
            nearest = min(bases, key=lambda base: abs(math.log(keys_of(base) / keys_of(row))))
            plan.append((row, nearest if across else None, _unequal(row, nearest)))
    return plan


def _unequal(row: Row, base: Row) -> str:
    """How a row's budget differs, in words."""
    if row["budget"] == "none":
        return "no budget"
    mean = f", {row['attended_keys_mean']:,.0f} on average," if saw_tooths(row) else ""
    return f"other budget: {keys_of(row):,} keys{mean} against {keys_of(base):,}"


def keys_of(row: Row) -> int:
    """The most keys that a run's queries see."""
    return int(row["attended_keys"])


def _alone(row: Row) -> Times:
    value = number(row[time_column(row["mode"])])
    return Times([value] if value > 0 else [])


def _times(store: Store, rows: list[Row], where: dict[str, Any]) -> dict[tuple[Any, ...], Times]:
    keys = list({row["config_key"] for row in rows})
    found: Iterable[Any] = frames.rows(store, TIMED, config_key=keys, **where)
    times: dict[tuple[Any, ...], Times] = {}
    for *repeated, mode, sweep, turn, mean, median in found:  # there may be a great many
        value = number(mean if time_column(mode) == "ms_per_token" else median)
        if value > 0:
            mine = times.setdefault(tuple(repeated), Times())
            mine.every.append(value)
            if sweep:
                mine.rounds.setdefault((sweep, int(turn)), value)
    return times


def _speed_up(times: Times, base_times: Times, apart: bool) -> tuple[Interval, int]:
    """By rounds, or by repeats made ``apart``; without an interval where there are few."""
    if apart:
        found = statistics.independent_ratio(base_times.every, times.every)
        return found, min(len(times.every), len(base_times.every)) if found.known else 0
    shared = [each for each in times.rounds if each in base_times.rounds]
    if len(shared) < statistics.ROUNDS:
        return Interval(base_times.median / times.median), 0
    over, under = ([each.rounds[turn] for turn in shared] for each in (base_times, times))
    return statistics.ratio(over, under), len(shared)


def _clocks(run: Row, base: Row) -> str:
    """Why times can't be compared; empty where they can."""
    other = [name for name in CLOCK if not same(run, base, name)]
    told = [f"{name} {base[name]} against {run[name]}" for name in other]
    return f"times not compared: {', '.join(told)}" if told else ""


def _configuration(row: Row) -> tuple[str, ...]:
    """What a configuration is at any commit; its key changes when a field is added."""
    names = [name for name in RunConfig.names() if name not in UNMEASURED]
    hashes = ("weights_sha256", "files_sha256", "tokens_sha256")
    return tuple(str(row[name]) for name in (*names, *hashes))


def same(run: Row, base: Row, name: str) -> bool:
    """Whether two runs have one value in a column."""
    return str(run[name]) == str(base[name])


def _short(row: Row) -> str:
    return str(row["tokens_sha256"])[:10]
