"""One hash for files: the same bytes, the same name, on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def named(files: Iterable[Path]) -> str:
    """SHA-256 in hex over names and bytes of ``files``, in name order, wherever they lie."""
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        digest.update(f"{path.name} {sha256([path])}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def sha256(files: Iterable[Path]) -> str:
    """SHA-256 in hex over the bytes of ``files``, one after the other, a mebibyte at a time."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
