"""How far a run or a sweep is: bars on a terminal's stderr, words where that is piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from core.result import perplexity
from streamcli.harmless import line

if TYPE_CHECKING:
    from core.config import RunConfig
    from core.runner import Prepared

EVERY_S = 0.1
BAR = 20  # characters


def spelled(seconds: float) -> str:
    """A time in words, such as ``45 s``, ``1 min 30 s`` or ``2 h 5 min``."""
    if seconds < 10:
        return f"{max(seconds, 0.1):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def watch(prepared: Prepared) -> Iterator[_Meter]:
    """A meter that is called with (tokens scored, nats so far) of a run."""
    with _bars() as bars:
        yield _Meter(bars, prepared)


class Board:
    """The progress of a sweep: on a terminal bars, where that is piped a line for each run.

    Args:
        runs: The configurations of all runs, in order.
        quiet: Whether nothing is shown.
    """

    def __init__(self, runs: list[RunConfig], *, quiet: bool = False) -> None:
        self.runs, self.done, self.quiet = runs, 0, quiet
        self.spent_s: dict[tuple[str, str, int | None], list[float]] = {}
        self.bars = _bars(quiet)
        self.task = self.bars.add_task("sweep", total=len(runs), count=self._count, words="")

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    @contextmanager
    def watch(self, prepared: Prepared) -> Iterator[_Meter]:
        """A meter of the current run, below the bar of the whole."""
        meter = _Meter(self.bars, prepared)
        try:
            yield meter
        finally:
            self.bars.remove_task(meter.task)

    def ended(
        self, name: str, how: str, spent_s: float | None = None, *, always: bool = False
    ) -> None:
        """Count one run as ended; ``spent_s`` where it was made, ``always`` to say so anywhere."""
        run = self.runs[self.done]
        if spent_s is not None:
            self.spent_s.setdefault(_kind(run), []).append(spent_s)
        self.done += 1
        left = self._left_s()
        words = "" if left is None else f"about {spelled(left)} left"
        self.bars.update(self.task, completed=self.done, count=self._count, words=words)
        if not self.quiet and (always or self.bars.disable):
            print(
                f"streamcli: {self._count} {line(name)}: {line(how)}", file=sys.stderr, flush=True
            )

    @property
    def _count(self) -> str:
        return f"{self.done}/{len(self.runs)}"

    def _left_s(self) -> float | None:
        """What the rest may take, each run as long as those of its kind, or as all, were so far."""
        if not self.spent_s:
            return None
        means = {kind: fmean(times) for kind, times in self.spent_s.items()}
        every = fmean(time for times in self.spent_s.values() for time in times)
        return sum(means.get(_kind(run), every) for run in self.runs[self.done :])


def _kind(run: RunConfig) -> tuple[str, str, int | None]:
    return run.method, run.mode, run.window


def _bars(quiet: bool = False) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(BAR),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[words]}"),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )


class _Meter:
    def __init__(self, bars: Progress, prepared: Prepared) -> None:
        self.bars, self.total = bars, prepared.to_score
        name = f"{prepared.config.method} {prepared.config.mode}"
        self.task: TaskID = bars.add_task(name, total=self.total, count="", words="")
        self.start = self.last = time.monotonic()

    def __call__(self, tokens: int, nats: float) -> None:
        now = time.monotonic()
        if self.bars.disable or now - self.last < EVERY_S:
            return
        self.last = now
        spent = now - self.start
        ppl = f"{perplexity(nats / tokens):,.2f}"
        left = spelled(spent / tokens * max(0, self.total - tokens))
        self.bars.update(
            self.task,
            completed=tokens,
            count=f"{tokens:,}/{self.total:,}",
            words=f"{tokens / spent:,.0f} tokens/s  ppl {ppl}  {left} left",
        )
