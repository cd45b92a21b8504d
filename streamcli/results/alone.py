"""Rows that stand alone, and belong to no run: the arms of ``streamcli bench``, and every probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

from streamcli.results import ulid
from streamcli.results.schema import Benchmark, Probe
from streamcli.results.values import now, plain

if TYPE_CHECKING:
    from streamcli.results.store import Store


def record(
    store: Store, table: type[Benchmark] | type[Probe], rows: list[dict[str, Any]]
) -> list[str]:
    """Add rows, each by the names of the columns; their names, given here, are returned."""
    at, key = now(), next(iter(table.model_fields))
    named = [
        {
            key: ulid.new(),
            "created_at": at,
            **{name: plain(name, value) for name, value in row.items()},
        }
        for row in rows
    ]
    with store.transaction(writes=True) as connection:
        connection.execute(insert(table), named)
    return [str(row[key]) for row in named]
