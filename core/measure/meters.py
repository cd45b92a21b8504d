"""Clocks that wait for the device, peak memory, and scores summed in float64."""

from __future__ import annotations

import ctypes
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

MIB = 1024 * 1024
BLOCK = 2 * MIB  # logits that are turned into scores at once


class Clock:
    """Seconds since it was made, after the device has finished what it was given."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._start = self._now()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = self._now()
        passed, self._start = now - self._start, now
        return passed

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()


class PeakMemory:
    """The most memory held since it was made.

    On a GPU, memory allocated by tensors. On a CPU under Linux, the process's peak resident memory,
    counter reset, after giving freed memory back; elsewhere the peak since the process began.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif sys.platform == "linux":
            _trim()
            with suppress(OSError):  # a sandbox may forbid it: the peak is then the whole process's
                Path("/proc/self/clear_refs").write_text("5")

    def mib(self) -> float:
        """The peak so far, in MiB."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / MIB
        if sys.platform == "linux":
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood in nats of ``targets`` (B, C) under ``logits`` (B, C, V): (B, C).

    In float32 whatever the model's dtype; summed by the caller in float64. Taken a block of rows at
    a time, so that no second copy of the logits is made: docs/decisions/0004-scores-in-blocks.md.
    """
    b, c, v = logits.shape
    flat, wanted, rows = logits.reshape(b * c, v), targets.reshape(b * c), max(1, BLOCK // v)
    parts = [
        torch.nn.functional.cross_entropy(part.float(), want, reduction="none")
        for part, want in zip(torch.split(flat, rows), torch.split(wanted, rows), strict=True)
    ]
    return torch.cat(parts).view(b, c)


def _trim() -> None:
    with suppress(OSError, AttributeError):  # only glibc has malloc_trim
        ctypes.CDLL("libc.so.6").malloc_trim(0)
