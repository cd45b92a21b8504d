"""How quiet a machine was while something was timed: who else had its processors."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import psutil

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
STOLEN = 0.02  # share of the time that a hypervisor may take before times are doubted


def _spent() -> tuple[float, float]:
    """Seconds of all processors since the machine started, and those that a hypervisor took."""
    times = psutil.cpu_times()
    return sum(times), getattr(times, "steal", 0.0)


@dataclass(frozen=True)
class Quiet:
    """A machine from now on, until it is asked for in words."""

    load: float = field(default_factory=lambda: os.getloadavg()[0])
    spent: tuple[float, float] = field(default_factory=_spent)

    def words(self) -> str:
        """Load average before and now, share of time stolen, cores and governor, in one note."""
        every, stolen = (now - then for now, then in zip(_spent(), self.spent, strict=True))
        share = stolen / every if every else 0.0
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count()
        try:
            governor = f", governor {GOVERNOR.read_text().strip()}"
        except OSError:
            governor = ""
        doubt = "UNSTABLE: " if share > STOLEN else ""
        return (
            f"{doubt}load average {self.load:.1f} before and {os.getloadavg()[0]:.1f} after, "
            f"{100 * share:.1f} % of the time taken by other machines of the host, {cores} "
            f"cores{governor}."
        )
