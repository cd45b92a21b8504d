"""The authors' own cache, by its rule: keep keys un-rotated and rotate all of them at every step.

``StartRecentKVCache`` of github.com/mit-han-lab/streaming-llm (Xiao et al. 2023, arXiv 2309.17453)
slices and concatenates its start and its recent keys after every step (``kv_cache.py``), and its
patched attentions (``pos_shift/modify_*.py``) rotate the n keys at hand to 0..n-1 every time.
Written anew from that rule; like theirs it costs O(W) a token.

Where it differs: theirs patches the model so that keys reach the cache un-rotated. Here the model
is transformers' own, and a key that comes in rotated to its place is turned back once. Float32 does
not notice; half precision pays with one more rounding of each key, which does not add up.
Their demo also makes room for the answer to come; here a chunk makes room for itself only.

Knows nothing of texts, scores or clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from core.config import RunConfig
from core.errors import UsageError
from core.kinds import Kind, in_words, kinds_of
from core.methods.base import (
    BEFORE_CHUNK,
    CacheStream,
    Method,
    Stream,
    another_budget,
    eviction,
    own_windows,
)
from core.models import anatomy
from core.models.loading import Loaded
from core.registry import METHODS
from core.rope import Rotation, Turn


class StartRecentLayer(DynamicLayer):
    """The keys of one layer, un-rotated, and its values: (B, K, n, D) each, in order."""

    keys: Tensor
    values: Tensor

    def __init__(self, cache: StartRecentKVCache, kind: Kind) -> None:
        super().__init__()
        self.cache, self.kind = cache, kind
        self.is_sliding = kind.own

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store C tokens and return every key, rotated to its place in the cache.

        Args:
            key_states: (B, K, C, D), rotated to p..p+C-1 where the cache holds p keys.
            value_states: (B, K, C, D).
            args: Unused; some versions of transformers pass more.
            kwargs: Unused, likewise.

        Returns:
            The n + C keys (B, K, n+C, D) of this layer, the last of them at p+C-1, and the values.
        """
        if self.kind.latent:
            turned, others = self._update(value_states, key_states)
            return others, turned
        return self._update(key_states, value_states)

    def _update(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        n, c, p = self.held, key_states.shape[-2], self.cache.position
        rotation = self.kind.turns
        if rotation:
            key_states = self.cache.turn(rotation, -p, -1, c)(key_states)
        keys, values = super().update(key_states, value_states)  # (B, K, n+C, D), a new tensor
        if self.kind.own:  # its own mask shows no more to the next token
            self.keep(0, self.kind.window)
        if self is self.cache.layers[-1]:
            self.cache.position += c
        return self.cache.turn(rotation, p - n, 1, n + c)(keys) if rotation else keys, values

    @property
    def held(self) -> int:
        """n, keys that this layer holds."""
        return self.keys.shape[-2] if self.is_initialized and self.keys.numel() else 0

    def get_seq_length(self) -> int:
        """p, keys that the cache holds in layers that see all: where the next token stands."""
        return self.cache.position

    def get_mask_sizes(self, query: Any) -> tuple[int, int]:
        """Length and first position of the keys that ``query`` tokens will be given."""
        c = query if isinstance(query, int) else query.shape[0]
        return self.held + c, self.cache.position - self.held

    def keep(self, start: int, recent: int) -> None:
        """Concatenate the first ``start`` and the last ``recent`` tokens, and drop the others."""
        if (n := self.held) > start + recent:
            self.keys, self.values = (
                torch.cat((held[:, :, :start], held[:, :, n - recent :]), dim=-2)
                for held in (self.keys, self.values)
            )

    def reset(self) -> None:
        """Forget the stream."""
        self.is_initialized = False
        self.keys = self.values = torch.empty(0)
        self.cache.position = 0


class StartRecentKVCache(Cache):
    """A transformers cache of the first and the most recent tokens, for any RoPE model.

    One token at a time::

        cache = StartRecentKVCache(4, 1020, model)
        for ids in tokens:  # (B, 1)
            logits = model(ids, past_key_values=cache).logits
            cache.evict()
    """

    def __init__(self, start_size: int, recent_size: int, model: Any, every: int = 1) -> None:
        """An empty cache.

        Args:
            start_size: S, tokens kept from the start of the stream.
            recent_size: W, most recent tokens kept.
            model: The transformers model that will use it.
            every: k, single tokens between evictions.

        Raises:
            UsageError: A size is out of range, or the model's positions can't be moved.
        """
        if start_size < 0 or recent_size < 1:
            raise UsageError(
                f"a cache of {start_size} sinks and a window of {recent_size}: "
                "n_sink must be 0 or more and window 1 or more."
            )
        self.start_size, self.recent_size = start_size, recent_size
        self.found, self.every = anatomy.of(model), every
        kinds = kinds_of(self.found, start_size, recent_size, every)
        if any(kind.block for kind in kinds):
            raise UsageError(
                "mit keeps windows, and this model has layers that look back by blocks: "
                "use --method streaming."
            )
        self.position = 0  # keys held in layers that see all that came before
        self._turns: dict[tuple[Rotation, int], tuple[tuple[int, int], Turn]] = {}
        super().__init__(layers=[StartRecentLayer(self, kind) for kind in kinds])
        self.check_room(start_size + recent_size + every)

    def evict(self) -> None:
        """After a step: keep S + W tokens (their ``__call__``)."""
        if self.position > self.start_size + self.recent_size:
            self._keep(self.recent_size)

    def evict_for_space(self, num_coming: int) -> None:
        """Before a chunk: keep so few recent tokens that it fits into S + W, or none."""
        if self.position + num_coming > self.start_size + self.recent_size:
            self._keep(max(0, self.recent_size - num_coming))
        self.check_room(self.position + num_coming)

    def _keep(self, recent: int) -> None:
        for layer in self.layers:
            if not layer.kind.own:
                layer.keep(self.start_size, recent)
        self.position = min(self.position, self.start_size + recent)

    def check_room(self, positions: int) -> None:
        """Raise ``UsageError`` where so many keys are more than the model can place."""
        kinds_of(self.found, 0, positions - 1, 1)
        self.found.check_room(positions, "a smaller --window or --chunk-size")

    def turn(self, rotation: Rotation, first: int, step: int, count: int) -> Turn:
        """The rotation by ``first``, ``first + step``, ...: once for all layers of a forward."""
        (last, turn), key = self._turns.get((rotation, step), ((0, -1), None)), (first, count)
        if turn is None or last != key:
            turn = rotation.turn(torch.arange(first, first + step * count, step))
            self._turns[rotation, step] = key, turn
        return turn


class _MitStream(CacheStream):
    def __init__(self, model: Any, cache: StartRecentKVCache, every: int) -> None:
        super().__init__(model, cache)
        self.every, self.steps = every, 0

    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        if ids.shape[1] > 1:
            self.cache.evict_for_space(ids.shape[1])
        logits = super().feed(ids, keep)
        if self.steps % self.every == 0:
            self.cache.evict()
        self.steps += 1
        return logits


class Mit(Method):
    """``StartRecentKVCache``; one token sees what streaming's sees, a chunk does not."""

    spec = METHODS["mit"]
    positions = "cache"

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.every = config.steps_between_evictions()
        self.eviction = BEFORE_CHUNK if config.mode_spec.chunked else eviction(self.every)

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache."""
        sinks, window = self.config.n_sink, self.config.window_size
        cache = StartRecentKVCache(sinks, window, loaded.model, self.every)
        return _MitStream(loaded.model, cache, self.every)

    def attended(self, feeds: Sequence[int]) -> Tensor:
        """What was held, less the room that a chunk makes, and the feed up to the token itself."""
        sinks, window = self.config.n_sink, self.config.window_size
        held, seen = 0, []
        for step, coming in enumerate(feeds):
            if coming > 1 and held + coming > sinks + window:
                held = min(held, sinks) + max(0, window - coming)
            seen.append(torch.arange(1, coming + 1) + held)
            held += coming
            if step % self.every == 0:
                held = min(held, sinks + window)
        return torch.cat(seen)

    def layers(self, loaded: Loaded) -> str:
        """What each kind of layer keeps."""
        return in_words(self._kinds(loaded))

    def full_after(self, loaded: Loaded) -> int:
        """Once every layer is full; one with a window of its own may take longer."""
        return max(kind.slots for kind in self._kinds(loaded))

    def kv_formula_bytes(self, loaded: Loaded, batch: int, feeds: Sequence[int]) -> int:
        """Keys and values of S + W tokens and those not yet evicted, or of all that there were."""
        held = min(sum(feeds), self.config.attended_keys - 1 + (len(feeds) - 1) % self.every)
        numbers, layers = 0, anatomy.of(loaded.model).layers
        for kind, layer in zip(self._kinds(loaded), layers, strict=True):
            own = min(sum(feeds), kind.window) if kind.own else held
            numbers += own * (layer.key_numbers + layer.value_numbers)
        return batch * numbers * int(loaded.model.dtype.itemsize)

    def _kinds(self, loaded: Loaded) -> tuple[Kind, ...]:
        sizes = self.config.n_sink, self.config.window_size, self.every
        return kinds_of(anatomy.of(loaded.model), *sizes)

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """Chunks are the authors', not the exact form."""
        size, budget = self.config.chunk, self.config.attended_keys
        notes = (*another_budget(self.config.method, self.every), *own_windows(loaded))
        if self.every > 1 or not self.config.mode_spec.chunked or size == 1 or length <= budget - 1:
            return notes
        if length - 1 <= size:  # nothing is predicted after the last token
            return (
                *notes,
                f"mit evicts between chunks, and no document is longer than a chunk of {size}: "
                "nothing is evicted, so that this is dense attention.",
            )
        left = self.config.n_sink + max(0, self.config.window_size - size)
        return (
            *notes,
            f"mit evicts before a chunk, as its authors' code does: a chunk of {size} tokens finds "
            f"{left} keys, its first token sees {left + 1} and its last {left + size}, where the "
            f"exact form (streaming, or mit in the decode loop) shows {budget} to each.",
        )
