"""The table of benchmarks: every arm of ``streamcli bench`` is a row of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

from streamcli.results import ulid
from streamcli.results.schema import Benchmark
from streamcli.results.values import now, plain

if TYPE_CHECKING:
    from streamcli.results.store import Store


def record(store: Store, rows: list[dict[str, Any]]) -> None:
    """Add rows, each by the names of the columns; their names and the time are given here."""
    at = now()
    named = [
        {
            "benchmark_id": ulid.new(),
            "created_at": at,
            **{name: plain(name, value) for name, value in row.items()},
        }
        for row in rows
    ]
    with store.transaction(writes=True) as connection:
        connection.execute(insert(Benchmark), named)
