"""An SQLite file: whether it may be used, how to look at it untouched, and how it is written.

Nothing here changes a file that is refused; ``write_ahead`` comes last, when all else went well.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from core.errors import UsageError
from streamcli.results.failures import NOT_OURS, OTHER, READ_ONLY

BUSY_TIMEOUT_S = 30
SLICE_MS = 200  # of that, as long as Ctrl-C may have to wait
MAGIC = b"SQLite format 3\0"


def check(file: Path) -> None:
    """Make the folder, and refuse what can't be a database that may be written.

    Raises:
        UsageError: A folder, something that is not SQLite, or not writable.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and not file.is_file():
            raise UsageError(f"{file} is not a file: give a file's path, {OTHER}")
        if not all(_writable(path) for path in (file.parent, file) if path.exists()):
            raise UsageError(f"{file} {READ_ONLY}")
        if file.exists():
            with file.open("rb") as stream:
                if stream.read(len(MAGIC)) not in (b"", MAGIC):
                    raise UsageError(f"{file} {NOT_OURS}")
    except OSError as problem:
        raise UsageError(
            f"{file} can't be opened ({problem.strerror}): mend that, {OTHER}"
        ) from problem


def onlooker(file: Path) -> Engine:
    """An engine that looks at a file and leaves it, and its folder, as they were.

    Closing a connection that may write folds a left-over ``-wal`` into the file, so where there is
    one the connection may not; where there is none, one that may not write would leave its own.
    """
    mode = "ro" if Path(f"{file}-wal").exists() else "rw"
    uri = f"file:{quote(str(file))}?mode={mode}"
    return create_engine(
        "sqlite://",
        poolclass=NullPool,
        creator=lambda: sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S),
    )


def prepare(engine: Engine) -> None:
    """Have every connection of ``engine`` enforce foreign keys and begin transactions itself.

    A transaction with the execution option ``writes`` takes the write lock first, so that it waits
    for it at the start instead of failing half way.
    """
    event.listen(engine, "connect", _connect)
    event.listen(engine, "begin", _begin)


def stay(engine: Engine, file: Path) -> None:
    """From here on let ``engine`` open ``file`` only where it is, and make no new one.

    A file that was moved away in the middle of a run can be put back, and its place stays free.
    """

    def connect(_dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> Any:
        return sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, **options)

    event.listen(engine, "do_connect", connect)


def write_ahead(file: Path) -> None:
    """Switch to WAL, in which readers and the writer don't wait for each other, unless it is on.

    The switch does not wait for a lock by itself, whatever the timeout. Where the file system has
    no shared memory SQLite stays as it was, which is slower and no less safe.
    """
    until = time.monotonic() + BUSY_TIMEOUT_S
    with closing(sqlite3.connect(file, timeout=BUSY_TIMEOUT_S)) as connection:
        while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _connect(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("writes"):
        connection.exec_driver_sql("BEGIN")
        return
    driver: Any = connection.connection.driver_connection
    until = time.monotonic() + options.get("wait_s", BUSY_TIMEOUT_S)
    driver.execute(f"PRAGMA busy_timeout={SLICE_MS}")  # while SQLite waits, Ctrl-C does nothing
    while True:
        try:
            driver.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError as problem:
            if problem.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
    driver.execute(f"PRAGMA busy_timeout={round(BUSY_TIMEOUT_S * 1000)}")
