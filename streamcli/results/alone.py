"""Rows that stand alone, and belong to no run: the arms of ``streamcli bench``, and every probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import desc, select
from sqlmodel import SQLModel

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


def listed(store: Store, table: Alone) -> list[dict[str, Any]]:
    """Every row, the newest first."""
    rows = SQLModel.metadata.tables[str(table.__tablename__)]
    query = select(rows).order_by(desc(rows.c.created_at), desc(next(iter(rows.columns))))
    return [dict(row._mapping) for row in store.read(query)]
