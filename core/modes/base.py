"""What every mode shares: batches of documents, running scores, and the result they add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.config import RunConfig
from core.measure.meters import MIB, PeakMemory, token_nll
from core.methods.base import BEFORE_CHUNK, Method, Stream, past_trained_length
from core.models import anatomy
from core.models.loading import Loaded
from core.questions import Asked
from core.result import Answer, DocumentResult, RunResult
from core.tokens import TokenDocument, TokenStream, text_size

Progress = Callable[[int, float], None]
LONG = 100  # forwards beyond which a stream is worth asking whether its time grows


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

    def start(self, batch: int) -> Stream:
        """An empty memory for ``batch`` documents, in a model as it was first seen."""
        anatomy.of(self.loaded.model)  # puts back what a longer stream has changed
        return self.method.start(self.loaded, batch)

    @property
    def exact_chunk(self) -> int:
        """Most tokens that can be fed at a time and be scored as one by one."""
        return self.config.chunk if self.method.spec.exact_chunks else 1


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
    """The documents in order, ``batch_size`` at a time, on the model's device.

    Of a method that makes room for a chunk before it reads it, only those of one length go in step:
    for the end of a shorter one it would make room as for the others'.
    """
    for group in _in_step(task):
        ids = torch.nn.utils.rnn.pad_sequence([d.ids for d in group], batch_first=True)
        yield Batch(group, ids.to(task.config.device))


def _in_step(task: Task) -> list[tuple[TokenDocument, ...]]:
    groups = _groups(task)
    if task.method.eviction != BEFORE_CHUNK:
        return groups
    by_length = (groupby(group, lambda document: len(document.ids)) for group in groups)
    return [tuple(alike) for each in by_length for _, alike in each]


def _groups(task: Task) -> list[tuple[TokenDocument, ...]]:
    documents, size = task.tokens.documents, task.config.batch_size
    return [documents[start : start + size] for start in range(0, len(documents), size)]


def _parted(task: Task) -> tuple[str, ...]:
    """A note where fewer documents go in step than were asked for."""
    read, asked = _in_step(task), _groups(task)
    if len(read) == len(asked):
        return ()
    return (
        f"{task.config.method} makes room before a chunk, so that only documents of one length go "
        f"in step: {max(map(len, read))} at most, where others read {max(map(len, asked))}. Its "
        "KV and times are of these.",
    )


@dataclass(frozen=True)
class Scored:
    """A document with the nats (M,) of its tokens after ``first``, and what its batch was fed."""

    document: TokenDocument
    nll: Tensor
    first: int
    feeds: tuple[int, ...]
    answers: tuple[Answer, ...]


@dataclass
class Scores:
    """Negative log-likelihoods as they come in, document by document.

    Attributes:
        task: The task.
        scored: The documents that are finished.
        kv_bytes: Most bytes that a batch's keys and values took in the end.
        kv_formula_bytes: The same by formula.
        done_tokens: Tokens scored so far.
        done_nats: Their sum.
    """

    task: Task
    scored: list[Scored] = field(default_factory=list)
    kv_bytes: int = 0
    kv_formula_bytes: int = 0
    done_tokens: int = 0
    done_nats: float = 0.0

    def of(self, batch: Batch) -> BatchScores:
        """The scores of one batch, to be filled in."""
        rows, width = len(batch.documents), batch.ids.shape[1] - 1
        asked = [Asked(document.questions) for document in batch.documents]
        return BatchScores(self, batch, torch.zeros(rows, width), asked)


@dataclass
class BatchScores:
    """(B, T-1) nats: the score of token t+1 stands at t; and what each document asks."""

    scores: Scores
    batch: Batch
    nll: Tensor
    asked: list[Asked]
    first: int = 0
    feeds: list[int] = field(default_factory=list)

    def skip(self, tokens: int) -> None:
        """Count ``tokens`` that were fed at the start, at once, without being scored."""
        self.first = tokens
        self.feeds.append(tokens)

    def put(self, start: int, logits: Tensor) -> None:
        """Score by logits (B, C, V) what follows the C tokens from ``start``, fed at once."""
        size = logits.shape[1]
        stop = start + size
        nll = token_nll(logits, self.batch.ids[:, start + 1 : stop + 1])
        self.nll[:, start:stop] = nll.cpu()
        self.feeds.append(size)
        for row, asked in enumerate(self.asked):
            asked.put(start, logits[row])
        for row, length in enumerate(self.batch.lengths):
            new = self.nll[row, start : min(stop, length - 1)]
            self.scores.done_tokens += len(new)
            self.scores.done_nats += float(new.double().sum())
        self.scores.task.progress(self.scores.done_tokens, self.scores.done_nats)

    def close(self, stream: Stream) -> None:
        """Cut the padding off, keep each document's vector, and note what ``stream`` holds."""
        feeds, scores, task = tuple(self.feeds), self.scores, self.scores.task
        for row, document in enumerate(self.batch.documents):
            nll = self.nll[row, self.first : len(document.ids) - 1]
            answers = self.asked[row].answers
            scores.scored.append(Scored(document, nll, self.first, feeds, answers))
        rows = len(self.batch.documents)
        formula = task.method.kv_formula_bytes(task.loaded, rows, feeds)
        scores.kv_bytes = max(scores.kv_bytes, stream.kv_bytes())
        scores.kv_formula_bytes = max(scores.kv_formula_bytes, formula)


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
    keys_before: int | None = None
    keys_after: int | None = None
    engine: str = "eager"
    compile_s: float = 0.0
    notes: tuple[str, ...] = ()


def result(task: Task, scores: Scores, timing: Timing, peak: PeakMemory) -> RunResult:
    """Add up a run."""
    peak_mem_mib = peak.mib()  # before the texts are put together to count their words
    attended = torch.cat(
        [task.method.attended(part.feeds)[part.first :][: len(part.nll)] for part in scores.scored]
    )
    longest = max(len(part.document.ids) for part in scores.scored)
    absolute = task.method.positions == "absolute"
    furthest = longest - 1 if absolute else int(attended.max())  # tokens before a prediction
    steady = timing.latency_ms[timing.steady]
    p50, p95, p99 = np.percentile(steady, (50, 95, 99)) if len(steady) else (None, None, None)
    return RunResult(
        documents=tuple(_document(task, part) for part in scores.scored),
        nll=torch.cat([part.nll for part in scores.scored]).numpy(),
        latency_ms=timing.latency_ms,
        engine=timing.engine,
        compile_s=timing.compile_s,
        attended_keys_min=int(attended.min()),
        attended_keys_mean=float(attended.double().mean()),
        attended_keys_max=int(attended.max()),
        positions=task.method.positions,
        eviction=task.method.eviction,
        total_s=timing.total_s,
        total_is_estimate=timing.total_is_estimate,
        prefill_s=timing.prefill_s,
        elapsed_s=timing.elapsed_s,
        warmup_tokens=int((~timing.steady).sum()) if timing.steady.any() else 0,
        ms_per_token=timing.ms_per_token,
        ms_per_token_p50=p50,
        ms_per_token_p95=p95,
        ms_per_token_p99=p99,
        time_growth=None if timing.total_is_estimate else _growth(timing.latency_ms),
        kv_mib=scores.kv_bytes / MIB,
        kv_formula_mib=scores.kv_formula_bytes / MIB,
        peak_mem_mib=peak_mem_mib,
        keys_before=timing.keys_before,
        keys_after=timing.keys_after,
        answers=tuple(answer for part in scores.scored for answer in part.answers),
        notes=(
            *past_trained_length(task.config.method, task.loaded, furthest),
            *task.method.notes(task.loaded, longest),
            *_parted(task),
            *timing.notes,
        ),
    )


def _growth(latency_ms: NDArray[np.float32]) -> float | None:
    tenth = (len(latency_ms) - 1) // 10  # the last chunk may be a short one
    if tenth < LONG // 10:
        return None
    early, late = latency_ms[tenth : 2 * tenth], latency_ms[9 * tenth : 10 * tenth]
    return float(np.median(late) / np.median(early))


def _document(task: Task, part: Scored) -> DocumentResult:
    words, utf8_bytes = text_size(task.loaded.tokenizer, part.document.ids[part.first :])
    return DocumentResult(
        name=part.document.name,
        scored_tokens=len(part.nll),
        nll_nats=float(part.nll.double().sum()),
        words=words,
        utf8_bytes=utf8_bytes,
        questions=len(part.answers) or None,
        right_answers=sum(each.right for each in part.answers) if part.answers else None,
    )
