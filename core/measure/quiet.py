"""How quiet a machine was while something was timed: who else had its processors."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from core.result import WAITED

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
THREADS = Path("/proc/self/task")  # Linux: what each thread of this process did
STOLEN = 0.02  # share of the time that a hypervisor may take before times are doubted


def _spent() -> tuple[float, float]:
    """Seconds of all processors since the machine started, and those that a hypervisor took."""
    times = psutil.cpu_times()
    return sum(times), getattr(times, "steal", 0.0)


def _waits() -> dict[str, int]:
    """Nanoseconds that each thread of this process stood ready and had no processor."""
    found = {}
    with suppress(OSError):
        for thread in THREADS.iterdir():
            with suppress(OSError, IndexError):  # one that has just ended; a kernel that says less
                found[thread.name] = int((thread / "schedstat").read_text().split()[1])
    return found


@dataclass(frozen=True)
class Waiting:
    """The threads of this process from now on: how long they wait for a processor."""

    began: float = field(default_factory=time.perf_counter)
    before: dict[str, int] = field(default_factory=_waits)

    def share(self) -> float | None:
        """Of the time since then what the thread that waited most did so; None but under Linux.

        Other programs had the processors then, or this one has more threads than there are.
        """
        waited = [now - self.before.get(name, 0) for name, now in _waits().items()]
        passed = 1e9 * (time.perf_counter() - self.began)
        return min(1.0, max(waited) / passed) if waited else None


@dataclass(frozen=True)
class Quiet:
    """A machine from now on, until it is asked for in words."""

    load: float = field(default_factory=lambda: os.getloadavg()[0])
    spent: tuple[float, float] = field(default_factory=_spent)
    waiting: Waiting = field(default_factory=Waiting)

    def words(self) -> str:
        """Load before and now, shares of time stolen and waited, cores and governor, in a note."""
        every, stolen = (now - then for now, then in zip(_spent(), self.spent, strict=True))
        share = stolen / every if every else 0.0
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count()
        try:
            governor = f", governor {GOVERNOR.read_text().strip()}"
        except OSError:
            governor = ""
        waited = self.waiting.share() or 0.0
        doubt = "UNSTABLE: " if share > STOLEN or waited > WAITED else ""
        return (
            f"{doubt}load average {self.load:.1f} before and {os.getloadavg()[0]:.1f} after, "
            f"{100 * share:.1f} % of the time taken by other machines of the host and "
            f"{100 * waited:.1f} % spent waiting for a processor, {cores} cores{governor}."
        )
