"""The command line on PostgreSQL, named by a variable: a run, and what is asked about it."""

from __future__ import annotations

import json

import pytest

from streamcli.results.store import Store
from tests.support.typed import TINY, Type


def test_a_run_is_recorded_reported_listed_and_checked_on_a_server(
    typed: Type, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMCLI_DATABASE_URL", schema)
    assert schema.startswith("postgresql+psycopg://")
    for method in ("streaming", "recompute"):
        assert typed("run", *TINY, "--method", method).code == 0
    assert "| streaming | 4 | 20 | 25 |" in typed("report", "--format", "markdown").out
    assert "2 of 2 runs of postgresql" in typed("runs", "list").out
    assert json.loads(typed("db", "stats", "--json").out)["method"] == {
        "recompute": 1,
        "streaming": 1,
    }
    assert typed("runs", "tag", "latest", "--add", "paper").code == 0
    assert typed("db", "check").code == 0
    assert "bit for bit the same" in typed("rerun", "latest").out
    assert "3 runs came from" in typed("db", "merge", schema, "--db", "copy.db").err
    assert Store.open("copy.db").get("latest").ppl == Store.open(schema).get("latest").ppl
    assert typed("runs", "delete", "latest", "--yes").code == 0
    assert typed("db", "vacuum").code == 0
