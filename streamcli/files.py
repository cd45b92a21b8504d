"""Files that are written whole or not at all, and files that grow by whole pieces."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

from core.errors import StreamError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """A stream that takes the place of ``path`` when all went well; nobody sees half a file.

    A link stays a link, permissions stay, and what is no file, such as /dev/stdout, is written to.

    Raises:
        UsageError: It can't be written.
        StreamError: The disk is full.
    """
    try:
        with _replacing(Path(os.path.realpath(path))) as stream:  # resolve() raises at a loop
            yield stream
    except OSError as problem:
        raise unwritable(path, problem) from problem


def check_appendable(path: Path) -> None:
    """Raise where ``path`` can't be written to: now, and not when there is something to write.

    Raises:
        UsageError: It can't be.
    """
    there = os.path.lexists(path)
    append(path, "")
    if not there:
        path.unlink()


def append(path: Path, text: str) -> None:
    """Put ``text`` at the end of a file, in one piece.

    Raises:
        UsageError: It can't be written.
        StreamError: The disk is full.
    """
    try:
        with path.open("ab") as stream:
            stream.write(text.encode())
    except OSError as problem:
        raise unwritable(path, problem) from problem


def unwritable(path: Path, problem: OSError) -> StreamError:
    """The error for a place that was named and can't be written; a full disk is no wrong name."""
    kind = StreamError if problem.errno in FULL else UsageError
    return kind(f"{path} can't be written: {problem.strerror}.")


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            yield stream
        return
    scratch = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        with scratch.open("wb") as stream:
            yield stream
        if target.exists():
            shutil.copymode(target, scratch)
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
