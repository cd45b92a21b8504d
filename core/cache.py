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

from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from core import attention
from core.attention import ChunkView
from core.errors import StreamError, UsageError
from core.forwards import Turns, guide, uncompiled
from core.history import Heard
from core.kinds import Kind, kinds_of, slots_seen
from core.models import anatomy
from core.rope import Rotation, Turn

# Positions past S + W after which the frame is moved back, in float32 and in half precision, as
# measured: docs/decisions/0001-frame-reach.md.
REACH, REACH_HALF = 256, 16384
# What a forward is given and the cache knows better.
OUR_OWN = ("attention_mask", "position_ids", "cache_position")
KNOWN = ("sdpa", "eager")  # attention of the model's own that serves single tokens
NO_WEIGHTS = (
    "the streaming attention has no weights to give: leave output_attentions out, or keep the text "
    "within the cache and the model's attention eager."
)
CHUNK = 1024  # tokens of a long prompt that are read at once, where few scores of it are wanted


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

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers once, for the shapes of the first keys (B, K, C, D)."""
        slots = self.get_max_cache_shape()
        b, k, _, d = key_states.shape
        self.keys = key_states.new_zeros(b, k, slots, d)  # (B, K, S+W+k, D)
        self.values = value_states.new_zeros(b, k, slots, value_states.shape[-1])
        self.sinks = key_states.new_zeros(b, k, self.kind.n_sink, d)  # (B, K, S, D), as first seen
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
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
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
        if c == 1 and first == t:
            slot = s + (t - s) % ring
            self.keys[:, :, slot : slot + 1] = key_states
            self.values[:, :, slot : slot + 1] = value_states
        elif first < t + c:
            slots = s + (torch.arange(first, t + c, device=key_states.device) - s) % ring
            if self.cache.drafts and c <= ring:
                old = self.keys[:, :, slots], self.values[:, :, slots]
                self.undo = Undo(t, first, slots, *old)
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
        first = int(self.kind.first_seen(t))
        return self.seen <= self.kind.slots or first >= self.seen - self.kind.ring

    def take_back(self, t: int) -> None:
        """Forget the tokens from t on, and put back what they took the place of."""
        if self.undo and self.undo.t <= t:
            undo = self.undo
            back = slice(max(t - undo.first, 0), self.seen - undo.first)
            if back.stop > 0:
                self.keys.index_copy_(2, undo.slots[back], undo.keys[:, :, back])
                self.values.index_copy_(2, undo.slots[back], undo.values[:, :, back])
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
        self.seen, self.undo = 0, None

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


@dataclass(frozen=True)
class Undo:
    """What the last chunk, which began with token t, took the place of in a layer.

    Attributes:
        t: The chunk's first token.
        first: The first of its tokens that went into the ring.
        slots: Where these went.
        keys: What was there, (B, K, N, D).
        values: Likewise.
    """

    t: int
    first: int
    slots: Tensor
    keys: Tensor
    values: Tensor


class StreamingKVCache(Cache, Turns):
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
        if n_sink < 0 or window < 1 or evict_every < 1:
            raise UsageError(
                f"a cache of {n_sink} sinks and a window of {window} that evicts every "
                f"{evict_every}: n_sink must be 0 or more and window and evict_every 1 or more."
            )
        self.n_sink, self.window, self.evict_every = n_sink, window, evict_every
        self.found, self.model, self.config = anatomy.of(model), model, model.config
        self.name = attention.cache_name(model)
        if evict_every > 1 and not self.found.registered:
            raise UsageError(
                f"evict_every is {evict_every}, but a {self.found.kind!r} model does not take "
                "registered attention functions, which that needs: leave it out."
            )
        self.kinds = kinds_of(self.found, n_sink, window, evict_every, phase)
        half = model.dtype.itemsize < 4
        self.reach = n_sink + window + evict_every - 1 + (REACH_HALF if half else REACH)
        self.base = 0  # absolute position of the frame's position 0
        self.different = tuple(dict.fromkeys(self.kinds))  # and which of them each layer is
        self.which = tuple(self.different.index(kind) for kind in self.kinds)
        self.global_layer = next(i for i, kind in enumerate(self.kinds) if not kind.own)
        self._turns: dict[tuple[Rotation, int], Turn] = {}
        self._views: dict[Kind, tuple[int, int, ChunkView]] = {}
        self._masks: dict[Kind, tuple[int, Tensor]] = {}
        self._device = model.device
        self._heard = Heard(n_sink, window)
        self._forward_ends = ExitStack()
        self.within = self.drafts = False  # a forward; a generation with tokens that may be dropped
        self.told = 0  # tokens of the stream that are no matter of ``generate``
        super().__init__(layers=[self.layer(self, kind) for kind in self.kinds])
        self.check_room(1)
        guide(model)

    @property
    def streams(self) -> bool:
        """Whether the model attends through ``core.attention``, so that chunks are exact."""
        return bool(self.config._attn_implementation == attention.NAME)

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
            UsageError: The model's frequencies change with length and the chunk doesn't fit.
        """
        if self.found.registered:
            with attention.attending(self.model, self):
                return self._forward(ids, keep)
        parts = [self._forward(token, min(keep, 1)) for token in torch.split(ids, 1, dim=1)]
        return torch.cat(parts[-keep:], dim=1)

    def _forward(self, ids: Tensor, keep: int) -> Tensor:
        logits: Tensor = self.model(ids, **{self.name: self}, logits_to_keep=keep).logits
        return logits

    def begin(self, model: Any, given: dict[str, Any]) -> dict[str, Any]:
        """What a forward gets in place of what it was given; moves the frame back if it is time.

        Positions are those in the frame, which the model asks for. A long prompt of which few
        scores are wanted is read in chunks, the last of which is the forward's.

        Raises:
            UsageError: The forward is given what this cache can't go by, such as padding.
            StreamError: A forward before was broken off.
        """
        self.end()
        ids = name = None
        for name in ("input_ids", "inputs_embeds"):
            ids = given.get(name) if ids is None else ids
            if ids is not None:
                break
        if ids is None or name is None:
            return given
        self._check_given(model, given, ids.shape[1])
        given = {key: value for key, value in given.items() if key not in OUR_OWN}
        if rest := self._last_chunk(given, ids.shape[1]):
            self._read_before(model, name, ids[:, :-rest])
            ids = given[name] = ids[:, -rest:]
        c = ids.shape[1]
        self.make_room(c)
        ours = self._needs_ours(c) or not self._own_is_known
        if "stream" not in given and not attention.attends_to(self) and ours:
            self._forward_ends.enter_context(attention.attending(self.model, self))
        if given.get("output_attentions") and self.streams:
            raise UsageError(NO_WEIGHTS)
        self._heard.hear(ids if name == "input_ids" else None, self.seen, c)
        self.within = True
        return given

    def _read_before(self, model: Any, name: str, tokens: Tensor) -> None:
        """Read tokens, ids or embeddings, whose scores nobody wants and which are not drafts."""
        drafts, self.drafts = self.drafts, False
        for part in torch.split(tokens, self._chunk if self.found.registered else 1, dim=1):
            model(**{name: part, self.name: self, "logits_to_keep": 1})
        self.drafts = drafts

    def end(self) -> None:
        """A forward has ended, or has failed."""
        self.within = False
        self._forward_ends.close()

    def _check_given(self, model: Any, given: dict[str, Any], c: int) -> None:
        """Raise where a forward of C tokens is given what this cache can't go by."""
        if model is not self.model and model.config is not self.config:
            raise UsageError(
                "this cache was made for another model: make one with StreamingKVCache(n_sink, "
                "window, model) for each model."
            )
        if self.layers[0].seen != self.layers[-1].seen:
            raise StreamError("a forward was broken off amid the layers: call cache.reset().")
        mask, past = given.get("attention_mask"), self.seen - self.told
        if isinstance(mask, Tensor) and mask.ndim == 2:
            # What came before was looked at when it came.
            if not bool((mask if c > 1 else mask[:, -1:]).all()):
                raise UsageError(
                    "the attention mask hides tokens, such as padding, which would stay in a "
                    "streaming cache: give it rows of one length or one row at a time, and a mask "
                    "of ones where the pad token is part of the text."
                )
            if mask.shape[1] not in (past + c, c):
                raise UsageError(
                    f"the attention mask is of {mask.shape[1]} tokens, where {past} were read and "
                    f"{c} come: pass the whole history, or generate within "
                    "streaming_attention(model, cache)."
                )
        elif mask is not None:
            raise UsageError(
                "a streaming cache makes its own masks: leave attention_mask out, or give it as "
                "(B, T) ones."
            )
        places = given.get("cache_position")
        if places is not None and c > 1 and int(places[0]) != past:
            raise UsageError(
                f"these tokens are given from position {int(places[0])} on, where {past} were "
                "read: leave prefill_chunk_size out, or generate within "
                "streaming_attention(model, cache)."
            )

    def _last_chunk(self, given: dict[str, Any], c: int) -> int:
        """Tokens of a long prompt that are left to the forward itself; 0 for all."""
        keep, name = given.get("logits_to_keep"), "logits_to_keep"
        wants_all = given.get("labels") is not None or given.get("output_hidden_states")
        if not isinstance(keep, int) or keep < 1 or keep >= c or wants_all or name not in given:
            return 0
        if not self.found.registered:
            return 1 if keep == 1 and self._needs_ours(c) else 0
        if self.drafts:  # what may be taken back comes in a chunk of its own
            return keep
        return max(keep, (c - 1) % self._chunk + 1) if c > self._chunk else 0

    @property
    def _chunk(self) -> int:
        """Tokens that are read at once: fewer where rotary frequencies would change with more."""
        if self.found.limit is None:
            return CHUNK
        room = self.found.limit - (self.n_sink + self.window + self.evict_every - 1)
        return min(CHUNK, max(1, room))

    def continued_by(self, ids: Tensor) -> bool:
        """Whether ids (B, C) begin with the tokens of the stream so far.

        Raises:
            UsageError: They begin as the stream did, and go on otherwise.
        """
        if ids.shape[1] < self.seen or not self._heard.knows(self.seen):
            return ids.shape[1] > self.seen
        head, tail = self._heard.agrees(ids, self.seen)
        if head and not tail and self.n_sink > 1 and ids.shape[1] > self.seen:
            raise UsageError(
                f"the prompt begins as the stream of {self.seen} tokens did, but differs from it "
                "later: pass the history as it was, or only what is new, or call cache.reset()."
            )
        return head and tail

    def crop(self, max_length: int) -> None:
        """Take back the last tokens of the stream, as far as nothing that is needed is gone.

        Args:
            max_length: How many stay; a negative number is how many go.

        Raises:
            UsageError: What these tokens evicted is gone.
        """
        seen = self.seen
        zero = max_length == 0 and self.name == "cache"  # transformers 5.24 says how many go
        keep = seen + max_length if max_length < 0 or zero else max_length + self.told
        if keep >= seen:
            for layer in self.layers:
                layer.undo = None
            return
        if not all(layer.holds(keep) for layer in self.layers):
            raise UsageError(
                f"{seen - keep} of {seen} tokens can't be taken back, as what they evicted is "
                "gone: crop a stream that fits its cache, or generate with drafts within "
                "streaming_attention(model, cache)."
            )
        for layer in self.layers:
            layer.take_back(keep)
        self._heard.forget(keep)
        self._views, self._masks = {}, {}

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
        by = self.cut(self.seen) - self.base - (self.n_sink + self.window)
        if by > 0:
            for layer in self.layers:
                layer.move(-by)
            self.base += by

    def check_room(self, tokens: int) -> None:
        """Raise ``UsageError`` where rotary frequencies that change with length would change."""
        positions = self.n_sink + self.window + self.evict_every - 1 + tokens
        self.found.check_room(positions, "a smaller --window or --chunk-size")

    def check_attention(self, t: int, c: int) -> None:
        """Raise ``UsageError`` where C tokens at t see evicted keys without our attention."""
        if self.streams:
            return
        if self._needs_ours(c, t) or (self.base and not self.within):
            raise UsageError(
                f"{c} more tokens outgrow a cache of {self.n_sink}+{self.window} keys under the "
                "model's own attention: use cache.read(ids), or streaming_attention(model, cache)."
            )

    def _needs_ours(self, c: int, t: int | None = None) -> bool:
        """Whether C tokens at t see other keys than the model's own attention would show them."""
        most = min(kind.n_sink + kind.window for kind in self.kinds)
        masked = self.evict_every > 1 or any(kind.block for kind in self.kinds)
        grows = any(layer.grows for layer in self.found.layers)
        t = self.seen if t is None else t
        return t + c > most + 1 and (c > 1 or masked or grows)

    @property
    def _own_is_known(self) -> bool:
        """Whether the model's own attention is one that was held against ours (flash was not)."""
        return self.config._attn_implementation in KNOWN or not self.found.registered

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
        if kind not in self._views or self._views[kind][:2] != (t, c):
            self._views[kind] = t, c, self._look(kind, t, c)
        return self._views[kind][2]

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

    def __bool__(self) -> bool:
        """False, or the ``generate`` of Phi-3 and its kin would drop this cache for one of its own.

        They do so with one that is true when a text passes the length that they were first trained
        on; here no position does.
        """
        return False

    def reset(self) -> None:
        """Forget the stream and keep the buffers."""
        super().reset()
        self.base = self.told = 0
        self._views, self._masks = {}, {}
        self._heard.forget(0)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rearrange the rows of the batch, for beam search."""
        super().reorder_cache(beam_idx)
        self._heard.reorder(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Have each row of the batch ``repeats`` times."""
        super().batch_repeat_interleave(repeats)
        self._heard.forget(0)

    def __deepcopy__(self, memo: dict[int, Any]) -> StreamingKVCache:
        """A stream that goes on by itself, from where this one is, through the same model."""
        shared = (self.model, self.config, self.found, self.kinds, self.different, *self.kinds)
        memo.update({id(each): each for each in shared})
        new = memo[id(self)] = self.__class__.__new__(self.__class__)
        own = {"_turns": {}, "_views": {}, "_masks": {}, "_forward_ends": ExitStack()}
        new.__dict__.update({**vars(self), **own, "within": False})
        new._heard = deepcopy(self._heard, memo)
        new.layers = deepcopy(self.layers, memo)
        return new
