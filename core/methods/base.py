"""What a method is: how a stream of tokens is remembered, and what that costs.

Knows nothing of texts, scores or clocks: modes have those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core import registry
from core.attending import cache_name
from core.config import RunConfig
from core.models import anatomy
from core.models.loading import Loaded
from core.registry import MethodSpec


class Stream(ABC):
    """One batch of documents on their way through a model, in step.

    Attributes:
        engine: How the last step was executed, see ``core.engine``.
        compile_s: Seconds that went into making a step fast, which no step's time may contain.
        notes: What a reader must know of how its steps were made.
    """

    engine = "eager"
    compile_s = 0.0
    notes: tuple[str, ...] = ()

    @abstractmethod
    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        """Read the next C tokens of each document and predict the ones after them.

        Args:
            ids: (B, C) int64.
            keep: Predict after the last ``keep`` of them only; 0 is after each.

        Returns:
            Logits (B, ``keep`` or C, V).
        """

    def warm(self, ids: Tensor) -> None:
        """Do before the step of ``ids`` (B, 1) what only the first such step needs, if anything."""
        return

    @abstractmethod
    def held(self) -> int:
        """Keys that wait for the next token: it sees them and itself."""

    @abstractmethod
    def kv_bytes(self) -> int:
        """Bytes of the keys and values held between steps."""


class CacheStream(Stream):
    """A stream through a transformers cache that the model fills by itself."""

    def __init__(self, model: Any, cache: Any) -> None:
        self.model, self.cache, self.name = model, cache, cache_name(model)

    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        """See ``Stream``."""
        logits: Tensor = self.model(ids, **{self.name: self.cache}, logits_to_keep=keep).logits
        return logits

    def held(self) -> int:
        """See ``Stream``."""
        return int(self.cache.get_seq_length())

    def kv_bytes(self) -> int:
        """See ``Stream``."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)


class Method(ABC):
    """A way to remember a stream, set up for one run.

    Attributes:
        positions: Where keys and query sit, see ``RunResult``.
        eviction: When keys are dropped, see ``RunResult``.
        spec: What it is; a class of another package inherits or states it here.
        parameters: The options that it alone has, an object of the dataclass that its spec names;
            None where there are none.
        may_be_eager: Whether an engine that can't be had gives way, as nobody asked for it.
    """

    positions: str
    eviction: str
    spec: MethodSpec
    may_be_eager = False

    def __init__(self, config: RunConfig) -> None:
        self.config, self.spec = config, config.spec
        self.parameters: Any = None
        if self.spec.parameters:
            self.parameters = registry.imported(self.spec.parameters)(**dict(config.param))

    @abstractmethod
    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty memory for ``batch`` documents."""

    def check(self, loaded: Loaded, length: int) -> None:
        """Raise ``UsageError`` where a stream of ``length`` tokens can't be right on this model."""
        return

    def layers(self, loaded: Loaded) -> str:
        """What each kind of the model's layers keeps or sees, in words."""
        return anatomy.of(loaded.model).layers_in_words

    @property
    def cycle(self) -> int:
        """Steps after which the work of a step repeats: those from one eviction to the next."""
        return self.config.steps_between_evictions()

    def full_after(self, loaded: Loaded) -> int:
        """Tokens after which every step costs the same; 0 where no such point comes."""
        return self.config.attended_keys + self.config.steps_between_evictions() - 1

    def attended(self, feeds: Sequence[int]) -> Tensor:
        """How many keys each token sees, itself included, fed so many at a time: (T,) int64."""
        return torch.arange(1, sum(feeds) + 1).clamp(max=self.config.attended_keys)

    @abstractmethod
    def kv_formula_bytes(self, loaded: Loaded, batch: int, feeds: Sequence[int]) -> int:
        """Bytes that the method holds after such feeds, computed from the model's shape."""

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """What a reader must know of a stream of ``length`` tokens under this method."""
        return ()


def method_of(config: RunConfig) -> Method:
    """The method of a resolved configuration, set up for it."""
    made: Method = registry.load("method", config.method)(config)
    return made


BEFORE_CHUNK = "before-chunk"  # room is made for a chunk that comes; see ``RunResult``


def eviction(every: int) -> str:
    """When keys are dropped, one at a time or ``every`` so many steps; see ``RunResult``."""
    return "after-step" if every == 1 else f"every-{every}"


def attended_lazily(tokens: int, kept: int, every: int, phase: int = 0) -> Tensor:
    """Keys that each token sees (T,), cut to ``kept`` after every k-th token, such as ``phase``."""
    t = torch.arange(tokens)
    cut = (t - phase - 1).div(every, rounding_mode="floor") * every + phase + 1
    return t + 1 - (cut - kept).clamp(min=0)


def another_budget(method: str, every: int) -> tuple[str, ...]:
    """A note where a cache holds more keys than its budget between two evictions."""
    if every == 1:
        return ()
    return (f"{method} evicts every {every} steps: up to {every - 1} keys beyond the budget.",)


def own_windows(loaded: Loaded) -> tuple[str, ...]:
    """A note where some layers have a window of their own, which no budget changes."""
    layers = anatomy.of(loaded.model).layers
    own = [layer.native.keys for layer in layers if layer.native]
    if not own or len(own) == len(layers):
        return ()
    return (
        f"the budget is that of the {len(layers) - len(own)} of {len(layers)} layers that see all: "
        f"the others keep the model's own {max(own):,} keys, of which re-computation over L tokens "
        "shows them L at most.",
    )


def token_bytes(loaded: Loaded, batch: int) -> int:
    """Bytes of one token's keys and values in all layers."""
    model = loaded.model
    numbers: int = anatomy.of(model).token_numbers
    return batch * numbers * int(model.dtype.itemsize)


def past_trained_length(method: str, loaded: Loaded, length: int) -> tuple[str, ...]:
    """A note where positions go beyond those that the model was trained on."""
    if length <= loaded.trained_length:
        return ()
    beyond = length - loaded.trained_length
    return (
        f"{method} ran {beyond:,} token{'s' * (beyond > 1)} past the trained length of "
        f"{loaded.trained_length:,}, on positions that the model never saw.",
    )
