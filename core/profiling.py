"""Where the time of a forward goes: a trace by torch's profiler and its largest costs.

A few forwards from the middle of a run are looked at. Looking slows these down, and the medians of
a run of many forwards do not notice. With ``timed_tokens`` the forwards that score are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import profiler

from core.modes.base import Progress
from core.runner import Prepared

FORWARDS, WARM_UP = 20, 2
Watch = Callable[[Prepared], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Cost:
    """An operation: its own milliseconds a forward, its share of them all, its calls a forward."""

    name: str
    ms: float
    share: float
    calls: float


@dataclass
class Profile:
    """The profile of one run.

    Attributes:
        trace: File that the trace goes to, for chrome://tracing or ui.perfetto.dev.
        costs: Every operation, the largest first, once the run is over.
        forwards: Forwards that were looked at.
    """

    trace: Path
    costs: list[Cost] = field(default_factory=list)
    forwards: int = 0

    def watching(self, watch: Watch) -> Watch:
        """``watch``, and this profile beside it."""

        @contextmanager
        def both(prepared: Prepared) -> Iterator[Progress]:
            chunk = prepared.config.chunk if prepared.config.mode == "chunked" else 1
            total = max(1, prepared.to_score // (chunk * prepared.config.batch_size))
            warm = min(WARM_UP, total // 3)
            active = max(1, min(FORWARDS, total // 2 - warm))
            plan = profiler.schedule(
                skip_first=total // 2, wait=0, warmup=warm, active=active, repeat=1
            )
            self.forwards = active
            kinds = [profiler.ProfilerActivity.CPU]
            if prepared.config.device.startswith("cuda"):
                kinds.append(profiler.ProfilerActivity.CUDA)
            with (
                watch(prepared) as progress,
                profiler.profile(
                    activities=kinds, schedule=plan, on_trace_ready=self._keep
                ) as looking,
            ):

                def step(tokens: int, nats: float) -> None:
                    progress(tokens, nats)
                    looking.step()

                yield step

        return both

    def _keep(self, looked: Any) -> None:
        looked.export_chrome_trace(str(self.trace))
        events = [each for each in looked.key_averages() if "ProfilerStep" not in each.key]
        on_gpu = torch.cuda.is_available() and any(e.self_device_time_total for e in events)
        times = [(e.self_device_time_total if on_gpu else e.self_cpu_time_total) for e in events]
        whole = sum(times) or 1
        found = [
            Cost(e.key, us / 1000 / self.forwards, us / whole, e.count / self.forwards)
            for e, us in zip(events, times, strict=True)
        ]
        self.costs = sorted(found, key=lambda cost: -cost.ms)
