"""Where the time of a forward goes, and what memory it takes, as torch's profiler sees it.

Looking slows a forward down, so that a run is looked at after it was measured: it begins once more,
and ends after a few forwards with a full cache. With ``timed_tokens`` those that score are seen.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import profiler

from core import runner
from core.measure.meters import MIB
from core.methods.base import method_of
from core.runner import Prepared

FORWARDS = 20


@dataclass(frozen=True)
class Cost:
    """An operation: its own milliseconds a forward, its share of them all, its calls a forward."""

    name: str
    ms: float
    share: float
    calls: float


class _Enough(Exception):
    """As many forwards as are wanted were looked at."""


@dataclass
class Profile:
    """The profile of one run.

    Attributes:
        trace: File that the trace goes to, for chrome://tracing or ui.perfetto.dev.
        costs: Every operation, the largest first, once ``look`` is over.
        forwards: Forwards that were looked at.
    """

    trace: Path
    costs: list[Cost] = field(default_factory=list)
    forwards: int = 0

    def look(self, prepared: Prepared) -> None:
        """Look at forwards with a full cache, or from the beginning where none is full."""
        config = prepared.config
        full = method_of(config).full_after(prepared.loaded) * config.batch_size
        for after in (1 if config.mode_spec.context else full, 0):  # a context has filled it
            with _silence():
                self._look(prepared, after)
            if self.forwards:
                return

    def _look(self, prepared: Prepared, after: int) -> None:
        """Look at the forwards that come when ``after`` tokens were scored."""
        kinds = [profiler.ProfilerActivity.CPU]
        if prepared.config.device.startswith("cuda"):
            kinds.append(profiler.ProfilerActivity.CUDA)
        looking = profiler.profile(activities=kinds)
        begun = False

        def step(tokens: int, nats: float) -> None:
            nonlocal begun
            if begun:
                self.forwards += 1
                if self.forwards == FORWARDS or tokens == prepared.to_score:
                    raise _Enough
            elif tokens > after:
                begun = True
                looking.start()

        if not after:
            begun = True
            looking.start()
        with suppress(_Enough):
            runner.execute(prepared, step)
        if begun:
            looking.stop()
        if self.forwards:
            self._keep(looking)

    def _keep(self, looked: Any) -> None:
        looked.export_chrome_trace(str(self.trace))
        events = looked.key_averages()
        on_gpu = torch.cuda.is_available() and any(e.self_device_time_total for e in events)
        times = [(e.self_device_time_total if on_gpu else e.self_cpu_time_total) for e in events]
        whole = sum(times) or 1
        found = [
            Cost(e.key, us / 1000 / self.forwards, us / whole, e.count / self.forwards)
            for e, us in zip(events, times, strict=True)
        ]
        self.costs = sorted(found, key=lambda cost: -cost.ms)


def taken_mib(act: Callable[[], object], device: str) -> float:
    """The most memory that tensors made by ``act`` took at one moment, in MiB."""
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        act()
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    collects = gc.isenabled()
    gc.disable()  # or what it frees meanwhile would count against the step
    try:
        with _silence(), profiler.profile(profile_memory=True) as looked:
            act()
    finally:
        if collects:
            gc.enable()
    results: Any = looked.profiler
    events = [each for each in results.kineto_results.events() if each.name() == "[memory]"]
    held = most = 0
    for each in sorted(events, key=lambda event: event.start_ns()):
        held += each.nbytes()
        most = max(most, held)
    return most / MIB


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what torch's profiler writes to stderr, from C++, off the screen."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
