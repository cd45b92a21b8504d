"""C tokens a forward: exact perplexity at the speed of a prefill.

What a chunk computes equals the decode loop token by token, for every method whose chunks are
exact; another does with a chunk what its authors' code does, and its notes say how that differs.
The time is a throughput, never a latency.
"""

from __future__ import annotations

import numpy as np

from core.measure.meters import Clock, PeakMemory
from core.modes.base import Scores, Task, Timing, batches, result
from core.result import RunResult


def score(task: Task, size: int) -> tuple[Scores, list[float]]:
    """Score every document, fed ``size`` tokens at a time; also the ms of each forward."""
    scores, times = Scores(task), []
    clock = Clock(task.config.device)
    for batch in batches(task):
        stream = task.start(len(batch.documents))
        sheet = scores.of(batch)
        for start in range(0, batch.ids.shape[1] - 1, size):
            stop = min(start + size, batch.ids.shape[1] - 1)
            clock.lap()
            logits = stream.feed(batch.ids[:, start:stop])
            times.append(1000 * clock.lap())
            sheet.put(start, logits)
        sheet.close(stream)
    return scores, times


def evaluate(task: Task) -> RunResult:
    """Score the stream in chunks and time the whole."""
    peak, clock = PeakMemory(task.config.device), Clock(task.config.device)
    scores, times = score(task, task.config.chunk)
    elapsed = clock.lap()
    timing = Timing(
        total_s=elapsed,
        elapsed_s=elapsed,
        latency_ms=np.array(times, np.float32),
        ms_per_token=1000 * elapsed / scores.done_tokens,
        steady=np.zeros(len(times), np.bool_),  # a chunk has no latency
    )
    return result(task, scores, timing, peak)
