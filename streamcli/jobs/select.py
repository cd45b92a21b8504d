"""Reading what a report shows: the runs that were asked for, and the baselines they lack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.registry import BASELINE
from streamcli.analysis import selection
from streamcli.analysis.selection import ANY, LIMIT, Query, Selection
from streamcli.results import frames
from streamcli.results.store import Store

if TYPE_CHECKING:
    import pandas as pd


def select(store: Store, query: Query, baseline: str = BASELINE) -> Selection:
    """The runs that ``query`` asks for, held against the method ``baseline``.

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
    return selection.compared_in(asked, bases, query, baseline, more=more)


def _bases(store: Store, query: Query, asked: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The baselines of the rows ``asked`` for that are not among them, the newest ``LIMIT``."""
    same = {name: asked[name].dropna().unique().tolist() for name in ("tokens_sha256", "model")}
    same["attended_keys"] = [int(keys) for keys in asked["attended_keys"].dropna().unique()]
    most = LIMIT if query.limit else None
    found = frames.latest(store, limit=most, **{**query.where, **same, "method": baseline})
    return found[~found["run_id"].isin(asked["run_id"])]
