"""The table of benchmarks: every arm of ``streamcli bench`` is a row of it."""

from __future__ import annotations

from typing import Any

from streamcli.results import ulid
from streamcli.results.values import now, plain


def named(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows to be recorded, each by the names of the columns, with their names and the time."""
    at = now()
    return [
        {
            "benchmark_id": ulid.new(),
            "created_at": at,
            **{name: plain(name, value) for name, value in row.items()},
        }
        for row in rows
    ]
