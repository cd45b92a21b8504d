"""Whether the process that began a run may still be at it."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

SLACK_S = 2.0  # the kernel counts boot in whole seconds


def host() -> str:
    """This machine's network name, as it is recorded with every run."""
    return platform.node()


def process_ended(pid: int, began: str) -> bool:
    """Whether no process ``pid`` is there that was there at ``began`` (ISO 8601, with a zone).

    A number is given out again, so that where /proc tells it, a process that started later than the
    run is another one. Where nothing can be told the process counts as there.
    """
    if sys.platform == "win32":  # there, signal 0 is Ctrl-C
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(
            line for line in Path("/proc/stat").read_text().splitlines() if line[:6] == "btime "
        )
    except (OSError, StopIteration):
        return False
    started = int(boot.split()[1]) + int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    zombie = after_name[0] in "ZX"
    return zombie or started > datetime.fromisoformat(began).astimezone(UTC).timestamp() + SLACK_S
