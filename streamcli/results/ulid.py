"""Run names: ULIDs, 26 characters that sort by time. 48 bits of milliseconds, 80 of chance."""

from __future__ import annotations

import os
import secrets
import threading
import time

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CHANCE = 80
LENGTH = 26

_lock = threading.Lock()
_last = {"pid": 0, "ulid": 0}


def new() -> str:
    """A ULID larger than every earlier one of this process, though the clock be set back."""
    with _lock:
        drawn = time.time_ns() // 1_000_000 << CHANCE | secrets.randbits(CHANCE)
        # A forked child inherits the last name of its parent and must not count on from it.
        last = _last["ulid"] if _last["pid"] == os.getpid() else 0
        number = drawn if drawn >> CHANCE > last >> CHANCE else last + 1
        _last.update(pid=os.getpid(), ulid=number)
    return "".join(CROCKFORD[number >> 5 * place & 31] for place in reversed(range(LENGTH)))


def is_one(name: str) -> bool:
    """Whether ``name`` is written as a ULID is."""
    return len(name) == LENGTH and set(name) <= set(CROCKFORD)
