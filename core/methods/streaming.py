"""StreamingLLM (Xiao et al. 2023, arXiv 2309.17453, section 3.2) and window attention.

Both are ``core.cache.StreamingKVCache``, the latter with no sinks. A stream is read by the model as
it stands, or step by step through ``core.engine`` once its cache is full.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from core.cache import StreamingKVCache
from core.config import STATIC, RunConfig
from core.engine import Engine
from core.errors import StreamError
from core.kinds import Kind, in_words, kinds_of
from core.measure.meters import Clock
from core.methods.base import (
    Method,
    Stream,
    another_budget,
    attended_lazily,
    eviction,
    own_windows,
)
from core.models import anatomy
from core.models.loading import Loaded
from core.registry import METHODS


class CachedStream(Stream):
    """A stream through the cache, by the model as it stands or through an engine."""

    def __init__(
        self,
        loaded: Loaded,
        cache: StreamingKVCache,
        kind: str = "eager",
        owner: Streaming | None = None,
    ) -> None:
        self.model, self.cache, self.owner = loaded.model, cache, owner
        # On a CPU the eager step is no faster than the model with its cache, see
        # docs/decisions/0002-compiled-step.md.
        static = kind != "eager" or (self.model.device.type != "cpu" and cache.found.passes)
        self.stepper = Engine(self.model, cache, kind) if cache.static and static else None

    def warm(self, ids: Tensor) -> None:
        """Make the step of the engine once the cache is full."""
        if self.stepper and self.stepper.ready and not self.stepper.made:
            self.cache.make_room(1)
            clock = Clock(str(self.model.device))
            try:
                self.stepper.warm(ids)
            except StreamError as error:
                if not (self.owner and self.owner.may_be_eager):
                    raise
                self.owner.kind = "eager"  # of the streams that come after this one
                self.stepper, self.notes = None, (f"engine auto is eager here: {error}",)
                self.compile_s = clock.lap()
                return
            self.engine = self.stepper.kind
            self.compile_s = self.stepper.compile_s

    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        """See ``Stream``."""
        if self.stepper and self.stepper.made and ids.shape[1] == 1:
            self.cache.make_room(1)
            return self.stepper(ids)
        return self.cache.read(ids, keep)

    def held(self) -> int:
        """See ``Stream``."""
        return self.cache.kinds[self.cache.global_layer].held(self.cache.seen)

    def kv_bytes(self) -> int:
        """See ``Stream``."""
        return self.cache.nbytes


class Streaming(Method):
    """Attention sinks and a window (section 3.2 of the paper)."""

    spec = METHODS["streaming"]
    positions = "cache"
    stream: type[CachedStream] = CachedStream

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.every = config.steps_between_evictions()
        self.eviction = eviction(self.every)
        self.kind = config.engine if config.engine in STATIC else "eager"

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """S, W, k and the phase of the cache."""
        return self.config.n_sink, self.config.window_size, self.every, 0

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache; its buffers take the batch from the first keys."""
        sinks, window, every, phase = self.sizes
        cache = StreamingKVCache(sinks, window, loaded.model, every, phase)
        return self.stream(loaded, cache, self.kind, self)

    def attended(self, feeds: Sequence[int]) -> Tensor:
        """S + W and itself, and between evictions up to k - 1 more."""
        sinks, window, every, phase = self.sizes
        return attended_lazily(sum(feeds), sinks + window, every, phase)

    def layers(self, loaded: Loaded) -> str:
        """What each kind of layer keeps."""
        return in_words(self._kinds(loaded))

    def full_after(self, loaded: Loaded) -> int:
        """Once every layer is full; one with a window of its own may take longer."""
        return max(kind.slots for kind in self._kinds(loaded))

    def kv_formula_bytes(self, loaded: Loaded, batch: int, feeds: Sequence[int]) -> int:
        """Of each layer, keys and values of S + W + k tokens, and the S sinks' original keys."""
        numbers = 0
        for kind, layer in zip(self._kinds(loaded), anatomy.of(loaded.model).layers, strict=True):
            numbers += kind.slots * (layer.key_numbers + layer.value_numbers)
            numbers += kind.n_sink * layer.key_numbers
        return batch * numbers * int(loaded.model.dtype.itemsize)

    def _kinds(self, loaded: Loaded) -> tuple[Kind, ...]:
        return kinds_of(anatomy.of(loaded.model), *self.sizes)

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """An interval is another budget."""
        return (*another_budget(self.config.method, self.every), *own_windows(loaded))


class Window(Streaming):
    """Window attention: the same cache with no sinks (``RunConfig`` sets ``n_sink`` to 0)."""

    spec = METHODS["window"]
