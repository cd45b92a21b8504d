"""C tokens a forward: exact perplexity at the speed of a prefill.

What a chunk computes equals the decode loop token by token, for every method that stands here; its
time is a throughput, never a latency.
"""

from __future__ import annotations

import numpy as np

from core.meters import Clock, PeakMemory, token_nll
from core.modes.base import Scores, Task, Timing, batches, result
from core.result import RunResult


def score(task: Task) -> tuple[Scores, int]:
    """Score every document; also the largest number of bytes that a stream held."""
    scores, held = Scores(task), 0
    for batch in batches(task):
        stream = task.method.start(task.loaded, len(batch.documents))
        sheet = scores.of(batch)
        for start in range(0, batch.ids.shape[1] - 1, task.config.chunk_size):
            stop = min(start + task.config.chunk_size, batch.ids.shape[1] - 1)
            logits = stream.feed(batch.ids[:, start:stop])
            sheet.put(start, token_nll(logits, batch.ids[:, start + 1 : stop + 1]))
        sheet.close()
        held = max(held, stream.kv_bytes())
    return scores, held


def evaluate(task: Task) -> RunResult:
    """Score the stream in chunks and time the whole."""
    peak, clock = PeakMemory(task.config.device), Clock(task.config.device)
    scores, held = score(task)
    elapsed = clock.lap()
    timing = Timing(
        total_s=elapsed,
        elapsed_s=elapsed,
        latency_ms=np.zeros(0, np.float32),
        ms_per_token=1000 * elapsed / scores.done_tokens,
        steady=np.zeros(0, np.bool_),
    )
    return result(task, scores, timing, held, peak)
