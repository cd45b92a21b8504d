"""What a database says when it fails, told in one line: the place, what is wrong, the way out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from core.errors import StreamError, UsageError

OTHER = "or choose another with --db."
NOT_OURS = f"is not an SQLite database: give the right file, {OTHER}"
READ_ONLY = f"can't be written to: make the file and its folder writable, {OTHER}"
DAMAGED = f"is damaged: put back a copy, try `sqlite3 FILE .recover`, {OTHER}"
FULL = "could not be written, the disk is full: nothing of this step was kept; free some space."
FAILING = f"can't be read or written, the disk is full or fails: free some space, {OTHER}"
BUSY = "was locked by another process for too long: end that process or try again."
NO_ANSWER = f"can't be reached: start the server, mend the URL, {OTHER}"
CHANGED = f"is not laid out as streamcli left it: put back a copy, {OTHER}"

# By the beginning of SQLite's error name; an exit code 2 means that another --db would do.
SQLITE: dict[str, tuple[type[StreamError], str]] = {
    "SQLITE_NOTADB": (UsageError, NOT_OURS),
    "SQLITE_READONLY": (UsageError, READ_ONLY),
    "SQLITE_PERM": (UsageError, READ_ONLY),
    "SQLITE_CANTOPEN": (
        UsageError,
        f"can't be opened: put the file back, make its folder writable, {OTHER}",
    ),
    "SQLITE_CORRUPT": (StreamError, DAMAGED),
    "SQLITE_FULL": (StreamError, FULL),
    "SQLITE_IOERR": (StreamError, FAILING),
    "SQLITE_BUSY": (StreamError, BUSY),
    "SQLITE_LOCKED": (StreamError, BUSY),
}
# By the beginning of PostgreSQL's SQLSTATE.
POSTGRESQL: dict[str, tuple[type[StreamError], str]] = {
    "25006": (UsageError, f"can't be written to: use a server that takes writes, {OTHER}"),
    "42501": (UsageError, f"does not let this user do that: grant the rights, {OTHER}"),
    "42P01": (StreamError, CHANGED),
    "42703": (StreamError, CHANGED),
    "53100": (StreamError, FULL),
    "57P": (StreamError, NO_ANSWER),
}


@contextmanager
def errors_in_one_line(place: str) -> Iterator[None]:
    """Turn whatever the database raises inside into a ``StreamError`` that names ``place``."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as problem:
        raise _in_one_line(place, problem) from problem


def _in_one_line(place: str, problem: Exception) -> StreamError:
    own = isinstance(problem, StatementError) and problem.orig  # without the statement
    cause = own if isinstance(own, Exception) else problem
    detail = " ".join(str(cause).split()) or type(cause).__name__
    for attribute, table in (("sqlite_errorname", SQLITE), ("sqlstate", POSTGRESQL)):
        code = str(getattr(cause, attribute, None) or "")
        for start, (kind, words) in table.items():
            if code.startswith(start):
                return kind(f"{place} {words} ({detail})")
    if "no such table" in detail or "no such column" in detail:
        return StreamError(f"{place} {CHANGED} ({detail})")
    # Without a statement it was the connection that failed; a server then gives no SQLSTATE.
    lost = isinstance(problem, DBAPIError) and (
        problem.statement is None or problem.connection_invalidated
    )
    if lost and not isinstance(cause, sqlite3.Error):
        return StreamError(f"{place} {NO_ANSWER} ({detail})")
    return StreamError(f"{place} failed: {detail}")
