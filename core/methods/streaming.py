"""StreamingLLM: attention sinks and a recent window, keys at positions in the cache.

After token t the cache keeps tokens {0..S-1} and {t-W+1..t}, so that a query sees S + W keys and
itself; kept keys count as standing at 0..n-1, the query at n (Xiao et al. 2023, arXiv 2309.17453,
section 3.2). Rotary attention depends on differences of positions only, and so

- the window's keys stay in a ring where the model put them, at increasing positions; the order of
  the ring means nothing to a softmax;
- only the S sinks move: at step t they are turned from their saved originals by t - (S+W), which
  costs O(S) a token and never drifts;
- a chunk of C tokens is exact too: every token's key is computed once with its own streaming view,
  the window is a band, and a query meets the sinks turned back by the same amount.

Shapes are static once the cache is full. Float32 phases fade as positions grow, so now and then the
whole frame is moved back to the start (``rebase``).

Knows nothing of texts, scores or clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from core import attention
from core.errors import UsageError
from core.methods.base import Method, Stream, check_native_window, key_bytes
from core.models import Loaded
from core.rope import Rotary, Turn

# How far past S + W the frame runs before it is moved back. The model computes phases in float32:
# over 40,000 tokens of the bundled model no token moved by more than 7e-5 nats at a reach of 256,
# 1.4e-4 at 1,024, 5e-4 at 4,096. Turning a float32 key costs nothing beside that; turning a
# half-precision one costs a rounding, as large as these, so there it is done rarely.
REACH, REACH_HALF = 512, 16384


@dataclass(frozen=True)
class ChunkView:
    """What a chunk of C queries sees; see ``core.attention.View``."""

    band: Tensor
    sinks: Tensor
    back: Turn


class StreamingLayer(CacheLayerMixin):
    """The keys and values of one layer: S sink slots, then a ring of W + 1.

    The ring has one slot more than the window because the token at hand is written before it
    attends; it takes the slot of the token that the step before it has evicted.
    """

    is_sliding = False
    is_compileable = False

    def __init__(self, cache: StreamingKVCache) -> None:
        super().__init__()
        self.cache = cache
        self.seen = 0  # tokens of the stream so far: t of the next token

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers once, for the shapes of the first keys (B, K, C, D)."""
        slots = self.cache.n_sink + self.cache.window + 1
        b, k, _, d = key_states.shape
        self.keys = key_states.new_zeros(b, k, slots, d)  # (B, K, S+W+1, D)
        self.values = value_states.new_zeros(b, k, slots, value_states.shape[-1])
        self.sinks = key_states.new_zeros(b, k, self.cache.n_sink, d)  # (B, K, S, D), as first seen
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store C tokens and return what they attend to.

        Args:
            key_states: (B, K, C, D), rotated to the positions that follow ``get_seq_length()``.
            value_states: (B, K, C, D).
            args: Unused; some versions of transformers pass more.
            kwargs: Unused, likewise.

        Returns:
            For one token, every key it sees: (B, K, min(t+1, S+W+1), D), and the values. For a
            chunk, the ring as it was before and the chunk itself; what each query sees of them is
            the cache's ``view``.

        Raises:
            UsageError: A chunk outgrows the cache under an attention that can't see it rightly.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        c, t, s = key_states.shape[-2], self.seen, self.cache.n_sink
        before: tuple[Tensor, Tensor] | None = None
        if c > 1:
            self.cache.check_chunk(t, c)
            ring = slice(s, None) if t > s else slice(0, 0)
            before = self.keys[:, :, ring], self.values[:, :, ring]
            # A copy, as the chunk is about to overwrite what its first queries still see.
            before = (
                torch.cat((before[0], key_states), -2),
                torch.cat((before[1], value_states), -2),
            )
        self._write(key_states, value_states)
        self.seen = t + c
        if before is not None and self.cache.streams:
            return before  # (B, K, (W+1)+C, D)
        if t >= s + self.cache.window and s:
            self.keys[:, :, :s] = self.cache.sink_turn(t)(self.sinks)
        n = min(t + c, self.keys.shape[-2])
        return self.keys[:, :, :n], self.values[:, :, :n]

    def _write(self, key_states: Tensor, value_states: Tensor) -> None:
        """Put each token in its slot: the first S to the sinks, the last W + 1 into the ring."""
        c, t, s, ring = key_states.shape[-2], self.seen, self.cache.n_sink, self.cache.window + 1
        if t < s:
            n = min(c, s - t)
            self.sinks[:, :, t : t + n] = key_states[:, :, :n]
            self.keys[:, :, t : t + n] = key_states[:, :, :n]
            self.values[:, :, t : t + n] = value_states[:, :, :n]
        first = max(t, s, t + c - ring)  # the first token of the chunk that the ring keeps
        if c == 1 and first == t:
            slot = s + (t - s) % ring
            self.keys[:, :, slot : slot + 1] = key_states
            self.values[:, :, slot : slot + 1] = value_states
        elif first < t + c:
            slots = s + (torch.arange(first, t + c, device=key_states.device) - s) % ring
            self.keys.index_copy_(2, slots, key_states[:, :, first - t :])
            self.values.index_copy_(2, slots, value_states[:, :, first - t :])

    def move(self, by: int) -> None:
        """Turn the ring's keys by ``by`` positions."""
        if self.is_initialized:
            s = self.cache.n_sink
            turn = self.cache.rotary.turn(torch.tensor([float(by)]))
            self.keys[:, :, s:] = turn(self.keys[:, :, s:])

    def get_seq_length(self) -> int:
        """Position of the next token in the cache's frame, from which the model counts on."""
        return self.seen - self.cache.base

    def get_mask_sizes(self, query: int | Tensor) -> tuple[int, int]:
        """Length and first position of the keys that ``query`` tokens will be given."""
        c = query if isinstance(query, int) else query.shape[0]
        n = min(self.seen + c, self.cache.n_sink + self.cache.window + 1)
        return n, self.get_seq_length() + c - n

    def get_max_cache_shape(self) -> int:
        """Keys that the layer holds at most: S + W + 1."""
        return self.cache.n_sink + self.cache.window + 1

    get_max_length = get_max_cache_shape

    def reset(self) -> None:
        """Forget the stream and keep the buffers."""
        self.seen = 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rearrange the rows of the batch, for beam search."""
        if self.is_initialized:
            for name in ("keys", "values", "sinks"):
                setattr(self, name, getattr(self, name).index_select(0, beam_idx))


class StreamingKVCache(Cache):
    """A transformers cache of S sinks and a window of W, for any RoPE model.

    Use it so::

        with streaming_attention(model):
            cache = StreamingKVCache(4, 1020, model)
            for ids in chunks:  # (B, C): one token or many, the result is the same
                cache.make_room(ids.shape[1])
                logits = model(ids, past_key_values=cache, stream=cache).logits

    One token at a time also works under the model's own attention, as in ``model.generate``.
    """

    def __init__(self, n_sink: int, window: int, model: Any) -> None:
        """An empty cache.

        Args:
            n_sink: S, attention sinks kept from the start of the stream; 0 is window attention.
            window: W, tokens before the query that it sees.
            model: The transformers model that will use it.

        Raises:
            UsageError: ``n_sink`` or ``window`` is out of range, or the model's positions can't be
                moved.
        """
        if n_sink < 0 or window < 1:
            raise UsageError(
                f"a cache of {n_sink} sinks and a window of {window}: "
                "n_sink must be 0 or more and window 1 or more."
            )
        self.n_sink, self.window = n_sink, window
        self.rotary = Rotary(model)
        self.config = model.config
        check_native_window(self.config, n_sink + window + 1)
        half = model.dtype.itemsize < 4
        self.reach = n_sink + window + (REACH_HALF if half else REACH)
        self.base = 0  # absolute position of the frame's position 0
        self._turns: dict[int, Turn] = {}
        self._views: dict[tuple[int, int], ChunkView] = {}
        self._device = model.device
        layers = [StreamingLayer(self) for _ in range(model.config.num_hidden_layers)]
        super().__init__(layers=layers)
        self.check_room(1)

    @property
    def streams(self) -> bool:
        """Whether the model attends through ``core.attention``, so that chunks are exact."""
        return bool(self.config._attn_implementation == attention.NAME)

    def make_room(self, tokens: int) -> None:
        """Move the frame back to the start where ``tokens`` more would take it too far.

        Call it between steps, never within a forward.

        Raises:
            UsageError: The model's frequencies change with length and the chunk doesn't fit.
        """
        if self.get_seq_length() + tokens > min(self.reach, self.rotary.limit or self.reach):
            self.rebase()
        self.check_room(tokens)

    def rebase(self) -> None:
        """Move the frame: the next token stands at S + W, where sinks are at their originals.

        Each key of the window is turned once, by the same number of positions; nothing that a
        query can see changes.
        """
        by = self.get_seq_length() - (self.n_sink + self.window)
        if by > 0:
            for layer in self.layers:
                layer.move(-by)
            self.base += by

    def check_room(self, tokens: int) -> None:
        """Raise ``UsageError`` where rotary frequencies that change with length would change."""
        self.rotary.check_room(self.n_sink + self.window + tokens)

    def check_chunk(self, t: int, c: int) -> None:
        """Raise ``UsageError`` where C tokens at t outgrow the cache without our attention."""
        if not self.streams and t + c > self.n_sink + self.window + 1:
            raise UsageError(
                f"a chunk of {c} tokens outgrows a cache of {self.n_sink}+{self.window} keys under "
                f"the model's own attention: use core.attention.streaming_attention(model)."
            )

    def sink_turn(self, t: int) -> Turn:
        """The rotation that takes the sinks to where the query at t must meet them."""
        delta = t - self.base - (self.n_sink + self.window)
        if delta not in self._turns:
            self._turns = {delta: self.rotary.turn(torch.tensor([float(delta)]))}
        return self._turns[delta]

    def sinks(self, layer: int) -> tuple[Tensor, Tensor]:
        """The saved sinks of a layer: keys and values, (B, K, S, D) each."""
        held = self.layers[layer]
        return held.sinks, held.values[:, :, : self.n_sink]

    def view(self, layer: int, c: int) -> ChunkView | None:
        """What the chunk of C tokens that ``layer`` was just given sees; None for one token."""
        if c == 1:
            return None
        t = self.layers[layer].seen - c
        if (t, c) not in self._views:
            self._views = {(t, c): self._look(t, c)}
        return self._views[t, c]

    def _look(self, t: int, c: int) -> ChunkView:
        s, ring, device = self.n_sink, self.window + 1, self._device
        query = torch.arange(t, t + c, device=device)  # (C,)
        held = torch.arange(ring if t > s else 0, device=device)
        # Slot r holds the latest token before t whose number is r modulo the ring's length.
        key = torch.cat((t - 1 - (t - 1 - s - held) % ring, query))  # (N,)
        distance = query[:, None] - key
        band = (distance >= 0) & (distance <= self.window) & (key >= s)  # (C, N)
        sinks = torch.arange(s, device=device) <= query[:, None]  # (C, S)
        back = (query - self.base - (s + self.window)).clamp(min=0)
        return ChunkView(band, sinks, self.rotary.turn(-back))

    def reset(self) -> None:
        """Forget the stream and keep the buffers."""
        super().reset()
        self.base = 0
        self._views = {}


class _CacheStream(Stream):
    def __init__(self, loaded: Loaded, cache: StreamingKVCache) -> None:
        self.model, self.cache = loaded.model, cache

    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        self.cache.make_room(ids.shape[1])
        with attention.streaming_attention(self.model):
            logits: Tensor = self.model(
                ids, past_key_values=self.cache, stream=self.cache, logits_to_keep=keep
            ).logits
        return logits

    def held(self) -> int:
        return min(int(self.cache.layers[0].seen), self.cache.n_sink + self.cache.window)

    def kv_bytes(self) -> int:
        held = (t for layer in self.cache.layers for t in (layer.keys, layer.values, layer.sinks))
        return sum(tensor.nbytes for tensor in held)


class Streaming(Method):
    """Attention sinks and a window (section 3.2 of the paper)."""

    positions = "cache"
    eviction = "after-step"

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache; its buffers take the batch from the first keys."""
        cache = StreamingKVCache(self.config.n_sink, self.config.window_size, loaded.model)
        return _CacheStream(loaded, cache)

    def kv_formula_bytes(self, loaded: Loaded, batch: int, feeds: Sequence[int]) -> int:
        """Keys and values of S + W + 1 tokens, and the S sinks' original keys."""
        held = 2 * self.config.attended_keys + self.config.n_sink
        return held * key_bytes(loaded.model, batch)


class Window(Streaming):
    """Window attention: the same cache with no sinks (``RunConfig`` sets ``n_sink`` to 0)."""
