"""Carrying out a comparison: what is read for it, held side by side, and judged.

No more is read than the runs at hand need: their scores, where their documents end, and the times
of their repeats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.errors import StreamError, UsageError
from streamcli.analysis import paired, published, repeats, selection, verdicts
from streamcli.analysis.comparison import Comparison, in_order, rows_of
from streamcli.analysis.paired import Measured, Pair, Paired, Planned
from streamcli.analysis.published import SeedTable
from streamcli.jobs import scores
from streamcli.jobs.database import unmatched
from streamcli.jobs.select import select, times_of
from streamcli.results import frames
from streamcli.results.store import Store


@dataclass(frozen=True)
class Methods:
    """Methods held against a baseline.

    Attributes:
        tables: The comparisons, mode by mode, the newest of each first.
        remarks: What else the reader must know: what was left out, and what to record.
    """

    tables: list[Paired]
    remarks: list[str]

    @property
    def pairs(self) -> list[Pair]:
        """The pairs of every table."""
        return [pair for table in self.tables for pair in table.pairs]


def methods(
    store: Store, where: dict[str, Any], baseline: str, *, across: bool, most: int
) -> Methods:
    """Hold every method against ``baseline``.

    Args:
        store: The opened database.
        where: The conditions that runs must meet, as ``frames.runs`` takes them.
        baseline: The method that the others are held against.
        across: Whether rows of another budget are compared too, with the nearest baseline.
        most: At most so many tables, the newest; 0 for all.
    """
    query = selection.Query(where=where, limit=selection.LIMIT if most else 0, tables=most)
    found = select(store, query, baseline, figures=False)
    whole = in_order(found.whole)
    if not whole:
        return Methods([], [unmatched(store, "finished run", where, "sweep")])
    alike = {name: value for name, value in where.items() if name != "method"}
    tables = against_baseline(store, whole, alike, across=across)
    remarks = [
        verdicts.missing(table.comparison, whole)
        for table in tables
        if baseline not in set(table.comparison.runs["method"])
    ]
    if len(tables) < found.tables or found.more:
        some = f", of the newest {query.limit} configurations" if found.more else ""
        remarks.append(
            f"the newest {len(tables)} of {found.tables} tables{some}: narrow down with --dataset, "
            "--model or --mode, or --limit 0 for all."
        )
    return Methods(tables, remarks)


def against_baseline(
    store: Store, found: Sequence[Comparison], where: dict[str, Any], *, across: bool = False
) -> list[Paired]:
    """Hold every row of these comparisons against the baseline with the same budget.

    Args:
        store: The opened database.
        found: The comparisons to show.
        where: The conditions that repeats must meet, as ``frames.runs`` takes them.
        across: See ``methods``.
    """
    plans = [paired.plan(comparison, across=across) for comparison in found]
    measured = _measured(store, [each for plan in plans for each in plan], where)
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
        rows = rows_of(frames.latest(store, **{**where, "commit": commit}))
        if not rows:
            raise UsageError(
                f"{store.place} has no finished run of commit {commit!r} that matches."
            )
        sides.append(rows)
    plan, alone = paired.at_both(*sides)
    if not plan:
        olds, news = (paired.configurations(rows) for rows in sides)
        raise UsageError(
            f"no configuration was run on the same tokens at both commits: {olds} ran at "
            f"{before}, {news} others at {after}."
        )
    if any(base and base["run_id"] == run["run_id"] for run, base, _ in plan):
        raise UsageError(f"{before!r} and {after!r} are one commit: name two.")
    measured = replace(_measured(store, plan, where), apart=True)
    return [measured.pair(*each) for each in plan], alone


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
    if names[0] == names[1]:
        raise UsageError(f"{before!r} and {after!r} are both run {names[0]}: name two.")
    rows = rows_of(frames.runs(store, run_id=names, status=None))
    by_name = {row["run_id"]: row for row in rows}
    plan = paired.of_two(*(by_name[name] for name in names))
    return _measured(store, [plan], None).pair(*plan)


def with_published(store: Store, where: dict[str, Any]) -> list[SeedTable]:
    """The tables of the seed report, each with the runs of this database that answer to it."""
    runs = frames.latest(store, **where)
    return published.seed_tables(runs, where.get("mode"), where.get("dataset"))


def refuse_losses(pairs: Iterable[Pair], threshold: float, asked: str, *, times: bool) -> None:
    """Refuse figures that got worse by more than a threshold.

    Args:
        pairs: The runs, each held against another.
        threshold: A fraction.
        asked: The threshold as it was typed.
        times: Whether a longer time is a loss, and not only a higher perplexity.

    Raises:
        StreamError: A figure got worse by more, or nothing could be compared.
    """
    held = [pair for pair in pairs if pair.difference and not pair.is_base]
    if not held:
        raise StreamError(f"nothing could be compared, so nothing passes --fail-above {asked}.")
    lost = [
        (by, what, pair.run)
        for pair in held
        for what, by in verdicts.losses(pair, times=times).items()
        if by > threshold
    ]
    if lost:
        by, what, run = max(lost, key=lambda each: each[0])
        budget = f"S={run['n_sink']} W={run['window']}"
        raise StreamError(
            f"{len(lost)} figure{'s' * (len(lost) > 1)} worse by more than {asked}; the worst: "
            f"{what} of {run['method']} ({budget}, {run['mode']}, {run['dataset']}), {by:+.1%}."
        )


def _measured(store: Store, plan: Sequence[Planned], where: dict[str, Any] | None) -> Measured:
    """What the runs of a plan measured, read once for all.

    Args:
        store: The opened database.
        plan: Which run is held against which.
        where: The conditions that repeats must meet; None where each run stands alone.
    """
    held = [(run, base) for run, base, _ in plan if base and base is not run]
    nll, lengths = scores.of_pairs(store, held)
    asked = scores.asked(store, held)
    rows = [row for run, base, _ in plan for row in (run, base) if row]
    if where is None:
        return Measured(nll, lengths, repeats.own_times(rows), asked, alone=True)
    return Measured(nll, lengths, times_of(store, rows, where), asked)
