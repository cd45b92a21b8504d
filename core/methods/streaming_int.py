"""Sinks and a window of 8-, 4- or 2-bit integers: more keys in the same memory.

KIVI (Liu et al. 2024, arXiv 2402.02750): keys are quantised by channel, over groups of 32 tokens,
and values by token, over groups of 32 channels; each group has a least value and a step of its own,
16 bits each. A key's group can't be quantised before its last token is there, so the newest group's
keys stay in full precision until the next token comes.

- A query sees its own group's keys as they are, those of earlier groups as codes, and all values as
  codes, its own included: whatever it sees has one form, however the text is cut into chunks.
- The S sinks stay in full precision.
- A key is quantised as it would be at position 0, once. It is turned to its place after it was
  decoded, in a copy that lasts as long as its layer attends. So codes outlive every move of the
  frame, and nothing is quantised twice.
- S + W keys and itself are what a query sees, as in ``streaming``. What a group still holds of
  tokens that have left the window is hidden.

Where it differs from KIVI: keys are quantised before rotary positions and not after (as in KVQuant,
arXiv 2401.18079), which positions in the cache need; there are no further recent tokens in full
precision, KIVI's residual (128 in its tables); a code is the nearest of a grid whose ends are
rounded to 16 bits outwards. Attention is computed on decoded copies: bytes are saved, not time.
What else was tried is in docs/decisions/0010-integers-by-channel.md.

Knows nothing of texts, scores or clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from core.attention import ChunkView
from core.cache import StreamingKVCache, StreamingLayer
from core.codes import GRID, GROUP, Codes, channels, grouped
from core.errors import UsageError
from core.kinds import Kind
from core.measure.meters import MIB
from core.methods.base import Stream, own_windows
from core.methods.streaming import CachedStream, Streaming
from core.models import anatomy
from core.models.layers import Layer
from core.models.loading import Loaded
from core.registry import METHODS
from core.rope import Turn

BITS = (8, 4, 2)


@dataclass(frozen=True)
class Parameters:
    """Options that it alone has.

    Attributes:
        kv_bits: Bits of a number in the window.
        also: What else ``verify`` proves.

    Raises:
        ValueError: It is none of ``BITS``.
    """

    kv_bits: int = 8
    also: ClassVar = ({"kv_bits": 4},)

    def __post_init__(self) -> None:
        if self.kv_bits not in BITS:
            raise ValueError(f"kv_bits is {self.kv_bits}: it must be {', '.join(map(str, BITS))}")


def groups(kind: Kind) -> int:
    """Groups in codes that a layer holds: as many as a window of W may reach into."""
    return -(-kind.window // GROUP)


def _value_numbers(layer: Layer) -> int:
    """Dv, numbers of a head's value."""
    return layer.value_numbers // layer.heads


def by_token(keys: Tensor) -> Tensor:
    """Groups of keys (B, K, n, D, G) as keys (B, K, n x G, D)."""
    return keys.transpose(-1, -2).flatten(2, 3)


class QuantisedLayer(StreamingLayer):
    """One layer: S sinks, a ring of groups in codes, and the newest group's tokens.

    The keys of the newest group are whole, at position 0. A group is closed, and goes into the
    ring, when the first token after it comes.
    """

    HELD = (
        *("sinks", "sink_values", "newest", "newest_codes", "newest_grid"),
        *("key_codes", "key_grid", "value_codes", "value_grid"),
    )
    cache: QuantisedKVCache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers, for the shapes of the first keys (B, K, C, D)."""
        (b, k, _, d), dv = key_states.shape, value_states.shape[-1]
        s, n, size = self.kind.n_sink, groups(self.kind), channels(dv, self.cache.bits)
        per = 8 // self.cache.bits
        self.sinks = key_states.new_zeros(b, k, s, d)  # as first seen
        self.sink_values = value_states.new_zeros(b, k, s, dv)
        self.newest = key_states.new_zeros(b, k, GROUP, d)
        codes, grid = (self.newest.new_zeros((), dtype=kind) for kind in (torch.uint8, GRID))
        self.newest_codes = codes.new_zeros(b, k, GROUP, dv // size, size // per)
        self.newest_grid = grid.new_zeros(b, k, GROUP, dv // size, 2)
        self.key_codes = codes.new_zeros(b, k, n, d, GROUP // per)
        self.key_grid = grid.new_zeros(b, k, n, d, 2)
        self.value_codes = codes.new_zeros(b, k, n, GROUP, dv // size, size // per)
        self.value_grid = grid.new_zeros(b, k, n, GROUP, dv // size, 2)
        self.is_initialized = True

    def _update(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """Store C tokens and return what they attend to, decoded; see ``StreamingLayer.update``.

        For one token that is the sinks, the ring and the newest group, of which the cache's
        ``mask`` says what it sees. For a chunk it is the sinks as first seen, the ring as it was,
        the newest group with the chunk, and those groups of both that it closes once more, from
        codes; what each query sees of them is the cache's ``view``.
        """
        self.be_ready(key_states, value_states)
        c, t, bits = key_states.shape[-2], self.seen, self.cache.bits
        self.cache.check_attention(t, c)
        sinks, sink_values = self._sinks(key_states, value_states)
        laid = self.cache.laid(self.kind, t, c)
        new = slice(laid.first - t, None)  # no sinks
        keys = key_states[:, :, new]
        keys = laid.back(keys) if laid.back else keys
        keys = torch.cat((self.newest[:, :, : laid.held], keys), 2)  # (B, K, held + C, D)
        came = value_states[:, :, new]
        coded = Codes.of(grouped(came, channels(came.shape[-1], bits)), bits)
        values = Codes(self.newest_codes, self.newest_grid).first(laid.held).then(coded)
        done = laid.closed * GROUP
        complete = grouped(keys[:, :, :done].mT, GROUP).transpose(2, 3)  # (B, K, n, D, G)
        closed = Codes.of(complete, bits)
        if self.cache.noted is not None:
            self.cache.noted += [closed.noted(bits), coded.noted(bits)]
        before = self._ring(laid.ring) if c > 1 else None
        self._close(laid, closed, values.first(done))
        rest = keys.shape[2] - done
        self.newest[:, :, :rest] = keys[:, :, done:]
        self.newest_codes[:, :, :rest] = values.packed[:, :, done:]
        self.newest_grid[:, :, :rest] = values.grid[:, :, done:]
        self.seen = t + c
        told = values.decoded(bits).flatten(-2)
        if before:
            keys = torch.cat((before[0], keys, by_token(closed.decoded(bits))), 2)
            told = torch.cat((before[1], told, told[:, :, :done]), 2)
        else:
            ring = self._ring(laid.ring)
            keys = torch.cat((ring[0], keys[:, :, done:]), 2)
            told = torch.cat((ring[1], told[:, :, done:]), 2)
            turn = self.cache.sink_turn(self.kind, t) if self.kind.n_sink else None
            sinks = turn(sinks) if turn else sinks
        keys = laid.place(keys) if laid.place else keys
        return (
            torch.cat((sinks, keys.to(sinks.dtype)), 2),
            torch.cat((sink_values, told.to(sinks.dtype)), 2),
        )

    def _sinks(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the tokens that are among the first S; all sinks that are there, as first seen."""
        c, t, s = key_states.shape[-2], self.seen, self.kind.n_sink
        if t < s:
            n = min(c, s - t)
            self.sinks[:, :, t : t + n] = key_states[:, :, :n]
            self.sink_values[:, :, t : t + n] = value_states[:, :, :n]
        there = s if c > 1 else min(s, t + c)  # a chunk's view hides those that are to come
        return self.sinks[:, :, :there], self.sink_values[:, :, :there]

    def _ring(self, n: int) -> tuple[Tensor, Tensor]:
        """The keys at position 0 and the values in the first n slots, decoded."""
        bits = self.cache.bits
        keys = Codes(self.key_codes, self.key_grid).first(n).decoded(bits)
        values = Codes(self.value_codes, self.value_grid).first(n).decoded(bits)
        return by_token(keys), values.flatten(-2).flatten(2, 3)  # (B, K, n x G, D)

    def _close(self, laid: Laid, keys: Codes, values: Codes) -> None:
        """Put the last of the groups that are closed into the ring; the codes stay as they are."""
        n = self.key_codes.shape[2]
        first = max(0, laid.closed - n)
        slots = torch.arange(laid.before + first, laid.before + laid.closed) % n
        slots = slots.to(self.newest.device)
        for name, kept in (("key", keys), ("value", values)):
            for part, new in (("codes", kept.packed), ("grid", kept.grid)):
                if name == "value":
                    new = new.reshape(*new.shape[:2], -1, GROUP, *new.shape[3:])
                getattr(self, f"{name}_{part}").index_copy_(2, slots, new[:, :, first:])

    def move(self, by: int) -> None:
        """Nothing: keys are held as at position 0."""


@dataclass(frozen=True)
class Laid:
    """Where the C tokens from t on go in layers of one kind, and what stands beside the sinks.

    Attributes:
        first: The first of them that is no sink.
        held: Tokens in the newest group before them.
        before: Groups that had been closed.
        closed: Groups that they close.
        ring: Slots of the ring that they are shown.
        tokens: The number in the stream of each key that they are shown beside the sinks, (N,).
        whole: Which of these are not from codes, (N,) bool.
        back: Takes the new keys to position 0; None where the layer turns nothing.
        place: Takes every key from there to its place in the frame.
    """

    first: int
    held: int
    before: int
    closed: int
    ring: int
    tokens: Tensor
    whole: Tensor
    back: Turn | None
    place: Turn | None


class QuantisedKVCache(StreamingKVCache):
    """A streaming cache whose window is in codes; for ``cache.read`` only."""

    layer = QuantisedLayer
    static = False

    def __init__(self, n_sink: int, window: int, model: Any, bits: int) -> None:
        """An empty cache.

        Args:
            n_sink: S, attention sinks, in full precision.
            window: W, tokens before the query that it sees.
            model: The transformers model that will use it.
            bits: Bits of a number in the window.

        Raises:
            UsageError: A size is out of range, or the model's layers can't be kept so.
        """
        self.bits = bits
        self.noted: list[Tensor] | None = None
        self._laid: dict[Kind, tuple[tuple[int, int, int], Laid]] = {}
        super().__init__(n_sink, window, model)

    def laid(self, kind: Kind, t: int, c: int) -> Laid:
        """Where C tokens from t on go; once for all layers of a forward that are alike."""
        at = t, c, self.base
        if kind not in self._laid or self._laid[kind][0] != at:
            self._laid[kind] = at, self._lay(kind, t, c)
        return self._laid[kind][1]

    def _lay(self, kind: Kind, t: int, c: int) -> Laid:
        s, n, device = kind.n_sink, groups(kind), self._device
        first, stop = max(t, s), max(t + c, s)
        held = (t - s - 1) % GROUP + 1 if t > s else 0
        start = first - held  # the first token of the newest group
        before, closed = (start - s) // GROUP, max(0, stop - start - 1) // GROUP
        done = before + (closed if c == 1 else 0)
        slot = torch.arange(min(done, n), device=device)
        group = done - 1 - (done - 1 - slot) % n  # slot i holds the latest that is i modulo n
        ring = (s + group[:, None] * GROUP + torch.arange(GROUP, device=device)).flatten()
        newest = torch.arange(start + (closed * GROUP if c == 1 else 0), stop, device=device)
        again = newest[: closed * GROUP if c > 1 else 0]
        tokens = torch.cat((ring, newest, again))
        whole = torch.arange(len(tokens), device=device)
        whole = (whole >= len(ring)) & (whole < len(ring) + len(newest))
        turn = kind.turns.turn if kind.turns else None
        back = turn(-(torch.arange(first, stop, device=device) - self.base)) if turn else None
        place = turn(tokens - self.base) if turn else None
        return Laid(first, held, before, closed, len(slot), tokens, whole, back, place)

    def mask(self, layer: int) -> Tensor | None:
        """Which of its keys the token that ``layer`` was just given sees, (N,) bool."""
        kind, t = self.kinds[layer], self.layers[layer].seen - 1
        seen = self.laid(kind, t, 1).tokens >= kind.first_seen(t)
        return torch.cat((seen.new_ones(min(kind.n_sink, t + 1)), seen))

    def _look(self, kind: Kind, t: int, c: int) -> ChunkView:
        view, laid, s = super()._look(kind, t, c), self.laid(kind, t, c), kind.n_sink
        query, tokens = torch.arange(t, t + c, device=self._device)[:, None], laid.tokens
        band = (tokens >= kind.first_seen(query)) & (tokens <= query)
        own = (tokens - s) // GROUP == (query - s) // GROUP
        return ChunkView(band & (own == laid.whole), view.sinks, view.back, tokens)


class StreamingInt(Streaming):
    """Attention sinks in full precision and a window of integers.

    Attributes:
        choices: Fills up with the codes that each layer makes of keys and of values, see
            ``Codes.noted``; None to note nothing.
    """

    spec = METHODS["streaming-int"]
    parameters: Parameters
    choices: list[Tensor] | None = None

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache.

        Raises:
            UsageError: The model's layers can't be kept so.
        """
        found = anatomy.of(loaded.model)
        found.check_movable()
        why, bits = "", self.parameters.kv_bits
        if not found.registered:
            why = "it takes no registered attention functions"
        elif any(layer.latent for layer in found.layers):
            why = "its layers hold what keys are made of (MLA)"
        if why:
            raise UsageError(
                f"{self.spec.name} can't serve a {found.kind!r} model: {why}: use --method "
                "streaming."
            )
        for layer in found.layers:
            channels(_value_numbers(layer), bits)
        cache = QuantisedKVCache(*self.sizes[:2], loaded.model, bits)
        cache.noted = self.choices
        return CachedStream(loaded, cache, owner=self)

    def layers(self, loaded: Loaded) -> str:
        """What each kind of layer keeps, and in how many bits."""
        return f"{super().layers(loaded)}; all but sinks in {self.parameters.kv_bits} bits a number"

    def full_after(self, loaded: Loaded) -> int:
        """Once every ring is full."""
        return max(kind.n_sink + (groups(kind) + 1) * GROUP for kind in self._kinds(loaded))

    def kv_formula_bytes(self, loaded: Loaded, batch: int, feeds: Sequence[int]) -> int:
        """Of each layer its sinks, the newest group's keys, and codes and grids of the rest."""
        item, layers = int(loaded.model.dtype.itemsize), anatomy.of(loaded.model).layers
        kinds = zip(self._kinds(loaded), layers, strict=True)
        return batch * sum(self._layer_bytes(kind, layer, item) for kind, layer in kinds)

    def _layer_bytes(self, kind: Kind, layer: Layer, item: int) -> int:
        keys, values, bits = layer.key_numbers, layer.value_numbers, self.parameters.kv_bits
        grid = 2 * GRID.itemsize
        of_values = values // channels(_value_numbers(layer), bits)  # groups in a token's values
        ring, tokens = groups(kind), (groups(kind) + 1) * GROUP
        whole = kind.n_sink * (keys + values) + GROUP * keys  # numbers in full precision
        codes = (ring * GROUP * keys + tokens * values) * bits // 8
        return whole * item + codes + (ring * keys + tokens * of_values) * grid

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """What the memory leaves out."""
        kinds = zip(self._kinds(loaded), anatomy.of(loaded.model).layers, strict=True)
        most = max(
            (groups(kind) + 1) * GROUP * (each.key_numbers + each.value_numbers)
            for kind, each in kinds
        )
        mib = most * torch.float32.itemsize / MIB
        name, bits = self.config.method, self.parameters.kv_bits
        return (
            f"{name} holds {bits} bits a number, and to attend decodes one layer's keys and values "
            f"at a time, {mib:.3g} MiB a row of the batch that KV does not count.",
            *own_windows(loaded),
        )
