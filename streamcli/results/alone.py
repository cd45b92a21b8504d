"""Rows that stand alone, and belong to no run: the arms of ``streamcli bench``, and every probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import desc, select
from sqlmodel import SQLModel

from core.errors import UsageError
from streamcli.results import ulid
from streamcli.results.schema import Benchmark, Probe
from streamcli.results.values import now, plain

if TYPE_CHECKING:
    from streamcli.results.store import Store


Alone: TypeAlias = type[Benchmark] | type[Probe]


def named(table: Alone, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows to be recorded, each by the names of the columns, with their names and the time."""
    at, key = now(), next(iter(table.model_fields))
    return [
        {
            key: ulid.new(),
            "created_at": at,
            **{name: plain(name, value) for name, value in row.items()},
        }
        for row in rows
    ]


def get(store: Store, table: Alone, which: str) -> dict[str, Any]:
    """The row of a name, of the beginning of one, or the ``latest``.

    Raises:
        UsageError: No row, or more than one.
    """
    from streamcli.results.store import LATEST

    rows, what = SQLModel.metadata.tables[str(table.__tablename__)], table.__name__.lower()
    command = "streamcli bench" if table is Benchmark else f"streamcli {what}"
    key = next(iter(rows.columns))
    query = select(rows).order_by(desc(rows.c.created_at), desc(key)).limit(2)
    if which != LATEST:
        query = query.where(key.startswith(which.upper(), autoescape=True))
    found = [dict(row._mapping) for row in store.read(query)]
    if not found and which == LATEST:
        raise UsageError(f"{store.place} has no {what} yet: record one with `{command}`.")
    if not found:
        raise UsageError(f"{store.place} has no {what} {which!r}: `{command} --list` shows them.")
    if len(found) > 1 and which != LATEST:
        raise UsageError(
            f"{store.place} has several {what}s that begin with {which!r}, such as "
            f"{found[0][key.name]} and {found[1][key.name]}: give more of the name."
        )
    return found[0]


def listed(store: Store, table: Alone) -> list[dict[str, Any]]:
    """Every row, the newest first."""
    rows = SQLModel.metadata.tables[str(table.__tablename__)]
    query = select(rows).order_by(desc(rows.c.created_at), desc(next(iter(rows.columns))))
    return [dict(row._mapping) for row in store.read(query)]
