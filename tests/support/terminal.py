"""A person at a terminal of their own: keys that are typed, and what comes on the screen."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from streamcli.__main__ import main
sys.argv = ["streamcli", *sys.argv[1:]]
main()
"""


class Person:
    """Somebody at a terminal of their own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.hand, end = pty.openpty()
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, *words],
            stdin=end,
            stdout=end,
            stderr=end,
            cwd=folder,
            env=env,
            start_new_session=True,
        )
        os.close(end)
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
        return self.process.wait(30)

    def leaves(self) -> None:
        """Nobody is there any more."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.hand)
