"""StreamingLLM by the package kvpress (github.com/NVIDIA/kvpress, 0.5.5): four ways to use it.

Its ``StreamingLLMPress`` was made to shorten a prompt once; a ``DecodingPress`` around it acts
between decode steps as well. What runs is the package's own code, through
``core.methods.press``; set here are its parameters: S sinks, and S + W tokens to keep, so that
the budget is everybody's.
Line numbers are those of ``kvpress/presses/`` in 0.5.5, and of its ``pipeline.py``.

What the four share, as the package has it:

- the first forward of a stream is its prompt (``base_press.py:37-40``): one token in
  ``decode-loop``, a chunk in ``chunked``, the context in ``kvpress-official``;
- a later forward is one step, of however many tokens (``decoding_press.py:129-141``): a chunk of C
  sees what the step before has left, S + W keys, and itself, so its last token sees S + W + C;
- positions are transformers' default ones, which count on from the length of the cache.

Knows nothing of texts, scores or clocks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from core.config import RunConfig
from core.methods import press
from core.methods.base import (
    Method,
    Stream,
    another_budget,
    eviction,
    token_bytes,
)
from core.models.loading import Loaded
from core.registry import METHODS


class _Presses(Method):
    """What the four have in common.

    Attributes:
        words: The press in words.
        cuts_prompt: Whether the prompt is cut to S + W tokens.
        interval: Steps after which the cache is cut to S + W tokens; None where it never is.
    """

    words: str
    cuts_prompt = True
    interval: int | None = 1
    positions = "cache"

    @abstractmethod
    def make(self, kvpress: Any, prompt: int) -> Any:
        """The press for a stream that begins with a prompt of so many tokens."""

    @property
    def kept(self) -> int:
        """S + W."""
        return self.config.attended_keys - 1

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache.

        Raises:
            UsageError: The package is not there, or the model's positions can't be moved.
        """
        kvpress = press.load()
        absolute = self.positions == "absolute"
        return press.PressStream(loaded.model, lambda prompt: self.make(kvpress, prompt), absolute)

    def attended(self, feeds: Sequence[int]) -> Tensor:
        """What was held, and the feed up to the token itself."""
        return self._follow(feeds)[0]

    def kv_formula_bytes(self, loaded: Loaded, batch: int, feeds: Sequence[int]) -> int:
        """Keys and values of the tokens that the last feed left."""
        return self._follow(feeds)[1] * token_bytes(loaded, batch)

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """Which press it is, and what it does with a chunk."""
        notes = (f"kvpress {version('kvpress')}: {self.words}.",)
        size = self.config.chunk
        if not self.config.mode_spec.chunked or size == 1 or not self.interval:
            return notes
        left = self.kept if self.cuts_prompt else max(self.kept, size)
        most = left + size * (1 if size >= self.kept else self.interval)
        return (
            *notes,
            "kvpress takes a chunk for one step and evicts after it: a token sees the keys that "
            f"were left and its chunk up to itself, {most} at most, where the exact form "
            f"(streaming, or kvpress in the decode loop) shows {self.kept + 1}.",
        )

    def _follow(self, feeds: Sequence[int]) -> tuple[Tensor, int]:
        """Keys seen by each token (T,), and keys held in the end."""
        held, steps, seen = 0, 0, []
        for place, coming in enumerate(feeds):
            seen.append(torch.arange(1, coming + 1) + held)
            held += coming
            steps += place > 0
            step_cuts = self.interval and (steps >= self.interval or coming >= self.kept)
            if self.cuts_prompt if place == 0 else step_cuts:
                held, steps = min(held, self.kept), 0
        return torch.cat(seen), held

    def _scorer(self, kvpress: Any, tokens: int = 0) -> Any:
        """A ``StreamingLLMPress`` with the ratio that keeps S + W of so many tokens.

        The package rounds ``tokens * (1 - ratio)`` down (``streaming_llm_press.py:50``); the half
        keeps floating point from falling below.
        """
        ratio = 1 - (self.kept + 0.5) / tokens if tokens > self.kept else 0.0
        return kvpress.StreamingLLMPress(compression_ratio=ratio, n_sink=self.config.n_sink)


class Kvpress(_Presses):
    """What the paper means, by the package's parts; equals ``streaming`` one token at a time.

    ``PrefillDecodingPress`` cuts the prompt and lets a ``DecodingPress`` of interval 1 cut after
    every step, both around a ``StreamingLLMPress`` that re-rotates its keys
    (``core.methods.press``). It turns the keys it holds a little further at each step, which
    float32 does not notice and half precision does: the error adds up over the W steps that a key
    lives.

    Deviation: for a ``PrefillDecodingPress`` the package's pipeline counts on from the length of
    the context (``pipeline.py:237-238``); here the query stands at that of the cache.
    """

    words = (
        "PrefillDecodingPress and DecodingPress around StreamingLLMPress with KeyRerotationPress"
    )
    spec = METHODS["kvpress"]

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.interval = config.steps_between_evictions()
        self.eviction = eviction(self.interval)

    def make(self, kvpress: Any, prompt: int) -> Any:
        """Cut the prompt, and then after every ``interval`` steps."""
        return kvpress.PrefillDecodingPress(
            prefilling_press=press.rerotating(kvpress, self._scorer(kvpress, prompt)),
            decoding_press=kvpress.DecodingPress(
                base_press=press.rerotating(kvpress, self._scorer(kvpress)),
                compression_interval=self.interval,
                target_size=self.kept,
                hidden_states_buffer_size=0,  # StreamingLLMPress looks at none
            ),
        )

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """Half precision drifts, and an interval is another budget."""
        notes = super().notes(loaded, length)
        if self.config.dtype != "float32":
            drift = f"kvpress re-rotates its keys step by step: in {self.config.dtype} they drift."
            notes = (*notes, drift)
        return (*notes, *another_budget(self.config.method, self.interval or 1))


class Interval(Kvpress):
    """The same, evicting every k steps: the cache saw-tooths between S + W and S + W + k keys."""

    spec = METHODS["kvpress-interval"]


class Stock(_Presses):
    """The registered ``DecodingPress(StreamingLLMPress())``, as shipped: it loses its sinks.

    ``StreamingLLMPress`` scores what it keeps 1 and the rest 0 (``streaming_llm_press.py:51-52``),
    and ``ScorerPress`` takes the ``topk`` of that (``scorer_press.py:96``): equal scores come in
    any order, so keys are shuffled, and at the next step the first S of them are not the sinks.
    Nor are they re-rotated: each stays where it first stood, the query stands at the length of the
    cache, and so all of the window ends up at one position. In ``kvpress-official`` the query
    stands at its place in the stream instead, as in the package's pipeline
    (``pipeline.py:289-312``), and the context is not cut before the first step (``:214-216``).

    Deviation: registered are an interval of 512 steps, 2,048 tokens and 4 sinks; set here are 1,
    S + W and S.
    """

    spec = METHODS["kvpress-stock"]
    words = "DecodingPress(StreamingLLMPress) as shipped; it loses the sinks and re-rotates nothing"
    eviction = "after-step"
    cuts_prompt = False

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.positions = "absolute" if config.mode_spec.context else "mixed"

    def make(self, kvpress: Any, prompt: int) -> Any:
        """As registered, with the run's budget."""
        return kvpress.DecodingPress(
            base_press=self._scorer(kvpress), compression_interval=1, target_size=self.kept
        )


class Prefill(_Presses):
    """The press by itself: the prompt is cut once, and nothing is evicted later. Not streaming.

    It acts on the prompt only (``base_press.py:144-146``). Re-rotated, as the docstring of
    ``StreamingLLMPress`` asks, and so the query stands at the cache's length, as in the package's
    pipeline (``pipeline.py:237-238``).
    """

    spec = METHODS["kvpress-prefill"]
    words = "StreamingLLMPress with KeyRerotationPress; not streaming: nothing is evicted later"
    eviction = "after-prefill"
    interval = None

    def full_after(self, loaded: Loaded) -> int:
        """Never: each step costs more than the one before."""
        return 0

    def make(self, kvpress: Any, prompt: int) -> Any:
        """Cut the prompt."""
        return press.rerotating(kvpress, self._scorer(kvpress, prompt))

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """Of a short prompt nothing is cut."""
        mode, prompt = self.config.mode_spec, 1
        if mode.context:
            prompt = self.config.context_of(length)
        elif mode.chunked:
            prompt = min(self.config.chunk, length)
        cut = max(0, prompt - self.kept)
        done = f"a prompt of length {prompt} was cut to {self.kept} keys; all that follow stay."
        if not cut:
            done = f"of a prompt of length {prompt} nothing was cut: this is dense attention."
        return (*super().notes(loaded, length), done)
