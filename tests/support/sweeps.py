"""Small sweeps of the bundled model, as they are typed, and the runs that they record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streamcli.results import frames
from streamcli.results.store import Store

TINY = ("sweep", "--models", "bundled", "--datasets", "bundled-narrative", "--max-tokens", "60")
CHUNKED = (*TINY, "--modes", "chunked", "--windows", "20")
TWO = (*CHUNKED, "--methods", "streaming", "window")


def rows(db: str | Path = "data/streamcli.db") -> Any:
    """All runs, whatever became of them, the oldest first."""
    return frames.runs(Store.open(db), status=None, sort="run_id")


@contextmanager
def window_raises(error: BaseException) -> Iterator[None]:
    """Each run of ``window`` ends in ``error``."""
    from core import runner

    execute = runner.execute

    def raises(prepared: Any, meter: Any) -> Any:
        if prepared.config.method == "window":
            raise error
        return execute(prepared, meter)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "execute", raises)
        yield
