"""A database of the first schema becomes one of today's, and back, with its rows as they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text

from core.config import RunConfig
from core.environment import Environment
from core.facts import RunFacts
from core.result import RunResult
from streamcli.analysis.comparison import groups
from streamcli.results import addresses, frames, maintenance, migrations
from streamcli.results.columns import PUBLIC, VIEW
from streamcli.results.store import Store
from tests.support.records import Begin

TABLES = ("runs", "documents", "traces")


def migrate(connection: Connection, how: Any, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER))
    config.attributes["connection"] = connection
    how(config, revision)


def rows(connection: Connection, table: str) -> list[dict[str, Any]]:
    found = connection.execute(text(f"SELECT * FROM {table} ORDER BY run_id"))
    return [dict(row) for row in found.mappings()]


@pytest.fixture
def old(
    where: str, tmp_path: Path, begin: Begin, sound: RunResult
) -> Iterator[tuple[str, dict[str, list[dict[str, Any]]]]]:
    """A database that migration 0001 made, with two runs in it, and the rows of its tables."""
    donor = Store.open(tmp_path / "donor.db")
    donor.finish(begin(donor), sound)
    donor.fail(begin(donor, 1), "no")
    engine = addresses.connected(addresses.located(where)).execution_options(writes=True)
    with engine.begin() as connection:
        migrate(connection, command.upgrade, "0001")
    with donor.engine.connect() as source, engine.begin() as connection:
        for table in TABLES:
            first = [each["name"] for each in inspect(connection).get_columns(table)]
            for row in rows(source, table):
                kept = {name: row[name] for name in first}
                flags = {"trust", "total_is_estimate", "git_dirty", "workdir_dirty"}
                typed = {n: bool(v) if n in flags and v is not None else v for n, v in kept.items()}
                names = ", ".join(f'"{name}"' for name in typed)
                marks = ", ".join(f":{name}" for name in typed)
                connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), typed)
    with engine.connect() as connection:
        before = {table: rows(connection, table) for table in TABLES}
    yield where, before


def test_the_rows_of_the_first_schema_are_intact_after_the_upgrade(old: Any) -> None:
    where, before = old
    store = Store.open(where)
    with store.engine.connect() as connection:
        for table, kept in before.items():
            now = rows(connection, table)
            for new, as_it_was in zip(now, kept, strict=True):
                assert {name: new[name] for name in as_it_was} == as_it_was
                assert all(new[name] is None for name in set(new) - set(as_it_was))
        assert tuple(connection.execute(text("SELECT * FROM results")).keys()) == VIEW
    assert maintenance.check(store) == []
    assert len(store.trace(before["traces"][0]["run_id"])[0]) == 1000


@pytest.mark.slow
def test_a_downgrade_takes_away_what_the_upgrade_added_and_nothing_else(old: Any) -> None:
    where, before = old
    store = Store.open(where)
    with store.transaction(writes=True) as connection:
        migrate(connection, command.downgrade, "0001")
    with store.engine.connect() as connection:
        assert {table: rows(connection, table) for table in before} == before
        assert tuple(connection.execute(text("SELECT * FROM results")).keys()) == PUBLIC
    assert maintenance.check(Store.open(where)) == []


def test_a_downgrade_to_nothing_leaves_nothing(old: Any) -> None:
    store = Store.open(old[0])
    with store.transaction(writes=True) as connection:
        migrate(connection, command.downgrade, "base")
        assert connection.execute(text("SELECT * FROM alembic_version")).all() == []


def test_runs_of_an_older_version_are_compared_among_themselves(
    old: Any, config: RunConfig, facts: RunFacts, environment: Environment, sound: RunResult
) -> None:
    store = Store.open(old[0])
    before = replace(facts, files_sha256=None)  # as it was recorded then
    names = [store.begin(config, each, environment, 1) for each in (before, facts)]
    for name in names:
        store.finish(name, sound)
    every = frames.runs(store)
    assert len(every) == 3
    assert sorted(frames.latest(store)["runs"]) == [1, 2]
    assert sorted(frames.latest(store)["run_id"]) == sorted(names)
    assert sorted(map(len, groups(every))) == [1, 2]
