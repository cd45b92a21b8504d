"""What every mode shares: batches of documents, running scores, and the result they add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.config import RunConfig
from core.meters import MIB, PeakMemory
from core.methods.base import Method
from core.models import Loaded
from core.result import DocumentResult, RunResult
from core.tokens import TokenDocument, TokenStream, text_size

Progress = Callable[[int, float], None]


@dataclass(frozen=True)
class Task:
    """Everything a mode needs.

    Attributes:
        loaded: The model.
        tokens: The documents, as token ids.
        method: How the stream is remembered.
        config: The resolved configuration.
        progress: Called with (tokens scored, nats so far) as the run goes on.
    """

    loaded: Loaded
    tokens: TokenStream
    method: Method
    config: RunConfig
    progress: Progress


@dataclass(frozen=True)
class Batch:
    """B documents in step: (B, T) ids, the shorter ones filled up with zeros that nobody scores."""

    documents: tuple[TokenDocument, ...]
    ids: Tensor

    @property
    def lengths(self) -> list[int]:
        """Tokens of each document."""
        return [len(document.ids) for document in self.documents]


def batches(task: Task) -> Iterator[Batch]:
    """The documents in order, ``batch_size`` at a time, on the model's device."""
    documents, size = task.tokens.documents, task.config.batch_size
    for start in range(0, len(documents), size):
        group = documents[start : start + size]
        ids = torch.nn.utils.rnn.pad_sequence([d.ids for d in group], batch_first=True)
        yield Batch(group, ids.to(task.config.device))


@dataclass
class Scores:
    """Negative log-likelihoods as they come in, document by document."""

    task: Task
    vectors: list[Tensor] = field(default_factory=list)
    done_tokens: int = 0
    done_nats: float = 0.0

    def of(self, batch: Batch) -> BatchScores:
        """The scores of one batch, to be filled in."""
        width = batch.ids.shape[1] - 1
        return BatchScores(self, batch, torch.zeros(len(batch.documents), width))


@dataclass
class BatchScores:
    """(B, T-1) nats: the score of token t+1 stands at t."""

    scores: Scores
    batch: Batch
    nll: Tensor

    def put(self, start: int, nll: Tensor) -> None:
        """Enter the scores (B, C) of the tokens after ``start``."""
        self.nll[:, start : start + nll.shape[1]] = nll.cpu()
        stop = start + nll.shape[1]
        for row, length in enumerate(self.batch.lengths):
            new = self.nll[row, start : min(stop, length - 1)]
            self.scores.done_tokens += len(new)
            self.scores.done_nats += float(new.double().sum())
        self.scores.task.progress(self.scores.done_tokens, self.scores.done_nats)

    def close(self) -> None:
        """Cut the padding off and keep each document's vector."""
        for row, length in enumerate(self.batch.lengths):
            self.scores.vectors.append(self.nll[row, : length - 1])


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a mode measured of time and memory; see ``RunResult`` for the meanings."""

    total_s: float
    elapsed_s: float
    latency_ms: NDArray[np.float32]
    ms_per_token: float
    steady: NDArray[np.bool_]
    prefill_s: float = 0.0
    total_is_estimate: bool = False
    notes: tuple[str, ...] = ()


def result(
    task: Task, scores: Scores, timing: Timing, kv_bytes: int, peak: PeakMemory
) -> RunResult:
    """Add up a run."""
    documents = tuple(
        _document(task, document, nll)
        for document, nll in zip(task.tokens.documents, scores.vectors, strict=True)
    )
    lengths = [len(document.ids) for document in task.tokens.documents]
    longest, batch = max(lengths), min(task.config.batch_size, len(lengths))
    attended = torch.cat([task.method.attended(length - 1) for length in lengths])
    steady = timing.latency_ms[timing.steady]
    p50, p95, p99 = np.percentile(steady, (50, 95, 99)) if len(steady) else (None, None, None)
    return RunResult(
        documents=documents,
        nll=torch.cat(scores.vectors).numpy(),
        latency_ms=timing.latency_ms,
        engine="eager",
        attended_keys_min=int(attended.min()),
        attended_keys_mean=float(attended.double().mean()),
        attended_keys_max=int(attended.max()),
        positions=task.method.positions,
        eviction=task.method.eviction,
        total_s=timing.total_s,
        total_is_estimate=timing.total_is_estimate,
        prefill_s=timing.prefill_s,
        elapsed_s=timing.elapsed_s,
        warmup_tokens=int((~timing.steady).sum()),
        ms_per_token=timing.ms_per_token,
        ms_per_token_p50=p50,
        ms_per_token_p95=p95,
        ms_per_token_p99=p99,
        kv_mib=kv_bytes / MIB,
        kv_formula_mib=task.method.kv_formula_bytes(task.loaded, batch, longest - 1) / MIB,
        peak_mem_mib=peak.mib(),
        notes=(*task.method.notes(task.loaded, longest), *timing.notes),
    )


def _document(task: Task, document: TokenDocument, nll: Tensor) -> DocumentResult:
    words, utf8_bytes = text_size(task.loaded.tokenizer, document.ids)
    return DocumentResult(
        name=document.name,
        scored_tokens=len(nll),
        nll_nats=float(nll.double().sum()),
        words=words,
        utf8_bytes=utf8_bytes,
    )
