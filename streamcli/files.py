"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """A stream that takes the place of ``path`` when all went well; nobody sees half a file.

    A link stays a link, permissions stay, and what is no file, such as /dev/stdout, is written to.

    Raises:
        OSError: It can't be written.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            yield stream
        return
    beside = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        with beside.open("wb") as stream:
            yield stream
        if target.exists():
            shutil.copymode(target, beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
