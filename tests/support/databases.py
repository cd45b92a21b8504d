"""A fresh database of each kind: an SQLite file, and a schema of a PostgreSQL server.

PostgreSQL is Debian's, started for the session, or the server that ``TEST_DATABASE_URL`` names,
such as ``postgresql+psycopg://postgres@127.0.0.1:5433/streamcli``. Where there is neither, its
tests are skipped. Each test gets a schema of its own. (PYTEST_DONT_REWRITE: tests import it.)
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from streamcli.results.store import Store

SERVER = "TEST_DATABASE_URL"
PROGRAMS = "/usr/lib/postgresql"
QUICK = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"  # it holds nothing to keep


Served = tuple[str, Callable[[str], None]]


def sql(store: Store, statement: str, **values: Any) -> Any:
    """What a statement gives that is typed by hand: its rows, or how many it changed."""
    with store.engine.begin() as connection:
        done = connection.execute(text(statement), values)
        return done.all() if done.returns_rows else done.rowcount


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server, listening on a socket in a folder of its own."""
    if url := os.environ.get(SERVER):
        yield url
        return
    with served() as (url, _):
        yield url


@pytest.fixture
def own_server() -> Iterator[Served]:
    """The URL of a PostgreSQL server for one test alone, and what stops and starts it."""
    with served("-c synchronous_commit=on") as mine:  # or a crash loses what was committed
        yield mine


@contextmanager
def served(more: str = "") -> Iterator[Served]:
    """The URL of a new PostgreSQL server, and what stops and starts it."""
    versions = sorted(Path(PROGRAMS).glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not versions:
        pytest.skip(f"no PostgreSQL: apt install postgresql, or let {SERVER} name a server")
    programs, user = versions[-1].parent, _postgres()
    folder = Path(tempfile.mkdtemp(prefix="streamcli-pg-"))  # short: a socket's path has 107 bytes
    if user:
        shutil.chown(folder, **user)

    def call(name: str, *words: str) -> None:
        command = [str(programs / name), "-D", str(folder / "data"), *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **user)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"

    try:
        call("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8")
        log, options = str(folder / "log"), f"{QUICK} {more} -c listen_addresses= -k {folder}"
        orders = {
            "start": ("-l", log, "-o", options),
            "stop": ("-m", "immediate"),
        }

        def control(order: str) -> None:
            call("pg_ctl", order, "-w", *orders[order])

        control("start")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}", control
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                control("stop")
    finally:
        shutil.rmtree(folder)


def _postgres() -> dict[str, Any]:
    """Whom to start it as: root may not, and Debian's package made a user for it."""
    if os.geteuid():
        return {}
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("no PostgreSQL: root can't run it and there is no user postgres")
    return {"user": "postgres", "group": "postgres"}


@pytest.fixture
def schema(server: str) -> Iterator[str]:
    """The URL of an empty schema of that server."""
    with new_schema(server) as url:
        yield url


@contextmanager
def new_schema(server: str) -> Iterator[str]:
    """The URL of an empty schema of a server, until it is left."""
    url, name = make_url(server), f"test_{secrets.token_hex(8)}"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    mine = url.update_query_dict({"options": f"-csearch_path={name}"})
    yield mine.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place that holds nothing yet."""
    if request.param == "sqlite":
        return str(tmp_path / "runs.db")
    url: str = request.getfixturevalue("schema")
    return url
