"""Queries: runs and their documents as pandas frames. Every condition is the database's to check.

Whole numbers come as ``Int64``, flags as ``boolean``, both with ``pandas.NA`` where there is none;
other numbers as ``float64`` with NaN, text as ``object`` with None.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Float,
    Integer,
    Row,
    Select,
    and_,
    func,
    literal,
    or_,
    select,
)

from core.errors import UsageError, unknown
from streamcli.results import values
from streamcli.results.columns import SAME_RUN
from streamcli.results.schema import DOCUMENTS, RUNS
from streamcli.results.store import Store

if TYPE_CHECKING:
    import pandas as pd

Filter: TypeAlias = str | int | float | Sequence[str] | Sequence[int] | None
NEWEST_FIRST = "-created_at"
KEY = "config_key"  # which repeats share
BATCH = 10_000  # names in a query; SQLite takes 32,766


def runs(
    store: Store,
    *,
    status: Filter = "done",
    since: str | datetime | None = None,
    limit: int | None = None,
    sort: str | None = None,
    columns: Sequence[str] | None = None,
    **where: Filter,
) -> pd.DataFrame:
    """The runs that meet every condition, newest first; an empty frame where none does.

    Args:
        store: The opened database.
        status: A status or several; None for every run, however it ended.
        since: Only runs begun at or after this time, ISO 8601; UTC where it names no zone.
        limit: At most so many, the first ones of the order.
        sort: A column to sort by, smallest first, or ``-column``, largest first; empty cells last.
        columns: What to give, in this order; None for every column, in the schema's order.
        **where: A column and the value, or values, that it must have, such as
            ``method=("streaming", "window")`` or ``config_key="…"``; None for any. A model or
            text is found by the name that it was asked for, too. Also ``commit``, the beginning of
            a git commit, and ``tag``, one of a run's tags.

    Raises:
        UsageError: No such column, or no such time.
    """
    chosen = [_column(name) for name in columns or RUNS.columns.keys()]
    query = select(*chosen).order_by(*_order(sort or NEWEST_FIRST)).limit(limit)
    query = query.where(*_conditions(since, {"status": status, **where}))
    return _frame(store, query, chosen)


def rows(
    store: Store,
    columns: Sequence[str],
    *,
    since: str | datetime | None = None,
    sort: str | None = None,
    **where: Filter,
) -> Sequence[Row[Any]]:
    """These columns of the finished runs that meet every condition, without pandas: for many.

    In no order where ``sort`` names none.
    """
    query = select(*(_column(name) for name in columns))
    if sort:
        query = query.order_by(*_order(sort))
    return store.read(query.where(*_conditions(since, {"status": "done", **where})))


def repeats(
    store: Store,
    run_ids: Sequence[str],
    same: Sequence[str],
    columns: Sequence[str],
    *,
    since: str | datetime | None = None,
    **where: Filter,
) -> Iterator[Row[Any]]:
    """These columns of the finished runs that are alike, after the name of what they are alike to.

    Args:
        store: The opened database.
        run_ids: Runs, themselves among the finished ones or not.
        same: Columns in which others must have what these have.
        columns: What to give.
        since: See ``runs``.
        **where: What the others must meet; see ``runs``.

    Raises:
        UsageError: No such column, or no such time.
    """
    of = RUNS.alias()
    alike = [of.c[name].is_not_distinct_from(RUNS.c[name]) for name in same]
    alike.append(of.c[KEY] == RUNS.c[KEY])  # by which servers find them
    alike += _conditions(since, {"status": "done", **where})
    # An outer join, since of an inner one SQLite may read all runs first.
    query = select(of.c.run_id, *(_column(name) for name in columns))
    query = query.add_columns(RUNS.c.run_id.label("other"))
    query = query.select_from(of.outerjoin(RUNS, and_(*alike)))
    for first in range(0, len(run_ids), BATCH):
        rows = store.read(query.where(of.c.run_id.in_(run_ids[first : first + BATCH])))
        yield from (row for row in rows if row[-1] is not None)


def latest(
    store: Store,
    *,
    limit: int | None = None,
    since: str | datetime | None = None,
    sort: str | None = None,
    **where: Filter,
) -> pd.DataFrame:
    """The latest finished run of each configuration that meets every condition, newest first.

    Repeats are runs of one configuration on the same model files, tokens and machine; the column
    ``runs`` says how many there are. Made for databases of many runs: it reads the rows it gives.

    Args:
        store: The opened database.
        limit: At most so many, the first ones of the order.
        since: See ``runs``.
        sort: See ``runs``.
        **where: See ``runs``.

    Raises:
        UsageError: No such column, or no such time.
    """
    same = [RUNS.c[name] for name in SAME_RUN]
    newest = func.max(RUNS.c.run_id).label("newest")
    groups = select(newest, func.count().label("runs")).group_by(*same)
    groups = groups.where(*_conditions(since, {"status": "done", **where}))
    if not sort:  # the newest are known before their rows are read
        groups = groups.order_by(newest.desc()).limit(limit)
    chosen = groups.subquery()
    query = select(RUNS, chosen.c.runs).join(chosen, RUNS.c.run_id == chosen.c.newest)
    query = query.order_by(*_order(sort or "-run_id")).limit(limit)
    return _frame(store, query, [*RUNS.columns, Column("runs", Integer())])


def of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Runs that are at hand, each by column name, as ``runs`` would give them, in their order."""
    names = [column.name for column in RUNS.columns]
    cells = [[row[name] for name in names] for row in rows]
    return _framed(cells, list(RUNS.columns))


def documents(store: Store, run_ids: Iterable[str]) -> pd.DataFrame:
    """The documents of these runs in reading order, run by run; ``nll_nats`` is a sum."""
    mine = DOCUMENTS.c.run_id.in_(list(run_ids))
    query = select(DOCUMENTS).where(mine).order_by(DOCUMENTS.c.run_id, DOCUMENTS.c.position)
    return _frame(store, query, list(DOCUMENTS.columns))


def _column(name: str, kind: str = "column") -> Column[Any]:
    if name not in RUNS.columns:
        raise unknown(kind, name, RUNS.columns.keys(), "or another one of docs/schema.md")
    return RUNS.columns[name]


def _conditions(
    since: str | datetime | None, where: dict[str, Filter]
) -> list[ColumnElement[bool]]:
    """What rows must meet; ``commit`` is the beginning of one, ``tag`` one of several."""
    found = []
    for name, wanted in where.items():
        if wanted is None:
            continue
        if name == "commit":
            found.append(RUNS.c.git_commit.startswith(str(wanted), autoescape=True))
        elif name == "tag":
            words = literal(" ") + RUNS.c.tags + " "
            found.append(words.contains(f" {wanted} ", autoescape=True))
        elif name in ("model", "dataset"):  # by the name that it was asked for as well
            both = (RUNS.c[name], RUNS.c[f"requested_{name}"])
            found.append(or_(*(_among(column, wanted) for column in both)))
        else:
            found.append(_among(_column(name), wanted))
    if since is not None:
        found.append(RUNS.c.created_at >= _moment(since))
    return found


def _among(column: Column[Any], wanted: Filter) -> ColumnElement[bool]:
    several = [wanted] if isinstance(wanted, str | int | float) else list(wanted or ())
    return column.in_([values.plain(column.name, value) for value in several])


def _order(sort: str) -> tuple[ColumnElement[Any], ...]:
    key = _column(sort.removeprefix("-"), "sort key")
    if sort.startswith("-"):
        return key.desc().nulls_last(), RUNS.c.run_id.desc()
    return key.asc().nulls_last(), RUNS.c.run_id.asc()


def _moment(since: str | datetime) -> str:
    if isinstance(since, datetime):
        return values.stamp(since)
    try:
        return values.stamp(datetime.fromisoformat(since.strip()))
    except ValueError as problem:
        raise UsageError(
            f"{since!r} is not a time: write 2026-01-31, or 2026-01-31T12:00 (UTC)."
        ) from problem


def _frame(store: Store, query: Select[Any], columns: Sequence[Column[Any]]) -> pd.DataFrame:
    return _framed(store.read(query), columns)


def _framed(rows: Sequence[Sequence[Any]], columns: Sequence[Column[Any]]) -> pd.DataFrame:
    import pandas as pd

    cells = zip(*rows, strict=True) if rows else [()] * len(columns)
    return pd.DataFrame(
        {
            column.name: pd.Series(list(values), dtype=_dtype(column))
            for column, values in zip(columns, cells, strict=True)
        }
    )


def _dtype(column: Column[Any]) -> str:
    kinds = ((Boolean, "boolean"), (Integer, "Int64"), (Float, "float64"))
    return next((dtype for kind, dtype in kinds if isinstance(column.type, kind)), "object")
