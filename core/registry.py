"""Names to classes, without importing torch: a name is looked up long before it is loaded."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from core.errors import unknown

METHODS = {
    "streaming": "core.methods.streaming:Streaming",
    "window": "core.methods.streaming:Window",
    "mit": "core.methods.mit:Mit",
    "kvpress": "core.methods.kvpress:Kvpress",
    "kvpress-interval": "core.methods.kvpress:Interval",
    "kvpress-stock": "core.methods.kvpress:Stock",
    "kvpress-prefill": "core.methods.kvpress:Prefill",
    "recompute": "core.methods.recompute:Recompute",
    "dense": "core.methods.dense:Dense",
}

MODES = {
    "decode-loop": "core.modes.decode_loop:evaluate",
    "chunked": "core.modes.chunked:evaluate",
    "kvpress-official": "core.modes.kvpress_official:evaluate",
}

DATASETS = {
    "wikitext": "core.datasets.wikitext:read",
    "pg19": "core.datasets.pg19:read",
    "bundled-encyclopedia": "core.datasets.bundled:read",
    "bundled-narrative": "core.datasets.bundled:read",
}

TABLES = {"method": METHODS, "mode": MODES, "dataset": DATASETS}


def check(kind: str, name: str) -> None:
    """Raise ``UsageError`` with the nearest name unless ``name`` is a registered ``kind``."""
    if name not in TABLES[kind]:
        raise unknown(kind, name, TABLES[kind])


def load(kind: str, name: str) -> Any:
    """Import and return what ``name`` stands for.

    Raises:
        UsageError: No such name.
    """
    check(kind, name)
    module, _, attribute = TABLES[kind][name].partition(":")
    return getattr(import_module(module), attribute)
