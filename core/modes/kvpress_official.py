"""What kvpress itself times: a context read at once and compressed once, then token by token.

This is its pipeline (kvpress 0.5.5, ``pipeline.py:207-250``) with a known text for the answer: the
method takes the context in one forward, which predicts after its last token only, and compresses it
its own way: a press as its prompt, streaming to S + W keys, re-computation to none, dense not at
all. Then the rest of the document is fed and timed one token at a time. Scored is what these steps
predicted, so neither the context nor the first token after it.

It is no measure of streaming: all of the context is there at once, and the text ends before a cache
that never evicts could grow far. What was compressed is reported, so that a no-op shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from core.errors import UsageError
from core.measure.meters import Clock, PeakMemory
from core.methods.base import past_trained_length
from core.modes.base import Batch, Scores, Task, Timing, batches, result
from core.modes.decode_loop import WARMUP_STEPS, laid_out_for, plainest, step
from core.result import RunResult


@dataclass
class _Pipeline:
    """Sums over the documents of a run; ``before`` and ``after`` are the longest context's keys."""

    task: Task
    scores: Scores
    prefill_s: float = 0.0
    before: int = 0
    after: int = 0
    latency_ms: list[float] = field(default_factory=list)
    laid_out: tuple[str, ...] = ()

    def run(self, batch: Batch, context: int) -> None:
        """Read the context (1, N) of one document, then score the rest of it."""
        task, sheet = self.task, self.scores.of(batch)
        stream, clock = task.start(1), Clock(task.config.device)
        stream.feed(batch.ids[:, :context], keep=1)
        self.prefill_s += clock.lap()
        sheet.skip(context)
        if context > self.before:
            self.before, self.after = context, stream.held()
        with laid_out_for(task, 1) as laid_out:
            for t in range(context, batch.ids.shape[1] - 1):
                logits, ms = step(task, stream, batch, t)
                sheet.put(t, logits)
                self.latency_ms.append(ms)
        self.laid_out = laid_out
        sheet.close(stream)


def evaluate(task: Task) -> RunResult:
    """Run the pipeline on every document that is long enough.

    Raises:
        UsageError: None is.
    """
    peak, wall = PeakMemory(task.config.device), Clock(task.config.device)
    pipeline, short = _Pipeline(task, Scores(task)), 0
    for batch in batches(task):  # of one document each, see RunConfig
        context = task.config.context_of(batch.ids.shape[1])
        if batch.ids.shape[1] < context + 2:
            short += 1
        else:
            pipeline.run(batch, context)
    if not pipeline.latency_ms:
        longest = max(len(document.ids) for document in task.tokens.documents)
        raise UsageError(
            f"context_tokens is {task.config.context_tokens or 1} and 2 more must follow, but the "
            f"longest document has {longest}: choose fewer, or more --max-tokens."
        )
    times = np.array(pipeline.latency_ms, np.float32)
    steady = np.arange(len(times)) >= min(WARMUP_STEPS, len(times) - 1)
    timing = Timing(
        total_s=pipeline.prefill_s + float(times.sum()) / 1000,
        elapsed_s=wall.lap(),
        latency_ms=times,
        ms_per_token=float(times[steady].mean()),
        steady=steady,
        prefill_s=pipeline.prefill_s,
        keys_before=pipeline.before,
        keys_after=pipeline.after,
        engine=plainest(task),
        notes=(*pipeline.laid_out, *_notes(pipeline, short)),
    )
    return result(task, pipeline.scores, timing, peak)


def _notes(pipeline: _Pipeline, short: int) -> tuple[str, ...]:
    before, after, task = pipeline.before, pipeline.after, pipeline.task
    notes: tuple[str, ...] = (f"of the context's {before} keys {after} were left.",)
    if after == before:
        notes = (f"all {before} keys of the context stayed: nothing was compressed.",)
    elif after == 0:
        notes = ()  # it holds no keys at any time
    if not task.method.spec.exact_chunks:
        name = f"{task.config.method}'s context"
        full = f"{name} attends to all of itself, up to {before} keys a token, before it is cut."
        notes = (*notes, full, *past_trained_length(name, task.loaded, before))
    documents = "1 document was" if short == 1 else f"{short} documents were"
    left_out = f"{documents} left out: fewer than 2 tokens would follow the context."
    return (*notes, left_out) if short else notes
