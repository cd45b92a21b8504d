"""Each thing that can go wrong with a database is told in one line, and leaves it as it was."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from core.errors import StreamError, UsageError
from core.result import RunResult
from streamcli.results import frames, sqlite_file
from streamcli.results.store import Store
from tests.support.databases import sql
from tests.support.records import Begin

NOBODY = 65534


def told(act: Callable[[], Any], kind: type[StreamError], *words: str) -> str:
    """The one-line message of what ``act`` raises, of exactly this kind and with these words."""
    with pytest.raises(StreamError) as caught:
        act()
    message = str(caught.value)
    assert caught.type is kind, message
    assert "\n" not in message and "sqlalche.me" not in message
    for word in words:
        assert word in message, message
    return message


def state(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, byte for byte."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refused(path: Path, kind: type[StreamError], *words: str) -> None:
    """Opening ``path`` tells what is wrong and changes nothing in its folder."""
    before = state(path.parent)
    told(lambda: Store.open(path), kind, str(path), *words)
    assert state(path.parent) == before


def alter(file: Path, *statements: str) -> None:
    """What another program does to a file."""
    connection = sqlite3.connect(file)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_newer_database_is_left_alone(file: Path) -> None:
    alter(file, "UPDATE alembic_version SET version_num = '9999'")
    refused(file, UsageError, "written by a newer streamcli", "upgrade, or choose another", "--db")


def test_a_newer_database_with_a_write_ahead_log_is_left_alone(file: Path, tmp_path: Path) -> None:
    crashed = tmp_path / "crashed" / file.name
    crashed.parent.mkdir()
    writer = sqlite3.connect(file)
    writer.execute("UPDATE alembic_version SET version_num = '9999'")
    writer.commit()
    for path in (file, Path(f"{file}-wal")):
        shutil.copy(path, crashed.parent)
    writer.close()
    before = state(crashed.parent)
    told(lambda: Store.open(crashed), UsageError, "written by a newer streamcli")
    after = state(crashed.parent)
    after.pop(f"{file.name}-shm", None)  # an index that SQLite makes anew at will
    assert after == before


def test_a_newer_server_database_is_told(where: str) -> None:
    store = Store.open(where)
    sql(store, "UPDATE alembic_version SET version_num = '9999'")
    told(lambda: Store.open(where), UsageError, "written by a newer streamcli", store.place)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    alter(tmp_path / "places.sqlite", "CREATE TABLE bookmarks (url TEXT)")
    refused(tmp_path / "places.sqlite", UsageError, "bookmarks", "--db")


@pytest.mark.parametrize("content", [b"hello", b"a,b\n1,2\n" * 1000, b"SQLite format 2\0" * 300])
def test_a_file_that_is_not_sqlite_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes.txt").write_bytes(content)
    refused(tmp_path / "notes.txt", UsageError, "is not an SQLite database", "--db")


def test_a_damaged_database_is_left_alone(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + b"\xa5" * (len(whole) - 100))
    refused(file, StreamError, "is damaged", "--db")
    file.write_bytes(whole[:5000])
    refused(file, StreamError, "is damaged", "--db")


def test_damage_that_shows_later_is_told(file: Path) -> None:
    store = Store.open(file)
    file.write_bytes(b"no longer a database" * 1000)
    told(lambda: store.get("latest"), UsageError, str(file), "is not an SQLite database")
    alter_me = file.with_name("other.db")
    store = Store.open(alter_me)
    alter(alter_me, "DROP VIEW results", "ALTER TABLE runs DROP COLUMN ppl")
    told(lambda: frames.runs(store), StreamError, str(alter_me), "not laid out", "ppl")


def test_a_folder_or_a_path_through_a_file_is_no_place(tmp_path: Path, file: Path) -> None:
    told(lambda: Store.open(tmp_path), UsageError, str(tmp_path), "is not a file")
    told(lambda: Store.open(file / "x.db"), UsageError, str(file / "x.db"), "can't be")


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A database in a folder, neither of which this process may write, root or not."""
    folder = Path(tempfile.mkdtemp())
    Store.open(folder / "runs.db")
    (folder / "runs.db").chmod(0o444)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_what_is_read_only_is_told(locked_folder: Path) -> None:
    refused(locked_folder / "runs.db", UsageError, "can't be written to", "--db")
    refused(locked_folder / "new.db", UsageError, "can't be written to", "--db")
    told(lambda: Store.open(locked_folder / "sub" / "new.db"), UsageError, "Permission denied")


def test_a_file_made_read_only_later_is_told(file: Path, begin: Begin) -> None:
    store = Store.open(file)
    event.listen(store.engine, "connect", lambda raw, _: raw.execute("PRAGMA query_only=ON"))
    told(lambda: begin(store), UsageError, str(file), "can't be written to")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("", "keeps no results"),
        (":memory:", "keeps no results"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:runs.db", "is not a database URL"),
        ("postgresql:/name", "is not a database URL"),
        ("://", "is not a database URL"),
        ("postgresql://me:secret@host:port/name", "is not a database URL"),
        ("postgres://me:secret@host/name", "Did you mean 'postgresql'"),
        ("mysql://me:secret@host/name", "choose one of sqlite, postgresql"),
        ("postgresql+nodriver://me:secret@host/name", "no known driver"),
        ("postgresql+asyncpg://me:secret@host/name", "asynchronous"),
    ],
)
def test_a_malformed_url_is_told_without_its_password(where: str, words: str) -> None:
    message = told(lambda: Store.open(where), UsageError, words)
    assert "secret" not in message


def test_a_missing_driver_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for driver, package in (("psycopg", '"psycopg[binary]"'), ("psycopg2", "psycopg2-binary")):
        monkeypatch.setitem(sys.modules, driver, None)
        url = f"postgresql+{driver}://me:secret@host/name"
        message = told(partial(Store.open, url), UsageError, f"pip install {package}")
        assert "secret" not in message


def test_a_server_that_does_not_answer_is_told() -> None:
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/name"
    message = told(lambda: Store.open(url), StreamError, "127.0.0.1:1/name can't be reached")
    assert "secret" not in message


def test_a_full_disk_keeps_the_whole_run_out(file: Path, begin: Begin, result: RunResult) -> None:
    store = Store.open(file)
    run_id = begin(store)
    pages = [file.stat().st_size // 4096]

    def limit(raw: sqlite3.Connection, _: object) -> None:
        raw.execute(f"PRAGMA max_page_count={pages[0]}")

    event.listen(store.engine, "connect", limit)
    long = RunResult(**{**vars(result), "notes": ("x" * 100_000,)})
    told(lambda: store.finish(run_id, long), StreamError, str(file), "disk is full")
    assert (store.get(run_id).status, store.get(run_id).ppl) == ("running", None)
    assert frames.documents(store, [run_id]).empty
    pages[0] = 10_000
    assert store.finish(run_id, long).status == "done"


def test_a_lock_that_is_never_released_is_told(
    file: Path, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.1)
    store = Store.open(file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    told(lambda: begin(store), StreamError, str(file), "locked by another process")
    assert frames.runs(store, status=None).empty  # readers don't wait
    other.close()


def test_a_path_is_kept_when_the_folder_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open("a b%41?.db")
    monkeypatch.chdir("/")
    assert frames.runs(store).empty
    assert [path.name for path in tmp_path.iterdir()] == ["a b%41?.db"]
    assert re.fullmatch(r".*/a b%41\?\.db", store.place)
    assert Store.open(f"sqlite:///{tmp_path}/new/x.db").place == str(tmp_path / "new" / "x.db")
