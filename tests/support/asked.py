"""What a command asks of its database: statements, how they find their rows, and what comes back.

(PYTEST_DONT_REWRITE: tests import it.)
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from streamcli.results.columns import COLUMNS
from streamcli.results.store import Store

TABLES = "runs|documents|traces"
SHORT = r"SEARCH \w+ USING (COVERING )?INDEX (ix_runs_latest|sqlite_autoindex_\w+)\b"  # by key


@dataclass
class Asked:
    """What was asked since it was cleared.

    Attributes:
        statements: The SQL that was sent, but for the beginnings of transactions.
        values: What each was sent with.
        whole_rows: How many runs came back with all their columns.
    """

    statements: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    whole_rows: int = 0

    def clear(self) -> None:
        """Forget what was asked."""
        self.statements.clear()
        self.values.clear()
        self.whole_rows = 0

    def long_ways(self, path: Path | str) -> list[str]:
        """The steps by which SQLite would read more of our tables than what is asked for."""
        with closing(sqlite3.connect(path)) as connection:
            steps = [
                step[-1]
                for statement, values in zip(self.statements, self.values, strict=True)
                for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            ]
        ours = [step for step in steps if re.match(rf"(SCAN|SEARCH) ({TABLES})\b", step)]
        assert ours, "no table of ours was read"
        return [step for step in ours if not re.match(SHORT, step)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """Fills up with what this process asks of any database."""
    found, read = Asked(), Store.read

    def sent(_: Any, cursor: Any, statement: str, values: Any, *rest: Any) -> None:
        if statement != "BEGIN":
            found.statements.append(statement)
            found.values.append(values)

    def counted(store: Store, query: Any) -> Any:
        rows = read(store, query)
        found.whole_rows += len(rows) if rows and len(rows[0]) >= len(COLUMNS) else 0
        return rows

    monkeypatch.setattr(Store, "read", counted)
    event.listen(Engine, "before_cursor_execute", sent)
    yield found
    event.remove(Engine, "before_cursor_execute", sent)
