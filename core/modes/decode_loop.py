"""One token a forward, as a model generates: the mode in which latency means something.

With ``timed_tokens`` only that many steps are timed, with a full cache, and every token is scored
in chunks where these are exact: re-computation of a long text would take hours.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import torch

from core import weights
from core.config import AS_SHIPPED, STATIC
from core.errors import UsageError
from core.measure.meters import Clock, PeakMemory
from core.methods.base import Stream
from core.modes import chunked
from core.modes.base import Batch, Scores, Task, Timing, batches, result
from core.result import FILLING, RunResult

WARMUP_STEPS = 8


def evaluate(task: Task) -> RunResult:
    """Stream the documents token by token, or time a sample of steps."""
    return _whole(task) if task.config.timed_tokens is None else _sample(task)


def _whole(task: Task) -> RunResult:
    peak, wall = PeakMemory(task.config.device), Clock(task.config.device)
    scores, latency, steady, compile_s = Scores(task), [], [], 0.0
    engine, notes = plainest(task), dict[str, None]()
    for batch in batches(task):
        stream = task.start(len(batch.documents))
        sheet, width = scores.of(batch), batch.ids.shape[1] - 1
        full = task.method.full_after(task.loaded)
        with laid_out_for(task, len(batch.documents)) as laid_out:
            for t in range(width):
                logits, ms = step(task, stream, batch, t)
                sheet.put(t, logits)
                latency.append(ms)
                steady.append(len(latency) > WARMUP_STEPS and t >= full)
        sheet.close(stream)
        compile_s += stream.compile_s
        notes |= dict.fromkeys((*laid_out, *stream.notes))
        engine = stream.engine if stream.engine in STATIC else engine
    if not any(steady):
        steady = [step >= min(WARMUP_STEPS, len(latency) - 1) for step in range(len(latency))]
        notes[FILLING] = None
    times, kept = np.array(latency, np.float32), np.array(steady, np.bool_)
    timing = Timing(
        total_s=float(times.sum()) / 1000,
        elapsed_s=wall.lap(),
        latency_ms=times,
        ms_per_token=float(times[kept].mean()),
        steady=kept,
        engine=engine,
        compile_s=compile_s,
        notes=tuple(notes),
    )
    return result(task, scores, timing, peak)


def _sample(task: Task) -> RunResult:
    """Score by chunks; then fill a cache from the longest document and time N steps of it."""
    batch = max(batches(task), key=lambda each: each.ids.shape[1])
    asked = WARMUP_STEPS + (task.config.timed_tokens or 0)
    room = batch.ids.shape[1] - 1 - asked  # tokens that can go before the first step
    if room < 1:
        raise UsageError(
            f"timed_tokens is {task.config.timed_tokens}, but the longest document has "
            f"{batch.ids.shape[1]} tokens: ask for fewer, or for more --max-tokens."
        )
    peak, wall = PeakMemory(task.config.device), Clock(task.config.device)
    scores, _ = chunked.score(task, task.exact_chunk)
    full = task.method.full_after(task.loaded)
    fill = min(full or room, room)
    stream, clock = task.start(len(batch.documents)), Clock(task.config.device)
    for start in range(0, fill, task.exact_chunk):
        stream.feed(batch.ids[:, start : min(start + task.exact_chunk, fill)], keep=1)
    prefill = clock.lap()
    with laid_out_for(task, len(batch.documents)) as laid_out:
        timed = [step(task, stream, batch, fill + i)[1] for i in range(asked)]
    times = np.array(timed, np.float32)
    steady = np.arange(asked) >= WARMUP_STEPS
    mean = float(times[steady].mean())
    notes = (*laid_out, *stream.notes)
    if fill < full:
        notes += (f"the text is too short to fill the cache: timing began at token {fill}.",)
    timing = Timing(
        total_s=mean * sum(each.ids.shape[1] - 1 for each in batches(task)) / 1000,
        total_is_estimate=True,
        elapsed_s=wall.lap(),
        latency_ms=times,
        ms_per_token=mean,
        steady=steady,
        prefill_s=prefill,
        engine=stream.engine if stream.engine in STATIC else plainest(task),
        compile_s=stream.compile_s,
        notes=notes,
    )
    scores.kv_bytes = max(scores.kv_bytes, stream.kv_bytes())
    return result(task, scores, timing, peak)


def laid_out_for(task: Task, rows: int) -> AbstractContextManager[tuple[str, ...]]:
    """Weights for steps of so many documents within the block; gives notes on the times."""
    return weights.for_decoding(task.loaded.model, rows, task.config.engine)


def plainest(task: Task) -> str:
    """What a run whose steps nothing made fast ran by."""
    return AS_SHIPPED if task.config.engine == AS_SHIPPED else "eager"


def step(task: Task, stream: Stream, batch: Batch, t: int) -> tuple[torch.Tensor, float]:
    """Feed the token at ``t`` of every row: the logits (B, 1, V) after it, and milliseconds."""
    ids = batch.ids[:, t : t + 1]
    stream.warm(ids)
    clock = Clock(task.config.device)
    logits = stream.feed(ids)
    return logits, 1000 * clock.lap()
