"""What a report shows: the runs that were asked for, compared where they may be, and in order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from core.errors import UsageError, unknown
from streamcli.analysis.comparison import Comparison, compared, groups
from streamcli.results.columns import ADDED, COLUMNS, STATUSES

if TYPE_CHECKING:
    import pandas as pd

LIMIT = 500  # configurations, about what a person would still scroll through
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
        known = (*COLUMNS, *(() if self.status else ADDED))
        for name in (*self.columns, self.group_by, (self.sort or "").removeprefix("-")):
            if name and name not in known:
                raise unknown("column", name, known)
        if self.limit < 0:
            raise UsageError(f"--limit is {self.limit}: it must be 1 or more, or 0 for all.")

    @property
    def stored_sort(self) -> str | None:
        """The sort key as far as the database has it: not where comparing adds it."""
        return None if (self.sort or "").removeprefix("-") in ADDED else self.sort

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
        rows: All rows in order, with the columns ``ADDED`` but in a list of runs.
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


def listed(runs: pd.DataFrame, query: Query) -> Selection:
    """Runs one by one, however they ended; ``runs`` may hold one more than the limit."""
    return Selection(first(runs, query), [], [], more(runs, query))


def compared_in(
    asked: pd.DataFrame, bases: pd.DataFrame, query: Query, baseline: str, *, more: bool
) -> Selection:
    """Runs side by side with those that they may be compared with.

    Args:
        asked: The latest run of each configuration that was asked for.
        bases: Runs of the baseline that were not asked for.
        query: What was asked for.
        baseline: The method that the others are held against.
        more: Whether the limit left something out.
    """
    import pandas as pd

    every = pd.concat([asked, bases]) if len(bases) else asked
    wanted = set(asked["run_id"])
    found = [each for each in groups(every) if wanted & set(each["run_id"])]
    whole = [compared(each, baseline) for each in found[: query.tables or None]]
    parts = [_part(each, wanted, query.sort) for each in whole]
    rows = (
        pd.concat([part.runs for part in parts]) if parts else asked.assign(**dict.fromkeys(ADDED))
    )
    return Selection(_sorted(rows, query.sort), parts, whole, more, len(found))


def first(runs: pd.DataFrame, query: Query) -> pd.DataFrame:
    """As many runs as the limit allows."""
    return runs.iloc[: query.limit] if query.limit else runs


def more(runs: pd.DataFrame, query: Query) -> bool:
    """Whether there are more runs than the limit allows."""
    return bool(query.limit) and len(runs) > query.limit


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
