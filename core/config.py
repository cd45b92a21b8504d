"""One run, described: validated once, frozen, passed whole. Torch-free."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from core import registry
from core.errors import UsageError, unknown

DTYPES = ("float32", "bfloat16", "float16")
SOURCES = ("auto", "hub", "bundled")
ENGINES = ("auto", "eager", "compiled", "cudagraph")
DEFAULT_MODEL = "EleutherAI/pythia-70m"
AT_LEAST_ONE = (
    "window",
    "max_tokens",
    "timed_tokens",
    "context_tokens",
    "evict_every",
    "chunk_size",
    "batch_size",
    "threads",
)
# No text has more tokens, and what is computed from these still fits into 64 bits.
AT_MOST = {**dict.fromkeys((*AT_LEAST_ONE, "n_sink"), 10**12), "seed": 2**63 - 1}
MAX_TOKENS = 4096
# C, and tokens a forward of all rows, beyond which memory grows and time does not shrink. Two cores
# take pythia-70m 1.29 ms a token with 64 of one row, 0.94 with 256 and 0.91 with 1,024; of 8 rows
# 0.94 with 32, 0.79 with 128 and 0.86 with 256.
CHUNK, LEAST_CHUNK, FORWARD = 256, 64, 1024
OFFICIAL = "kvpress-official"
LAZY = {  # methods that may evict every k steps, and k where none is given
    "streaming": 1,
    "window": 1,
    "mit": 1,
    "kvpress-interval": 64,
}
STATIC = ("streaming", "window")  # methods whose step has static shapes, in the decode loop
ONLY_IN = {"timed_tokens": "decode-loop", "context_tokens": OFFICIAL}  # options of one mode


def may_delay(method: str, mode: str) -> bool:
    """Whether a method may evict every k steps; before a chunk, ``mit`` evicts in any case."""
    return method in LAZY and (method, mode) != ("mit", "chunked")


def left_out(method: str, mode: str) -> dict[str, Any]:
    """The options that a method or mode does not have, each with the value that leaves it out."""
    out: dict[str, Any] = {name: None for name, only in ONLY_IN.items() if mode != only}
    if not may_delay(method, mode):
        out["evict_every"] = None
    if not has_engine(method, mode):
        out["engine"] = "auto"
    if mode == OFFICIAL:
        out["batch_size"] = 1
    return out


def has_engine(method: str, mode: str) -> bool:
    """Whether a step may be executed otherwise than eagerly."""
    return method in STATIC and mode == "decode-loop"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What to measure, on what, and how.

    ``None`` means "decide when the model is loaded"; ``resolved`` fills those in, and only a
    resolved configuration is run or stored.
    """

    model: str = DEFAULT_MODEL
    dataset: str = "wikitext"
    method: str = "streaming"
    mode: str = "decode-loop"
    n_sink: int = 4
    window: int | None = None  # half the trained length less the sinks: 4 + 1020 on Pythia
    max_tokens: int | None = None  # MAX_TOKENS, or twice the trained length where that is less
    timed_tokens: int | None = None
    context_tokens: int | None = None  # 3/4 of each document, in the mode that has a context
    evict_every: int | None = None  # k, steps between evictions: LAZY's where not given
    chunk_size: int | None = None  # 256, and fewer where more than 4 rows go in step
    batch_size: int = 1
    dtype: str = "float32"
    device: str = "auto"
    engine: str = "auto"  # of a decode step: compiled where that pays back, or eager
    threads: int | None = None  # the machine's cores
    seed: int = 0
    source: str = "auto"
    trust: bool = False

    def __post_init__(self) -> None:
        registry.check("method", self.method)
        registry.check("mode", self.mode)
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        if self.source not in SOURCES:
            raise unknown("source", self.source, SOURCES)
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)
        if self.n_sink < 0:
            raise UsageError(
                f"n_sink is {self.n_sink}: it must be 0 or more (0 is window attention)."
            )
        for name in AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}: it must be 1 or more.")
        for name, most in AT_MOST.items():
            value = getattr(self, name)
            if value is not None and abs(value) > most:
                raise UsageError(f"{name} is {value}: it must be {most:,} or less.")
        self._check_mode()
        self._check_eviction()
        self._check_engine()
        if self.method == "window" and self.n_sink:  # no sinks, and the budget stays the same
            if self.window is not None:
                object.__setattr__(self, "window", self.window + self.n_sink)
            object.__setattr__(self, "n_sink", 0)

    def _check_mode(self) -> None:
        """Refuse what only another mode can do."""
        for name, mode in ONLY_IN.items():
            if getattr(self, name) is not None and self.mode != mode:
                raise UsageError(
                    f"{name} is for mode {mode!r}, not {self.mode!r}: "
                    f"leave it out, or use --mode {mode}."
                )
        if self.mode == OFFICIAL and self.batch_size > 1:
            raise UsageError(
                f"batch_size is {self.batch_size}: kvpress's pipeline takes one context at a time, "
                f"so --mode {OFFICIAL} has --batch-size 1."
            )

    def _check_eviction(self) -> None:
        """Refuse to put eviction off where the method, or its chunks, have a rule of their own."""
        if (self.evict_every or 1) == 1 or may_delay(self.method, self.mode):
            return
        if self.method not in LAZY:
            raise UsageError(
                f"evict_every is {self.evict_every}, but {self.method!r} has a rule of its own: "
                f"leave it out, or use --method {' or '.join(LAZY)}."
            )
        raise UsageError(
            f"evict_every is {self.evict_every}, but {self.method!r} evicts before every chunk: "
            "leave it out, or use --mode decode-loop."
        )

    def _check_engine(self) -> None:
        """Refuse another engine where steps are as the method's authors have them."""
        if self.engine not in ("auto", "eager") and not has_engine(self.method, self.mode):
            what = self.method if self.method not in STATIC else self.mode
            raise UsageError(
                f"engine is {self.engine!r}, but {what!r} is eager only: leave it out, or use "
                f"--method {' or '.join(STATIC)} in --mode decode-loop."
            )

    def tokens_to_read(self, trained_length: int) -> int:
        """``max_tokens``, or what it is for a model of so many positions."""
        return self.max_tokens or min(MAX_TOKENS, 2 * trained_length)

    def context_of(self, length: int) -> int:
        """Tokens of context of a document of so many, in the mode that has one."""
        return self.context_tokens or length * 3 // 4

    def steps_between_evictions(self) -> int:
        """``evict_every``, or what it is where it was left open."""
        return self.evict_every or LAZY.get(self.method, 1)

    def fitted(self, trained_length: int) -> RunConfig:
        """A copy in which what was left open is filled in for a model of so many positions."""
        return replace(
            self,
            window=self.window or max(1, trained_length // 2 - self.n_sink),
            max_tokens=self.tokens_to_read(trained_length),
            evict_every=self.steps_between_evictions(),
            chunk_size=self.chunk,
        )

    def resolved(self, **found: Any) -> RunConfig:
        """A copy in which what was left open is filled in from what was found."""
        return replace(self, **found)

    @property
    def window_size(self) -> int:
        """W, which is settled once the model is loaded."""
        if self.window is None:
            raise UsageError("window is not resolved yet: load the model first.")
        return self.window

    @property
    def chunk(self) -> int:
        """C, tokens of each row that a forward takes in chunks; the default where there is none."""
        if self.mode != "chunked" and not self.timed_tokens:
            return CHUNK
        return self.chunk_size or max(LEAST_CHUNK, min(CHUNK, FORWARD // self.batch_size))

    @property
    def attended_keys(self) -> int:
        """L = S + W + 1: the keys that a query sees once the cache is full, itself included."""
        return self.n_sink + self.window_size + 1

    @property
    def key(self) -> str:
        """Sixteen hex digits that name this configuration; equal configurations, equal keys."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the fields, in order."""
        return tuple(field.name for field in fields(cls))
