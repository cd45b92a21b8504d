"""Reading the finished runs that tell what a sweep may take."""

from __future__ import annotations

from streamcli.analysis.history import NEEDED, History
from streamcli.results import frames
from streamcli.results.store import Store


def read(store: Store, models: list[str], host: str) -> History:
    """The runs of ``models`` on one machine, by the name that was asked for or that really ran."""
    return History.of(frames.rows(store, NEEDED, sort="-run_id", model=models, host=host))
