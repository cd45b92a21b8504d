"""Ctrl-C and a scheduler's stop: an exception where a run is, and none where a result is saved."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM)
SAME_S = (
    1.0  # stops that follow each other faster are one: a key held down, a terminal's and a kill
)

_last = {"s": -math.inf}


def listen() -> None:
    """Have every stop raise KeyboardInterrupt, but for Ctrl-C where a shell has turned it off."""
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


@contextmanager
def ignored() -> Iterator[None]:
    """Let no stop come between; for what takes moments."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _stop(_number: int, _frame: object) -> None:
    now = time.monotonic()
    if now - _last["s"] > SAME_S:
        _last["s"] = now
        raise KeyboardInterrupt
