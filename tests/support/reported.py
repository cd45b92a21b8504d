"""A database of four made-up runs, and reports of it.

Use it with ``pytest_plugins = ("tests.support.typed", "tests.support.reported")``.
(PYTEST_DONT_REWRITE: tests import it.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamcli.results.store import Store
from tests.support.records import FOUR, recorded
from tests.support.typed import Type

DB = "runs.db"


def report(typed: Type, *words: str) -> Any:
    return typed("report", "--db", DB, *words)


@pytest.fixture
def four(home: Path) -> Store:
    """Streaming, window, re-computation and dense, one run each."""
    return recorded(home / DB, *FOUR)
