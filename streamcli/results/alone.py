"""Rows that stand alone, and belong to no run: the arms of ``streamcli bench``, and every probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import insert

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


def record(store: Store, table: Alone, rows: list[dict[str, Any]]) -> list[str]:
    """Add rows; their names are returned."""
    made = named(table, rows)
    with store.transaction(writes=True) as connection:
        connection.execute(insert(table), made)
    return [str(next(iter(row.values()))) for row in made]
