"""What a report shows: the runs that were asked for, compared where they may be, and in order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from core.config import LARGEST
from core.errors import UsageError, unknown
from streamcli.analysis import paired
from streamcli.analysis.comparison import (
    TIMES,
    Comparison,
    Row,
    compared,
    comparisons,
    groups,
    number,
    time_column,
    told_apart,
)
from streamcli.analysis.repeats import TIMED, Key, Times, key, timed, times
from streamcli.analysis.statistics import EQUAL, Difference
from streamcli.results.columns import ADDED, COLUMNS, STATUSES

if TYPE_CHECKING:
    import pandas as pd

LIMIT = 500  # configurations, about what a person would still scroll through
ANY = "any"
CHANGE = tuple(name for name in ADDED if name.startswith("ppl_change"))


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
                raise unknown("column", name, known, "or another one of docs/schema.md")
        if self.group_by and {*self.columns} == {self.group_by}:
            raise UsageError(
                f"--columns is {self.group_by} alone, which --group-by makes the title of each "
                "table: name others too."
            )
        if not 0 <= self.limit <= LARGEST // 4:  # four times as many are suggested
            raise UsageError(
                f"--limit is {self.limit}: it must be from 1 to {LARGEST // 4:,}, or 0 for all."
            )

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

    @property
    def intervals(self) -> bool:
        """Whether changes of perplexity are shown, or sorted by."""
        names = {*self.columns, (self.sort or "").removeprefix("-")}
        return not self.columns or bool(names & {*CHANGE, "clusters"})


@dataclass(frozen=True)
class Selection:
    """What was found.

    Attributes:
        rows: All rows in order, with the columns ``ADDED`` but in a list of runs.
        comparisons: The same rows, side by side; none in a list of runs.
        whole: Each of them with the baselines that were not asked for, to draw conclusions from.
        more: Whether the limit left something out.
        tables: How many comparisons there are, with those that are not here.
        times: The times of rows with repeats.
    """

    rows: pd.DataFrame
    comparisons: list[Comparison]
    whole: list[Comparison]
    more: bool
    tables: int = 0
    times: Mapping[Key, Times] = field(default_factory=dict)


def listed(runs: pd.DataFrame, query: Query) -> Selection:
    """Runs one by one, however they ended; ``runs`` may hold one more than the limit."""
    return Selection(first(runs, query), [], [], more(runs, query))


def side_by_side(
    asked: pd.DataFrame, bases: pd.DataFrame, query: Query, baseline: str
) -> tuple[list[Comparison], int]:
    """Runs with those that they may be compared with, and how many comparisons there are in all.

    Args:
        asked: The latest run of each configuration that was asked for.
        bases: Runs of the baseline that were not asked for.
        query: What was asked for.
        baseline: The method that the others are held against.
    """
    import pandas as pd

    every = pd.concat([asked, bases]) if len(bases) else asked
    wanted = set(asked["run_id"])
    found = [each for each in groups(every) if wanted & set(each["run_id"])]
    shown = [compared(each, baseline) for each in found[: query.tables or None]]
    return told_apart(shown), len(found)


def compared_in(
    asked: pd.DataFrame, whole: list[Comparison], query: Query, *, more: bool, tables: int
) -> Selection:
    """What was asked for, out of comparisons, in order.

    Args:
        asked: The latest run of each configuration that was asked for.
        whole: The comparisons that hold them, and their baselines.
        query: What was asked for.
        more: Whether the limit left something out.
        tables: How many comparisons there are in all.
    """
    import pandas as pd

    wanted = set(asked["run_id"])
    parts = [_part(each, wanted, query.sort) for each in whole]
    rows = (
        pd.concat([part.runs for part in parts]) if parts else asked.assign(**dict.fromkeys(ADDED))
    )
    return Selection(_sorted(rows, query.sort), parts, whole, more, tables)


def held(comparison: Comparison) -> list[tuple[Row, Row]]:
    """Each row with the baseline that its change is against, but for baselines themselves."""
    rows: list[Row] = comparison.rows
    by_name = {row["run_id"]: row for row in rows}
    pairs = [(row, by_name.get(row["baseline_run_id"])) for row in rows]
    return [(row, base) for row, base in pairs if base and base is not row]


def change(difference: Difference) -> dict[str, Any]:
    """The interval of a change of perplexity, as a fraction, and what it is over."""
    nats, over = difference.nats, difference.clusters
    if difference.equal:
        return {"clusters": f"equal to {EQUAL:g} nats on every token"}
    if not nats.known:
        return {"clusters": over}
    low, high = (math.expm1(min(end, 700)) for end in (nats.low, nats.high))
    return {"ppl_change_low": low, "ppl_change_high": high, "clusters": over}


def with_speed_ups(comparison: Comparison, times: Mapping[Key, Times]) -> Comparison:
    """A comparison whose speed-ups are those that a paired comparison of the repeats gives."""
    found = {}
    for row, base in held(comparison):
        mine, other = (times.get(key(each)) for each in (row, base))
        if mine and other:
            faster, _ = paired.speed_up(row, base, mine, other)
            found[row["run_id"]] = faster.estimate if faster else math.nan
    known = comparison.runs["run_id"].map(found)
    speed_ups = known.where(known.notna(), comparison.runs["speed_up"])
    return replace(comparison, runs=comparison.runs.assign(speed_up=speed_ups))


def of_repeats(runs: pd.DataFrame) -> list[Comparison]:
    """Runs that were just made, newest first, as a report has them: times are of all repeats."""
    found = times(runs[list(TIMED)].itertuples(index=False, name=None))
    shown = []
    for each in comparisons(timed(runs, found)):
        counts = [max(1, len(found.get(key(row), Times()).every)) for row in each.rows]
        counted = replace(each, runs=each.runs.assign(runs=counts))
        shown.append(with_speed_ups(counted, found))
    return shown


def with_changes(runs: pd.DataFrame, found: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Runs with what ``change`` found of them, by name."""
    mine = [found.get(name, {}) for name in runs["run_id"]]
    ends = {name: [number(each.get(name)) for each in mine] for name in CHANGE[1:]}
    return runs.assign(**ends, clusters=[each.get("clusters") for each in mine])


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
    values = runs[name]
    if name in TIMES and "compared_ms" in runs:  # as tables show it, by the rule on repeats
        own = runs["mode"].map(time_column) == name
        values = values.mask(own, runs["compared_ms"])
    ascending = not (sort or "").startswith("-")
    order = values.reset_index(drop=True).sort_values(ascending=ascending, kind="stable").index
    return runs.iloc[order]
