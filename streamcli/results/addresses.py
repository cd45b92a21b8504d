"""Where results are kept: from what the user wrote to a URL, its name in messages and an engine."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import URL, Engine, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from core.errors import UsageError, unknown
from streamcli.results import silence, sqlite_file

SECRET = re.compile("pass(?!file)|pwd|secret|token", re.IGNORECASE)  # in names of a URL's query
PATIENCE = {  # with a server that is gone or does not answer: what a URL's own query may change
    "connect_timeout": 10,  # s
    "tcp_user_timeout": 60_000,  # ms until what was sent must have arrived
    "keepalives_idle": 30,  # s without a word, after which it is asked whether it is there
    "keepalives_interval": 10,  # s between such questions
    "keepalives_count": 3,  # of them without an answer
}
INSTALL = {"psycopg": '"psycopg[binary]"', "psycopg2": "psycopg2-binary"}
EXAMPLES = "a path such as data/streamcli.db, or a URL such as postgresql+psycopg://user@host/name"


def located(where: str | Path) -> URL:
    """The URL of what the user wrote: a path, or a URL of SQLite or PostgreSQL.

    Raises:
        UsageError: It is neither.
    """
    text = str(where).strip()
    if "://" not in text and not re.match(r"(sqlite|postgres)\w*[+:]", text):
        if text in ("", ":memory:"):
            raise UsageError(f"{text!r} keeps no results: give {EXAMPLES}.")
        return _file(URL.create("sqlite"), text)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as problem:
        raise UsageError(f"{_masked(text)!r} is not a database URL: give {EXAMPLES}.") from problem
    backend = url.get_backend_name()
    if backend == "postgresql":
        return url
    if backend != "sqlite":
        raise unknown("kind of database", backend, ("sqlite", "postgresql"))
    if url.database in (None, "", ":memory:") or str(url.database).startswith("file:"):
        raise UsageError(f"{text!r} names no file to keep results in: give {EXAMPLES}.")
    return _file(url, str(url.database))


def named(url: URL) -> str:
    """How messages name the place: the file, or the URL without a password, wherever it has one."""
    if file := file_of(url):
        return str(file)
    secrets = {name: "***" for name in url.query if SECRET.search(name)}
    return url.update_query_dict(secrets).render_as_string(hide_password=True).replace("%2A", "*")


def file_of(url: URL) -> Path | None:
    """The file of an SQLite database, None for a server."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def connected(url: URL) -> Engine:
    """An engine that keeps no connection between calls.

    A run may last hours; a kept connection would have been dropped by a server by then, and a
    closed SQLite file is whole without its ``-wal``.

    Raises:
        UsageError: The driver is unknown, not installed or asynchronous.
    """
    try:
        if url.get_dialect().is_async:
            raise UsageError(
                f"{url.drivername!r} is an asynchronous driver: write {url.get_backend_name()}://."
            )
        engine = create_engine(url, poolclass=NullPool, connect_args=_connect_args(url))
    except NoSuchModuleError as problem:
        raise UsageError(f"{url.drivername!r} is no known driver: give {EXAMPLES}.") from problem
    except ImportError as problem:
        driver = url.get_driver_name()
        raise UsageError(
            f"{named(url)} needs the driver {driver!r}, which is not installed: "
            f"pip install {INSTALL.get(driver, driver)}"
        ) from problem
    if file_of(url):
        sqlite_file.prepare(engine)
    else:
        silence.watch(engine)
    return engine


def snapshots(engine: Engine) -> Engine:
    """The same, for transactions that see one state throughout; those of an SQLite file do so."""
    if file_of(engine.url):
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _file(url: URL, path: str) -> URL:
    try:
        file = Path(path).expanduser().absolute()
    except RuntimeError as problem:
        user = path.partition("/")[0].removeprefix("~")
        raise UsageError(
            f"{path} can't be found: this machine has no home of a user {user!r}; write the path "
            "out."
        ) from problem
    return url.set(database=str(file))


def _masked(text: str) -> str:
    text = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", text)
    return re.sub(
        rf"([?&;][^=&]*(?:{SECRET.pattern})[^=&]*=)[^&]*", r"\1***", text, flags=re.IGNORECASE
    )


def _connect_args(url: URL) -> dict[str, int]:
    if file_of(url):
        return {"timeout": sqlite_file.BUSY_TIMEOUT_S}
    return {name: value for name, value in PATIENCE.items() if name not in url.query}
