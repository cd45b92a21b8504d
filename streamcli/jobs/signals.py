"""Ctrl-C and a scheduler's stop: an exception where a run is, and none where a result is saved.

Where a turn is written, Ctrl-C is noted: the turn ends between two tokens.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer, main_thread

STOPS = (signal.SIGINT, signal.SIGTERM)
SAME_S = (
    1.0  # stops that follow each other faster are one: a key held down, a terminal's and a kill
)
LATER_S = 0.05  # until a stop is sent again that a finalizer swallowed, or that came too early

_last = {"s": -math.inf}
_others: dict[str, Callable[[sys.UnraisableHookArgs], object]] = {}


def listen() -> None:
    """Have every stop raise KeyboardInterrupt, but for Ctrl-C where a shell has turned it off."""
    if sys.unraisablehook is not _unraised:
        _others["hook"] = sys.unraisablehook
        sys.unraisablehook = _unraised
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


@contextmanager
def looking(look: Callable[[], None]) -> Iterator[None]:
    """Within it ``look`` is called when Ctrl-C comes, before it is raised."""
    before = signal.getsignal(signal.SIGINT)

    def looked(number: int, frame: object) -> None:
        look()
        _stop(number, frame)

    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, looked)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


@contextmanager
def noted() -> Iterator[Callable[[], bool]]:
    """Within it Ctrl-C is noted, and what is yielded tells whether it came; the next is raised."""
    came = list[float]()

    def note(number: int, frame: object) -> None:
        if came:
            _stop(number, frame)
        else:
            _last["s"] = time.monotonic()
            came.append(_last["s"])

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _stop(number: int, _frame: object) -> None:
    if _loads_torch():
        _later(number)
        return
    now = time.monotonic()
    if now - _last["s"] > SAME_S:
        _last["s"] = now
        raise KeyboardInterrupt


def _loads_torch() -> bool:
    """Whether PyTorch is being imported: an exception in its C++ would end the process."""
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _unraised(what: sys.UnraisableHookArgs) -> None:
    """Raise a stop once more, in a moment, that came where Python drops what is raised."""
    if what.exc_type is not KeyboardInterrupt:
        _others["hook"](what)
        return
    _last["s"] = -math.inf
    _later(signal.SIGTERM)


def _later(number: int) -> None:
    """Send the main thread this stop in a moment."""
    again = Timer(LATER_S, _again, (number,))
    again.daemon = True
    again.start()


def _again(number: int) -> None:
    """Stop the main thread, and wake it where it waits for something."""
    name = main_thread().ident
    if name and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(name, number)
    else:
        signal.raise_signal(number)
