"""A database of four made-up runs, and reports and comparisons of it.

(PYTEST_DONT_REWRITE: tests import it.)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamcli.results.store import Store
from tests.support.records import FOUR, recorded
from tests.support.typed import Type

DB = "runs.db"


def report(typed: Type, *words: str) -> Any:
    return typed("report", "--db", DB, *words)


def rows_of(typed: Type, *words: str) -> list[dict[str, Any]]:
    """What such a report has as JSON."""
    found: list[dict[str, Any]] = json.loads(report(typed, "--format", "json", *words).out)
    return found


def compare(typed: Type, *words: str) -> Any:
    return typed("compare", "--db", DB, *words)


def cells(line: str) -> list[str]:
    """What a row of a Markdown table holds."""
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def four(home: Path) -> Store:
    """Streaming, window, re-computation and dense, one run each."""
    return recorded(home / DB, *FOUR)
