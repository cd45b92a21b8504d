"""Reading what a report shows: runs, the baselines they lack, their repeats and intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core.registry import BASELINE
from streamcli.analysis import repeats, selection
from streamcli.analysis.comparison import Row, rows_of
from streamcli.analysis.repeats import Key, Times
from streamcli.analysis.selection import ANY, LIMIT, Query, Selection
from streamcli.jobs import scores
from streamcli.results import frames
from streamcli.results.store import Store

if TYPE_CHECKING:
    import pandas as pd


def select(
    store: Store, query: Query, baseline: str = BASELINE, *, figures: bool = True
) -> Selection:
    """The runs that ``query`` asks for, held against the method ``baseline``.

    Args:
        store: The opened database.
        query: What is asked for.
        baseline: The method that the others are held against.
        figures: Whether rows have the times of their repeats, and changes their intervals; where
            both are measured pair by pair anyway, they need not.

    Raises:
        UsageError: No such time.
    """
    most = query.limit + 1 if query.limit else None  # one more tells whether there are more
    if query.lists:
        status = None if query.status == ANY else query.status
        sort = query.stored_sort
        runs = frames.runs(store, status=status, sort=sort, limit=most, **query.where)
        return selection.listed(runs, query)
    runs = frames.latest(store, sort=query.stored_sort, limit=most, **query.where)
    asked, more = selection.first(runs, query), selection.more(runs, query)
    lacking = more or "method" in query.where
    bases = _bases(store, query, asked, baseline) if lacking else asked.iloc[:0]
    found: dict[Key, Times] = {}
    if figures:
        several = [each[each["runs"] > 1] for each in (asked, bases)]
        for each in several:
            found |= times(store, each, query.where) if len(each) else {}
        asked, bases = (repeats.timed(each, found) for each in (asked, bases))
    whole, tables = selection.side_by_side(asked, bases, query, baseline)
    if found:
        whole = [selection.with_speed_ups(each, found) for each in whole]
    if figures and query.intervals:
        whole = scores.with_intervals(store, whole, asked["run_id"])
    shown = selection.compared_in(asked, whole, query, more=more, tables=tables)
    return replace(shown, times=found)


def times(store: Store, runs: pd.DataFrame, where: dict[str, Any]) -> dict[Key, Times]:
    """The times of these runs and of their repeats, which meet the same conditions.

    Args:
        store: The opened database.
        runs: Latest runs, as ``frames.latest`` gives them.
        where: The conditions; that on the method adds nothing.
    """
    return times_of(store, rows_of(runs[["run_id", *repeats.REPEATED]]), where)


def times_of(store: Store, rows: Iterable[Row], where: dict[str, Any]) -> dict[Key, Times]:
    """The times of these rows, by column name, and of their repeats; see ``times``."""
    names = {repeats.key(row): row["run_id"] for row in rows}  # each once
    alike = {name: value for name, value in where.items() if name != "method"}
    ids = list(names.values())
    found = frames.repeats(store, ids, repeats.REPEATED, repeats.TIME, **alike)
    return repeats.times(found, {run_id: key for key, run_id in names.items()})


def _bases(store: Store, query: Query, asked: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The baselines of the rows ``asked`` for that are not among them, the newest ``LIMIT``."""
    import pandas as pd

    same = {name: asked[name].dropna().unique().tolist() for name in ("tokens_sha256", "model")}
    same |= query.where | {"method": baseline}
    most = LIMIT if query.limit else None
    sizes = {"attended_keys": [int(keys) for keys in asked["attended_keys"].dropna().unique()]}
    if mib := asked["budget_mib"].dropna().unique().tolist():  # equal, whatever keys they hold
        sizes["budget_mib"] = mib
    parts = [frames.latest(store, limit=most, **{**same, name: of}) for name, of in sizes.items()]
    found = pd.concat(parts) if len(parts) > 1 else parts[0]
    found = found.drop_duplicates("run_id").sort_values("run_id", ascending=False)
    return found[~found["run_id"].isin(asked["run_id"])]
