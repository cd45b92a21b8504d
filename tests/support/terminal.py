"""A person at a terminal of their own: keys that are typed, and what comes on the screen."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from pathlib import Path

from tests.support import forked


class Person:
    """Somebody at a terminal of their own, at which streamcli was typed; forked from this process.

    To start one that imports torch takes seconds.
    """

    def __init__(self, folder: Path, *words: str) -> None:
        self.child, self.hand = pty.fork()
        if not self.child:
            os.chdir(folder)
            os.environ["TERM"] = "xterm"
            forked.become(*words)
        self.seen = ""

    def types(self, keys: str) -> None:
        os.write(self.hand, keys.encode())

    def sees(self, pattern: str, within_s: float = 90) -> re.Match[str]:
        """What comes on the screen, up to the pattern; that is then seen."""
        deadline = time.monotonic() + within_s
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.hand], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.seen!r}"
            try:
                self.seen += os.read(self.hand, 4096).decode(errors="replace")
            except OSError as ended:  # the terminal is gone
                raise AssertionError(f"no {pattern!r} in {self.seen!r}") from ended
        self.seen = self.seen[found.end() :]
        return found

    def ended(self) -> int:
        """The exit code, once all is said."""
        child, self.child = self.child, 0
        return forked.ended(child)

    def leaves(self) -> None:
        """Nobody is there any more."""
        if self.child:
            os.kill(self.child, signal.SIGKILL)
            self.ended()
        os.close(self.hand)
