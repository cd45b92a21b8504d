"""The streaming cache: attention sinks and a recent window, keys at positions in the cache.

After token t the cache keeps tokens {0..S-1} and {t-W+1..t}, so that a query sees S + W keys and
itself; kept keys count as standing at 0..n-1, the query at n (Xiao et al. 2023, arXiv 2309.17453,
section 3.2). Rotary attention depends on differences of positions only, and so

- the window's keys stay in a ring where the model put them, at increasing positions; the order of
  the ring means nothing to a softmax;
- only the S sinks move: at step t they are turned from their saved originals by t - (S+W), which
  costs O(S) a token and never drifts;
- a chunk of C tokens is exact too: every token's key is computed once with its own streaming view,
  the window is a band, and a query meets the sinks turned back by the same amount.

With ``evict_every`` k > 1 tokens leave only after every k-th one, all that are due at once, and up
to k - 1 more keys are seen meanwhile. The sinks then turn at evictions alone.

Layers differ. One without rotary positions turns nothing. In a hybrid model (Gemma 3, gpt-oss, ...)
a layer that looks back only so far by its own mask keeps what that mask shows, at the distances
that it was trained with, whatever S and W are; the layers that see everything get S and W. Where
every layer of a model has the same window of its own (Mistral 7B v0.1), S and W are all layers',
and must fit into it.

Shapes are static once the cache is full. Float32 phases fade as positions grow, so now and then the
whole frame is moved back to the start (``rebase``).

Knows nothing of methods, texts, scores or clocks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from core import attending
from core.attention import ChunkView
from core.errors import UsageError
from core.forwards import uncompiled
from core.generate import GuidedCache, Undo
from core.kinds import Kind, kinds_of, slots_seen
from core.models import anatomy
from core.option import typed
from core.rope import Rotation, Turn

# Positions past S + W after which the frame is moved back, in float32 and in half precision, as
# measured: docs/decisions/0001-frame-reach.md.
REACH, REACH_HALF = 256, 16384


class StreamingLayer(CacheLayerMixin):
    """The keys and values of one layer: S sink slots, then a ring of W + k.

    The ring has a slot more than the window because the token at hand is written before it
    attends; it takes the slot of a token that a step before it has evicted.
    """

    is_compileable = False
    is_croppable = True
    HELD: tuple[str, ...] = ("keys", "values", "sinks")  # its buffers

    def __init__(self, cache: StreamingKVCache, kind: Kind) -> None:
        super().__init__()
        self.cache, self.kind = cache, kind
        self.is_sliding = kind.own
        self.seen = 0  # tokens of the stream so far: t of the next token
        self.undo: Undo | None = None
        self.was = 0  # tokens before the last were taken back: these may have evicted others

    @property
    def rows(self) -> int:
        """B, rows that its buffers are for."""
        return len(self.sinks)

    def be_ready(self, key_states: Tensor, value_states: Tensor) -> None:
        """Have buffers for such keys, and no graph of the forwards before, which has no end."""
        made = self.is_initialized and (self.rows, self.sinks.dtype)
        if not made or (not self.seen and made != (len(key_states), key_states.dtype)):
            self.lazy_initialization(key_states, value_states)
        elif torch.is_grad_enabled():
            for name in self.HELD:
                setattr(self, name, getattr(self, name).detach())

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers, for the shapes of the first keys (B, K, C, D)."""
        slots = self.get_max_cache_shape()
        b, k, _, d = key_states.shape
        with torch.inference_mode(False):  # which may end before the stream does
            self.keys = key_states.new_zeros(b, k, slots, d)  # (B, K, S+W+k, D)
            self.values = value_states.new_zeros(b, k, slots, value_states.shape[-1])
            self.sinks = key_states.new_zeros(b, k, self.kind.n_sink, d)  # as first seen
        self.is_initialized = True

    @uncompiled
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
            For one token, every key it sees: (B, K, min(t+1, S+W+k), D), and the values; where k
            is more than 1, the cache's ``mask`` says which have not been evicted. For a chunk, the
            sinks as first seen, the ring as it was before and the chunk itself; what each query
            sees of them is the cache's ``view``.

        Raises:
            UsageError: The model attends otherwise than these keys need.
        """
        if self.kind.latent:
            turned, others = self._update(value_states, key_states)
            return others, turned
        return self._update(key_states, value_states)

    def _update(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        self.be_ready(key_states, value_states)
        key_states, value_states = key_states.to(self.keys), value_states.to(self.values)
        c, t, s = key_states.shape[-2], self.seen, self.kind.n_sink
        self.cache.check_attention(t, c)
        before: tuple[Tensor, Tensor] | None = None
        if t < s:
            self._write_sinks(key_states, value_states)
        if c > 1:
            ring = slice(s, None) if t > s else slice(0, 0)
            # A copy, as the chunk is about to overwrite what its first queries still see.
            before = (
                torch.cat((self.sinks, self.keys[:, :, ring], key_states), -2),
                torch.cat((self.values[:, :, :s], self.values[:, :, ring], value_states), -2),
            )
        self._write(key_states, value_states)
        self.seen = t + c
        if before is not None and self.cache.streams:
            return before  # (B, K, S+(W+k)+C, D)
        if s and (turn := self.cache.sink_turn(self.kind, t)):
            self.keys[:, :, :s] = turn(self.sinks)
        n = min(t + c, self.keys.shape[-2])
        return self.keys[:, :, :n], self.values[:, :, :n]

    def _write_sinks(self, key_states: Tensor, value_states: Tensor) -> None:
        """Put the tokens that are among the first S in their slots."""
        t, s = self.seen, self.kind.n_sink
        n = min(key_states.shape[-2], s - t)
        self.sinks[:, :, t : t + n] = key_states[:, :, :n]
        self.keys[:, :, t : t + n] = key_states[:, :, :n]
        self.values[:, :, t : t + n] = value_states[:, :, :n]

    def _write(self, key_states: Tensor, value_states: Tensor) -> None:
        """Put the last W + k tokens in their slots of the ring."""
        c, t, s, ring = key_states.shape[-2], self.seen, self.kind.n_sink, self.kind.ring
        first = max(t, s, t + c - ring)  # the first token of the chunk that the ring keeps
        self.undo = None
        if c == 1 and first == t:
            slot = s + (t - s) % ring
            self.keys[:, :, slot : slot + 1] = key_states
            self.values[:, :, slot : slot + 1] = value_states
        elif first < t + c:
            slots = s + (torch.arange(first, t + c, device=key_states.device) - s) % ring
            if self.cache.drafts and c <= ring:
                old = self.keys[:, :, slots], self.values[:, :, slots]
                self.undo = Undo(t, first, slots, *old, self.was)
            self.keys.index_copy_(2, slots, key_states[:, :, first - t :])
            self.values.index_copy_(2, slots, value_states[:, :, first - t :])

    def move(self, by: int) -> None:
        """Turn the ring's keys by ``by`` positions."""
        if self.is_initialized and self.kind.turns:
            s = self.kind.n_sink
            turn = self.kind.turns.turn(torch.tensor([float(by)]))
            self.keys[:, :, s:] = turn(self.keys[:, :, s:])

    def holds(self, t: int) -> bool:
        """Whether everything that token t sees is held, so that what follows may be taken back."""
        if self.undo and self.undo.t <= t:
            return True
        first = max(int(self.kind.first_seen(t)), self.kind.n_sink)
        return first >= max(self.seen, self.was) - self.kind.ring

    def take_back(self, t: int) -> None:
        """Forget the tokens from t on, and put back what they took the place of."""
        if self.undo and self.undo.t <= t:
            self.undo.put_back(self.keys, self.values, t, self.seen)
            self.was = self.undo.was
        else:
            self.was = max(self.was, self.seen)
        self.keys[:, :, : self.kind.n_sink] = self.sinks  # not turned, as at the beginning
        self.undo, self.seen = None, t

    def get_seq_length(self) -> int:
        """Position of the next token, from which the model counts on.

        Within a forward that is one in the cache's frame; ``generate``, which asks between them, is
        told how many tokens there were.
        """
        return self.seen - (self.cache.base if self.cache.within else self.cache.told)

    def get_mask_sizes(self, query: int | Tensor) -> tuple[int, int]:
        """Length and first position of the keys that ``query`` tokens will be given."""
        c = query if isinstance(query, int) else query.shape[0]
        n = min(self.seen + c, self.get_max_cache_shape())
        return n, self.seen - self.cache.base + c - n

    def get_max_cache_shape(self) -> int:
        """Keys that the layer holds at most: S + W + k."""
        return self.kind.slots

    get_max_length = get_max_cache_shape

    def reset(self) -> None:
        """Forget the stream and keep the buffers."""
        self.seen, self.was, self.undo = 0, 0, None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rearrange the rows of the batch, for beam search."""
        if self.is_initialized:
            self.undo = None
            for name in self.HELD:
                setattr(self, name, getattr(self, name).index_select(0, beam_idx))

    batch_select_indices = reorder_cache

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Have each row of the batch ``repeats`` times."""
        if self.is_initialized:
            rows = torch.arange(len(self.sinks), device=self.sinks.device)
            self.reorder_cache(rows.repeat_interleave(repeats))


class StreamingKVCache(GuidedCache):
    """A transformers cache of S sinks and a window of W, for any RoPE model.

    Use it so::

        cache = StreamingKVCache(4, 1020, model)
        for ids in chunks:  # (B, C): one token or many, the result is the same
            logits = cache.read(ids)

    ``cache.seen`` counts the tokens of the stream, ``cache.nbytes`` what is held, and ``reset()``
    forgets the stream. A cache belongs to the model and the stream that it was made for.

    transformers can use it too: ``model.generate(ids, past_key_values=cache)``, whatever the
    length of the prompt and of what is written; several turns are one stream within
    ``streaming_attention(model, cache)``. All rows of a batch are of one length: padding would stay
    in the cache as tokens do, and is refused.

    Attributes:
        layer: How a layer keeps what it keeps.
        static: Whether ``core.engine`` may execute its steps.
    """

    layer: type[StreamingLayer] = StreamingLayer
    static = True

    def __init__(
        self, n_sink: int, window: int, model: Any, evict_every: int = 1, phase: int = 0
    ) -> None:
        """An empty cache.

        Args:
            n_sink: S, attention sinks kept from the start of the stream; 0 is window attention.
            window: W, tokens before the query that it sees.
            model: The transformers model that will use it.
            evict_every: k, tokens between evictions; more than 1 needs ``streaming_attention``.
            phase: The number of a token after which evictions are due; the others are k apart.

        Raises:
            UsageError: A size is out of range, or the model's positions can't be moved.
        """
        sizes = {"n_sink": n_sink, "window": window, "evict_every": evict_every}
        n_sink, window, evict_every = (typed(name, sizes[name], int) for name in sizes)
        if n_sink < 0 or window < 1 or evict_every < 1:
            raise UsageError(
                f"a cache of {n_sink} sinks and a window of {window} that evicts every "
                f"{evict_every}: n_sink must be 0 or more and window and evict_every 1 or more."
            )
        self.window, self.evict_every = window, evict_every
        self.found, self.most = anatomy.of(model), n_sink + window + evict_every - 1
        if evict_every > 1 and not self.found.registered:
            raise UsageError(
                f"evict_every is {evict_every}, but a {self.found.kind!r} model does not take "
                "registered attention functions, which that needs: leave it out."
            )
        self.kinds = kinds_of(self.found, n_sink, window, evict_every, phase)
        self.reach = self.most + (REACH_HALF if model.dtype.itemsize < 4 else REACH)
        self.base = 0  # absolute position of the frame's position 0
        self.different = tuple(dict.fromkeys(self.kinds))  # and which of them each layer is
        self.which = tuple(self.different.index(kind) for kind in self.kinds)
        self.global_layer = next(i for i, kind in enumerate(self.kinds) if not kind.own)
        self._turns: dict[tuple[Rotation, int], Turn] = {}
        self._views: dict[Kind, tuple[tuple[int, int, int], ChunkView]] = {}
        self._masks: dict[Kind, tuple[int, Tensor]] = {}
        self._device = model.device
        self.check_room(1)
        super().__init__(model, [self.layer(self, kind) for kind in self.kinds], n_sink, window)

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values that are held: constant once the first token was read."""
        held = [layer for layer in self.layers if layer.is_initialized]
        return sum(getattr(layer, name).nbytes for layer in held for name in layer.HELD)

    @torch.no_grad()
    def read(self, ids: Tensor, keep: int = 0) -> Tensor:
        """Let the model read the next C tokens of the stream.

        No gradients are kept: the graph of a stream would grow without end.

        Args:
            ids: (B, C) int64.
            keep: Predict after the last ``keep`` of them only; 0 is after each.

        Returns:
            Logits (B, ``keep`` or C, V), the same however the stream is cut into chunks.

        Raises:
            UsageError: The model's frequencies change with length and the chunk doesn't fit, or
                these are no tokens.
        """
        if keep < 0:
            raise UsageError(f"keep is {keep}: it must be 0 or more.")
        self.check_tokens(ids)
        if self.found.registered:
            with attending.attending(self.model, self):
                return self._forward(ids, keep)
        parts = [self._forward(token, min(keep, 1)) for token in torch.split(ids, 1, dim=1)]
        return torch.cat(parts[-keep:], dim=1)

    def _forward(self, ids: Tensor, keep: int) -> Tensor:
        logits: Tensor = self.model(ids, **{self.name: self}, logits_to_keep=keep).logits
        return logits

    def make_room(self, tokens: int) -> None:
        """Move the frame back to the start where ``tokens`` more would take it too far.

        Call it between steps, never within a forward.

        Raises:
            UsageError: The model's frequencies change with length and the chunk doesn't fit.
        """
        if self.seen - self.base + tokens > min(self.reach, self.found.limit or self.reach):
            self.rebase()
        self.check_room(tokens)

    def rebase(self) -> None:
        """Move the frame to where the sinks are at their originals.

        The next token then stands at S + W, or up to k - 1 beyond. Each key of the window is turned
        once, by the same number of positions; nothing that a query can see changes.
        """
        by = self._furthest - self.base
        if by:
            for layer in self.layers:
                layer.move(-by)
            self.base += by

    @property
    def _furthest(self) -> int:
        """The base of the frame when the sinks are at their originals, which it never is beyond."""
        return int(max(0, self.cut(self.seen) - (self.n_sink + self.window)))

    def crop(self, max_length: int) -> None:
        """See ``GuidedCache.crop``; the frame goes back with the stream."""
        super().crop(max_length)
        if self.base > self._furthest:
            self.rebase()

    def check_room(self, tokens: int) -> None:
        """Raise ``UsageError`` where rotary frequencies that change with length would change."""
        self.found.check_room(self.most + tokens, "a smaller --window or --chunk-size")

    def check_attention(self, t: int, c: int) -> None:
        """Raise ``UsageError`` where C tokens at t see evicted keys without our attention."""
        if self.streams:
            return
        if self.needs_ours(c, t) or (self.base and not self.within):
            raise UsageError(
                f"{c} more tokens outgrow a cache of {self.n_sink}+{self.window} keys under the "
                "model's own attention: use cache.read(ids), or streaming_attention(model, cache)."
            )

    def needs_ours(self, c: int, t: int | None = None) -> bool:
        """Whether C tokens at t see other keys than the model's own attention would show them."""
        most = min(kind.n_sink + kind.window for kind in self.kinds)
        masked = self.evict_every > 1 or any(kind.block for kind in self.kinds)
        grows = any(layer.grows for layer in self.found.layers)
        t = self.seen if t is None else t
        return t + c > most + 1 and (c > 1 or masked or grows)

    @property
    def seen(self) -> int:
        """Tokens of the stream so far."""
        return int(self.layers[0].seen)

    @property
    def full(self) -> bool:
        """Whether every layer holds as much as it ever will: the next token takes a used slot."""
        return all(x.is_initialized and x.seen + 1 >= x.kind.slots for x in self.layers)

    def cut(self, t: Any) -> Any:
        """The number of the token before which the cache that t finds was last cut; t if k is 1."""
        return self.kinds[self.global_layer].cut(t)

    def place(self, t: Any) -> Any:
        """Where the query number t stands in the cache: at t, later at S + W to S + W + k - 1."""
        beyond = self.cut(t) - (self.n_sink + self.window)
        return t - (beyond.clamp(min=0) if isinstance(beyond, Tensor) else max(0, beyond))

    def sink_turn(self, kind: Kind, t: int) -> Turn | None:
        """What takes the sinks to where the query at t must meet them; None where nothing does."""
        delta = kind.cut(t) - self.base - (kind.n_sink + kind.window)
        if kind.turns is None or kind.cut(t) < kind.n_sink + kind.window:
            return None
        key = kind.turns, delta
        if key not in self._turns:
            self._turns = {old: turn for old, turn in self._turns.items() if old[1] == delta}
            self._turns[key] = kind.turns.turn(torch.tensor([float(delta)]))
        return self._turns[key]

    def mask(self, layer: int) -> Tensor | None:
        """Which slots the token that ``layer`` was just given sees, (N,) bool; None for all."""
        kind, t = self.kinds[layer], self.layers[layer].seen - 1
        if kind.every == 1 and kind.block is None:
            return None
        if kind not in self._masks or self._masks[kind][0] != t:
            slot = torch.arange(min(t + 1, kind.slots), device=self._device)
            self._masks[kind] = t, slots_seen(kind, slot, t)
        return self._masks[kind][1]

    def grown(self, layer: int, c: int) -> Tensor | None:
        """What takes C queries from their size in the frame to that at their place in the cache."""
        if not self.found.layers[layer].grows:
            return None
        t = self.layers[layer].seen - c
        query = torch.arange(t, t + c, device=self._device)
        sizes = anatomy.query_sizes(self.model, self.found, t + c - self.base)[layer]
        return sizes[self.place(query)] / sizes[query - self.base]

    def view(self, layer: int, c: int) -> ChunkView:
        """What the chunk of C tokens that ``layer`` was just given sees."""
        kind, t = self.kinds[layer], self.layers[layer].seen - c
        at = t, c, self.base
        if kind not in self._views or self._views[kind][0] != at:
            self._views[kind] = at, self._look(kind, t, c)
        return self._views[kind][1]

    def _look(self, kind: Kind, t: int, c: int) -> ChunkView:
        s, ring, device = kind.n_sink, kind.ring, self._device
        query = torch.arange(t, t + c, device=device)  # (C,)
        held = torch.arange(ring if t > s else 0, device=device)
        # Slot r holds the latest token before t whose number is r modulo the ring's length.
        key = torch.cat((t - 1 - (t - 1 - s - held) % ring, query))  # (N,)
        kept = key >= kind.first_seen(query).clamp(min=s)[:, None]
        band = kept & (key <= query[:, None])  # (C, N)
        sinks = torch.arange(s, device=device) <= query[:, None]  # (C, S)
        back = (kind.cut(query) - self.base - (s + kind.window)).clamp(min=0)
        turned = kind.rotation.turn(-back) if kind.rotation and s else None
        return ChunkView(band, sinks, turned, key)

    def reset(self) -> None:
        """Forget the stream and keep the buffers."""
        super().reset()
        self.base = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> StreamingKVCache:
        """A stream that goes on by itself, from where this one is, through the same model."""
        memo.update({id(each): each for each in (self.kinds, self.different, *self.kinds)})
        new: StreamingKVCache = super().__deepcopy__(memo)
        new._turns, new._views, new._masks = {}, {}, {}
        return new
