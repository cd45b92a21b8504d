"""What a run found: plain values, units in the names. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FILLING = "too few tokens for steps with a full cache: latency is that of a filling cache."
# Share of the time that a thread may wait for a processor before times are doubted, see
# docs/decisions/0011-how-threads-wait.md.
WAITED = 0.1

LARGEST_EXPONENT = 700  # nats; a perplexity above it is infinite
Z = 1.959963984540054  # of the normal distribution, two-sided 5 %


@dataclass(frozen=True, kw_only=True)
class DocumentResult:
    """One document, which is one stream.

    Attributes:
        name: Its title, book number or file name.
        scored_tokens: Tokens that were scored: all but the first.
        nll_nats: Sum of the scored tokens' negative log-likelihoods, in nats.
        words: White-space separated words in the scored text.
        utf8_bytes: Bytes of the scored text in UTF-8.
        questions: Questions that were answered in it; None where it asks none.
        right_answers: How many of them rightly; None likewise.
    """

    name: str
    scored_tokens: int
    nll_nats: float
    words: int
    utf8_bytes: int
    questions: int | None = None
    right_answers: int | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a run made of one question.

    Attributes:
        distance: d, tokens from where the answer was told to the query that must know it; None
            where it was not told.
        candidates: How many answers were held apart.
        right: Whether the true one was the likeliest, see ``core.questions``.
    """

    distance: int | None
    candidates: int
    right: bool


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One finished run.

    Attributes:
        documents: Per-document figures, in reading order.
        nll: Negative log-likelihood of every scored token in nats, float32, documents end to end.
        latency_ms: Milliseconds of every forward that was timed, a step or a chunk, float32.
        engine: How a step with a full cache was executed: ``eager``, ``compiled``, ``cudagraph``.
        attended_keys_min: Fewest keys that a scored query saw, itself included.
        attended_keys_mean: Their mean.
        attended_keys_max: The most.
        positions: Where keys and query sit: ``cache`` (at 0, 1, ... in the cache), ``absolute`` (in
            the stream) or ``mixed`` (the query in the cache, a key where it first stood).
        eviction: When keys are dropped: ``after-step``, ``before-chunk``, ``every-k`` (after k
            steps), ``after-prefill``, ``re-encode`` or ``none``.
        total_s: Seconds for the whole stream in this mode; an estimate where ``total_is_estimate``.
        total_is_estimate: Whether ``total_s`` is timed tokens scaled up (``--timed-tokens``).
        compile_s: Seconds that went into compiling or capturing the step; in no other figure but
            ``elapsed_s``.
        prefill_s: Seconds that filled the cache before the timed tokens.
        elapsed_s: Wall seconds of the evaluation, as they passed.
        warmup_tokens: Decode steps left out of the ``ms_per_token`` figures: the first ones, and
            those before a document's cache is full.
        ms_per_token: Mean milliseconds a token (decode-loop: a step, which advances every row of
            the batch by one token; chunked: elapsed over scored tokens).
        ms_per_token_p50: Median of the decode steps; None in chunked mode, like the next two.
        ms_per_token_p95: Their 95th percentile.
        ms_per_token_p99: Their 99th percentile.
        time_growth: Median time of a forward in the last tenth of the run over that in the second
            tenth: 1 is flat; None in a sample, or of 100 forwards or fewer.
        kv_mib: Measured bytes of the keys and values that are held between steps, in MiB.
        kv_formula_mib: The same by formula: 2 x layers x B x K x D x keys x bytes a number.
        peak_mem_mib: Peak resident memory (CPU) or allocated memory (GPU) during the run.
        keys_before: Keys that the longest context's prefill made; None but in kvpress-official.
        keys_after: Keys of them that were still there when its continuation began; None likewise.
        answers: What became of each question, in the order of the stream; none but of a task.
        waited: Share of the evaluation for which a thread of the run stood ready and had no
            processor, as others had it, so that its times are too long; None where that is not
            known.
        notes: Sentences that a reader of the figures must know.
    """

    documents: tuple[DocumentResult, ...]
    nll: NDArray[np.float32]
    latency_ms: NDArray[np.float32]
    engine: str
    attended_keys_min: int
    attended_keys_mean: float
    attended_keys_max: int
    positions: str
    eviction: str
    total_s: float
    total_is_estimate: bool
    prefill_s: float
    elapsed_s: float
    warmup_tokens: int
    ms_per_token: float
    ms_per_token_p50: float | None
    ms_per_token_p95: float | None
    ms_per_token_p99: float | None
    time_growth: float | None
    kv_mib: float
    kv_formula_mib: float
    peak_mem_mib: float
    keys_before: int | None = None
    keys_after: int | None = None
    compile_s: float = 0.0
    answers: tuple[Answer, ...] = ()
    waited: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def scored_tokens(self) -> int:
        """Number of scored tokens over all documents."""
        return sum(document.scored_tokens for document in self.documents)

    @property
    def nll_nats(self) -> float:
        """Mean negative log-likelihood of a scored token, in nats, over all documents together."""
        return sum(document.nll_nats for document in self.documents) / self.scored_tokens

    @property
    def ppl(self) -> float:
        """Token perplexity: exp of the mean over all scored tokens, not a mean over documents."""
        return perplexity(self.nll_nats)

    @property
    def word_ppl(self) -> float:
        """Word perplexity: exp(total nats / white-space words of the scored text)."""
        return perplexity(
            self._total_nats / max(1, sum(document.words for document in self.documents))
        )

    @property
    def byte_ppl(self) -> float:
        """Byte perplexity: exp(total nats / UTF-8 bytes of the scored text)."""
        return perplexity(self._total_nats / self._bytes)

    @property
    def bits_per_byte(self) -> float:
        """Total nats / (ln 2 x UTF-8 bytes of the scored text)."""
        return self._total_nats / (math.log(2) * self._bytes)

    @property
    def tokens_per_s(self) -> float:
        """Scored tokens over ``total_s``."""
        return self.scored_tokens / self.total_s if self.total_s else math.nan

    @property
    def questions(self) -> int | None:
        """Number of questions; None where the text has none."""
        return len(self.answers) or None

    @property
    def accuracy(self) -> float | None:
        """Right answers over questions, whatever their distances; None without questions."""
        return accuracy(self.answers)[0] if self.answers else None

    @property
    def accuracy_low(self) -> float | None:
        """Lower end of its 95 % interval, by Wilson."""
        return accuracy(self.answers)[1] if self.answers else None

    @property
    def accuracy_high(self) -> float | None:
        """Upper end of it."""
        return accuracy(self.answers)[2] if self.answers else None

    @property
    def chance(self) -> float | None:
        """The accuracy of guessing: mean over questions of 1 / candidates."""
        if not self.answers:
            return None
        return sum(1 / each.candidates for each in self.answers) / len(self.answers)

    @property
    def _total_nats(self) -> float:
        return sum(document.nll_nats for document in self.documents)

    @property
    def _bytes(self) -> int:
        return max(1, sum(document.utf8_bytes for document in self.documents))


def accuracy(answers: Sequence[Answer]) -> tuple[float, float, float]:
    """Right answers over all of at least one, and the 95 % interval of that share."""
    right = sum(each.right for each in answers)
    return right / len(answers), *wilson(right, len(answers))


def wilson(right: int, asked: int) -> tuple[float, float]:
    """The 95 % score interval of a share of independent trials (Wilson, JASA 22, 1927).

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = right/asked, n = asked.
    """
    p, part = right / asked, Z * Z / asked
    half = Z * math.sqrt(p * (1 - p) / asked + part / (4 * asked))
    low, high = ((p + part / 2 + end) / (1 + part) for end in (-half, half))
    return min(p, max(0.0, low)), max(p, min(1.0, high))


def perplexity(nats: float) -> float:
    """exp(``nats``); infinite where that is beyond a float, and NaN stays NaN."""
    return math.inf if nats > LARGEST_EXPONENT else math.exp(nats)
