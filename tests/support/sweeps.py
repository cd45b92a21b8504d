"""Small sweeps of the bundled model, as they are typed, and the runs that they record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamcli.results import frames
from streamcli.results.store import Store

TINY = ("sweep", "--models", "bundled", "--datasets", "bundled-narrative", "--max-tokens", "60")
CHUNKED = (*TINY, "--modes", "chunked", "--windows", "20")
TWO = (*CHUNKED, "--methods", "streaming", "window")


def rows(db: str | Path = "data/streamcli.db") -> Any:
    """All runs, whatever became of them, the oldest first."""
    return frames.runs(Store.open(db), status=None, sort="run_id")
