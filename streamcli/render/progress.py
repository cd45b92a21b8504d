"""A progress bar on a terminal's stderr; nothing anywhere else."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from core.runner import Prepared

EVERY_S = 0.1


@contextmanager
def watch(prepared: Prepared) -> Iterator[_Meter]:
    """A meter that is called with (tokens scored, nats so far) of a run."""
    config, total = prepared.config, prepared.to_score
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} tokens"),
        TextColumn("{task.fields[speed]} tokens/s  ppl {task.fields[ppl]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(f"{config.method} {config.mode}", total=total, speed="-", ppl="-")
        yield _Meter(bar, task)


class _Meter:
    def __init__(self, bar: Progress, task: object) -> None:
        self.bar, self.task = bar, task
        self.start = self.last = time.monotonic()

    def __call__(self, tokens: int, nats: float) -> None:
        now = time.monotonic()
        if self.bar.disable or now - self.last < EVERY_S:
            return
        self.last = now
        speed = f"{tokens / (now - self.start):,.0f}"
        ppl = f"{math.exp(min(nats / tokens, 700)):,.2f}"
        self.bar.update(self.task, completed=tokens, speed=speed, ppl=ppl)  # type: ignore[arg-type]
