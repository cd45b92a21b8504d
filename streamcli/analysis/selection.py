"""What a report shows: the runs that were asked for, compared where they may be, and in order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from core.errors import UsageError, unknown
from core.registry import BASELINE
from streamcli.analysis.comparison import Comparison, compared, groups
from streamcli.results import frames
from streamcli.results.columns import COLUMNS
from streamcli.results.schema import STATUSES
from streamcli.results.store import Store

if TYPE_CHECKING:
    import pandas as pd

LIMIT = 500  # configurations, about what a person would still scroll through
DERIVED = ("runs", "ppl_change", "speed_up", "compared_ms")  # what comparing adds to a run
ANY = "any"


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked for.

    Attributes:
        where: Conditions, as ``frames.runs`` takes them.
        status: None for the latest finished run of each configuration; a status, or ``any``, for
            every run that ended so.
        sort: A column, smallest first, or ``-column``; None for the newest first.
        columns: Columns to show; none for those that suit.
        group_by: The column whose every value has a table of its own.
        limit: At most so many rows; 0 for all.
        tables: At most so many comparisons, the newest; 0 for all.

    Raises:
        UsageError: No such column or status, or a negative limit.
    """

    where: dict[str, Any] = field(default_factory=dict)
    status: str | None = None
    sort: str | None = None
    columns: tuple[str, ...] = ()
    group_by: str | None = None
    limit: int = LIMIT
    tables: int = 0

    def __post_init__(self) -> None:
        if self.status not in (None, ANY, *STATUSES):
            raise unknown("status", str(self.status), (*STATUSES, ANY))
        known = (*COLUMNS, *(() if self.status else DERIVED))
        for name in (*self.columns, self.group_by, (self.sort or "").removeprefix("-")):
            if name and name not in known:
                raise unknown("column", name, known)
        if self.limit < 0:
            raise UsageError(f"--limit is {self.limit}: it must be 1 or more, or 0 for all.")

    @property
    def lists(self) -> bool:
        """Whether runs are listed one by one, however they ended."""
        return self.status is not None

    @property
    def compares(self) -> bool:
        """Whether the tables are comparisons, and not the columns that were asked for."""
        return not (self.lists or self.columns or self.group_by)


@dataclass(frozen=True)
class Selection:
    """What was found.

    Attributes:
        rows: All rows in order, with the columns ``DERIVED`` but in a list of runs.
        comparisons: The same rows, side by side; none in a list of runs.
        whole: Each of them with the baselines that were not asked for, to draw conclusions from.
        more: Whether the limit left something out.
        tables: How many comparisons there are, with those that are not here.
    """

    rows: pd.DataFrame
    comparisons: list[Comparison]
    whole: list[Comparison]
    more: bool
    tables: int = 0


def select(store: Store, query: Query, baseline: str = BASELINE) -> Selection:
    """The runs that ``query`` asks for, held against the method ``baseline``.

    Raises:
        UsageError: No such time.
    """
    import pandas as pd

    most = query.limit + 1 if query.limit else None  # one more tells whether there are more
    stored = None if (query.sort or "").removeprefix("-") in DERIVED else query.sort
    if query.lists:
        status = None if query.status == ANY else query.status
        runs = frames.runs(store, status=status, sort=stored, limit=most, **query.where)
        return Selection(_first(runs, query), [], [], _more(runs, query))
    runs = frames.latest(store, sort=stored, limit=most, **query.where)
    asked = _first(runs, query)
    more = _more(runs, query)
    lacking = more or "method" in query.where
    bases = _bases(store, query, asked, baseline) if lacking else asked.iloc[:0]
    every = pd.concat([asked, bases]) if len(bases) else asked
    wanted = set(asked["run_id"])
    found = [each for each in groups(every) if wanted & set(each["run_id"])]
    whole = [compared(each, baseline) for each in found[: query.tables or None]]
    parts = [_part(each, wanted, query.sort) for each in whole]
    rows = (
        pd.concat([part.runs for part in parts])
        if parts
        else asked.assign(**dict.fromkeys(DERIVED))
    )
    return Selection(_sorted(rows, query.sort), parts, whole, more, len(found))


def _first(runs: pd.DataFrame, query: Query) -> pd.DataFrame:
    return runs.iloc[: query.limit] if query.limit else runs


def _more(runs: pd.DataFrame, query: Query) -> bool:
    return bool(query.limit) and len(runs) > query.limit


def _bases(store: Store, query: Query, asked: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The baselines of the rows ``asked`` for that are not among them, the newest ``LIMIT``."""
    same = {name: asked[name].dropna().unique().tolist() for name in ("tokens_sha256", "model")}
    same["attended_keys"] = [int(keys) for keys in asked["attended_keys"].dropna().unique()]
    most = LIMIT if query.limit else None
    found = frames.latest(store, limit=most, **{**query.where, **same, "method": baseline})
    return found[~found["run_id"].isin(asked["run_id"])]


def _part(whole: Comparison, asked: set[str], sort: str | None) -> Comparison:
    """The rows of a comparison that were asked for, and how many older runs stand behind them."""
    runs = _sorted(whole.runs[whole.runs["run_id"].isin(asked)], sort)
    return replace(whole, runs=runs, older=int(runs["runs"].sum()) - len(runs))


def _sorted(runs: pd.DataFrame, sort: str | None) -> pd.DataFrame:
    name = (sort or "").removeprefix("-")
    if not name or name not in runs:
        return runs
    return runs.sort_values(
        name, ascending=not (sort or "").startswith("-"), na_position="last", kind="stable"
    )
