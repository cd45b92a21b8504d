"""What each layer of a model does with positions, seen from outside; no family is known by name.

A token that attends to itself alone gets its own value back, whatever its query and key are, so
every layer's input is the same at any position. Fed at several positions, such tokens show what a
position does to each layer:

- a key that does not move has no rotary positions in that layer; one that moves must move as a turn
  of some of its dims by the model's own frequencies does;
- a query must move as the keys do; where it grows with its position as well, that is measured;
- a value must not move, or positions enter the model some other way.

The masks that transformers makes for each layer are asked how far back they see. Then a short text,
one token at a time out of order and somewhere else, and as one chunk, must get the scores that the
model gives it by itself. What is not found to be so is refused, with what was found.

Knows nothing of caches that evict, of texts or of methods.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionMaskInterface
from transformers.cache_utils import Cache

from core import rope
from core.attention import ChunkView, attending, cache_name, implementation, registered
from core.errors import UsageError
from core.measure.meters import token_nll
from core.rope import Rotation, Turn

NAME = "streamcli-watch"
ROWS = 16  # tokens that are watched
SHIFTS = (1, 5)  # positions that they are moved by, and one far away
FAR, FARTHEST = 4096, 2**20  # the latter for the size of queries alone
LENGTH = 8  # tokens of the short text
MOVED_BY = 37  # positions on, where the short text stands when it is out of order
HORIZON = 2**20  # tokens back that a mask is asked about
# What rounding may do to a key (of its size) and to a token of the short text (nats).
ROUNDING = {torch.bfloat16: (3e-2, 0.4), torch.float16: (4e-3, 0.05)}
EXACT = (1e-5, 1e-3)
PHASE = 4e-7  # radians a position that a model's phases in float32 may be off
INSTEAD = "choose another model, or --method recompute or dense"
BIASED = "no layer turns its keys, so positions enter otherwise, such as by a bias (ALiBi)"
NOT_ROTARY = "it has no rotary positions, which are those that can be moved"
RECURRENT = "its layers keep recurrent states, which are no keys that can be evicted"
# What an attention is handed that does not change what a query sees or how much of it.
HARMLESS = {
    *("dropout", "scaling", "sliding_window", "is_causal", "stream", "softcap", "s_aux"),
    *("position_ids", "cache_position", "position_embeddings", "output_attentions"),
    *("use_cache", "output_hidden_states", "output_router_logits", "return_dict"),
    *("logits_to_keep", "num_items_in_batch", "training", "attention_type", "layer_idx"),
}


@dataclass(frozen=True)
class Native:
    """How far a layer looks back by its own mask.

    Attributes:
        keys: Keys that a query sees at most, itself included.
        blocks: Whether these are the tokens of a block of that length, which begins anew, and not
            the last ones.
    """

    keys: int
    blocks: bool = False

    @property
    def words(self) -> str:
        """In words."""
        return f"blocks of {self.keys:,}" if self.blocks else f"a window of {self.keys:,}"


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        key_numbers: Numbers that its cache holds of a token's key, K x D, or of a latent one the
            part that is turned.
        value_numbers: Numbers that it holds besides.
        rotation: How keys are turned by positions, None where they are not.
        latent: How the part of a key that the cache holds is turned, where keys and values are made
            of what it holds (MLA, as of transformers 5.24); None where it holds keys.
        native: How far it looks back by itself, None where it sees all that came before.
        grows: Whether queries grow with their position.
    """

    key_numbers: int
    value_numbers: int
    rotation: Rotation | None = None
    latent: Rotation | None = None
    native: Native | None = None
    grows: bool = False


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What was found of one model.

    Attributes:
        kind: The model's type, as its configuration names it.
        layers: Its layers, in order; empty where they could not be seen.
        registered: Whether it takes registered attention functions.
        passes: Whether what a forward is given by keyword reaches them.
        capped: Whether its logits have a cap, which torch's own attention would drop.
        limit: Positions must stay below this for the rotary frequencies to hold, if they change.
        refusal: Why its positions can't be moved, None where they can.
        uncached: Why its own cache can't be trusted, None where it can.
        largest_nats: How far the short text was from the model's own scores at most; NaN where
            these are no numbers.
        sizes: Sizes of the queries at 0, 1, ... in each layer that ``grows``, by the number of it.
    """

    kind: str
    layers: tuple[Layer, ...] = ()
    registered: bool = False
    passes: bool = False
    capped: bool = False
    limit: int | None = None
    refusal: str | None = None
    uncached: str | None = None
    largest_nats: float = 0.0
    sizes: dict[int, Tensor] = field(default_factory=dict)

    @property
    def token_numbers(self) -> int:
        """Numbers that the key and the value of a token take in all layers."""
        return sum(layer.key_numbers + layer.value_numbers for layer in self.layers)

    @property
    def layers_in_words(self) -> str:
        """The layers, those alike together."""
        counts = Counter(
            (
                each.native.words if each.native else "all keys",
                each.rotation.words if each.rotation else "no rotary positions",
                ", query grows with position" if each.grows else "",
            )
            for each in self.layers
        )
        return "; ".join(
            f"{count} of {len(self.layers)} layers: {sees}, {turns}{grows}"
            for (sees, turns, grows), count in counts.items()
        )

    @property
    def proof_in_words(self) -> str:
        """What was compared, and how close it was."""
        if self.refusal or math.isnan(self.largest_nats):
            return f"not proved: {self.refusal or 'its own scores are no numbers'}"
        return (
            f"every layer's keys move as said; {LENGTH} tokens, moved and out of order, as by the "
            f"model itself to {self.largest_nats:.1e} nats"
        )

    def check_movable(self) -> None:
        """Raise ``UsageError`` where positions can't be moved."""
        if self.refusal:
            raise UsageError(f"a {self.kind!r} model can't stream: {self.refusal}: {INSTEAD}.")

    def check_cached(self) -> None:
        """Raise ``UsageError`` where the model's own cache can't be trusted."""
        if self.uncached:
            raise UsageError(
                f"a {self.kind!r} model can't be fed in parts: {self.uncached}: "
                "choose another model, or --method recompute."
            )

    def check_room(self, positions: int, way_out: str) -> None:
        """Raise ``UsageError`` where rotary frequencies change within so many positions."""
        if self.limit is not None and positions > self.limit:
            raise UsageError(
                f"{positions:,} positions are needed, but this model's rotary frequencies change "
                f"beyond {self.limit:,}: choose {way_out}."
            )


_known: weakref.WeakKeyDictionary[Any, Anatomy] = weakref.WeakKeyDictionary()


@torch.inference_mode()
def of(model: Any) -> Anatomy:
    """What ``model`` is like; looked at once, which takes some 30 forwards of a few tokens."""
    rope.restore(model)
    if model not in _known:
        found = _look(model)
        if found.capped:  # by transformers' "sdpa" it would run without, in silence
            model.set_attn_implementation("eager")
        if not found.refusal:
            try:
                found = _compare(model, found)
            except CODE as error:
                found = replace(found, refusal=_no_cache(error))
            if found.refusal and not any(layer.rotation for layer in found.layers):
                found = replace(found, refusal=BIASED)
        if found.refusal not in (None, RECURRENT) and _no_rotary(model):
            found = replace(found, refusal=NOT_ROTARY)
        _known[model] = replace(found, uncached=_cached_amiss(model))
        rope.restore(model)
    return _known[model]


def check_config(config: Any, trust: bool = False) -> None:
    """Refuse what can't stream by its structure alone, before any weight is read.

    Raises:
        UsageError: A model of this configuration keeps recurrent states, or has no rotary
            positions.
    """
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    try:
        with torch.device("meta"):
            model = auto.from_config(deepcopy(config), trust_remote_code=trust)
    except Exception:  # such as a look at values, which are not there: the loaded model will show
        return
    refusal = NOT_ROTARY if _no_rotary(model) else None
    if getattr(model, "_is_stateful", False):
        refusal = RECURRENT
    refusal = refusal or _amiss_without_values(model)
    Anatomy(kind=str(config.model_type), refusal=refusal).check_movable()


def _amiss_without_values(model: Any) -> str | None:
    """What forwards of a model on the meta device, which have shapes only, show to be amiss.

    An error of the model's own code shows nothing: it may look at values, which are not there.
    """
    registered = bool(getattr(model, "_supports_attention_backend", False))
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    ids = torch.zeros(ROWS, 1, dtype=torch.int64, device="meta")
    try:
        with torch.inference_mode():
            _look_on(model, ids, watch := _Watch(0), registered)
            _check_count(watch, count)
            if registered:
                _look_on(model, ids[:5].T, watch := _Watch(0), True)
                _masks(watch, count)
    except _Refused as found:
        return str(found)
    except AttributeError as error:
        return _no_cache(error) if isinstance(error.obj, Cache) else None
    except (*CODE, AssertionError):  # the loaded model will show
        return None
    return None


def _no_rotary(model: Any) -> bool:
    """Whether no module is called rotary, and none holds frequencies or a table of phases."""
    tables = ("inv_freq", "embed_positions")
    return not any("Rotary" in type(m).__name__ for m in model.modules()) and not any(
        name.endswith(tables) for name, _ in model.named_buffers()
    )


CODE = (AttributeError, TypeError, KeyError, IndexError, ValueError, RuntimeError)  # what it raises


def _no_cache(error: Exception) -> str:
    """What an error of the model's code says of the cache that it was given; memory is no such."""
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        raise error
    if isinstance(error, AttributeError) and isinstance(error.obj, Cache):
        return f"it asks its cache for {error.name!r}, so it keeps more than keys and values"
    lines = str(error).strip().splitlines() or [""]
    words = shorten(lines[0], 90, placeholder=" ...").rstrip(".")
    return f"its code does not take a cache of keys ({type(error).__name__}: {words})"


class _Refused(Exception):
    """What was found that can't be moved."""


def _look(model: Any) -> Anatomy:
    config = model.config.get_text_config(decoder=True)
    plain = Anatomy(
        kind=str(model.config.model_type),
        registered=bool(getattr(model, "_supports_attention_backend", False)),
        limit=rope.limit(model),
    )
    try:
        return _seen(model, config, plain)
    except _Refused as found:
        return replace(plain, refusal=str(found))


def _seen(model: Any, config: Any, plain: Anatomy) -> Anatomy:
    """The layers.

    Raises:
        _Refused: With what was found.
    """
    if getattr(model, "_is_stateful", False):
        raise _Refused(RECURRENT)
    count, device = config.num_hidden_layers, model.device
    made = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (ROWS, 1), generator=made).to(device)
    first = _fed(model, ids, 0, plain.registered)
    given = [(b, a) if i in first.latent else (a, b) for i, (a, b) in first.given.items()]
    layers = [Layer(key[0].numel(), value[0].numel()) for key, value in given]
    seen = replace(plain, layers=tuple(layers), passes=first.passes, capped=first.capped)
    try:
        _check_count(first, count)
        see = _natives(model, ids[:5].T, count) if plain.registered else _by_config(config, count)
        layers = [replace(layer, native=see[i]) for i, layer in enumerate(layers)]
        seen = replace(seen, layers=tuple(layers))
        return _moving(model, ids, first, seen)
    except _Refused as found:
        return replace(seen, refusal=str(found))


def _moving(model: Any, ids: Tensor, first: _Watch, seen: Anatomy) -> Anatomy:
    """The same with what positions do to each layer; ``first`` was fed at position 0.

    Raises:
        _Refused: With what was found.
    """
    layers = list(seen.layers)
    length = model.config.get_text_config(decoder=True).max_position_embeddings
    far = min(FAR, length - 1, (seen.limit or length) - 1)
    others = {by: _fed(model, ids, by, seen.registered) for by in (*SHIFTS, far) if by <= far}
    known = rope.frequencies(model)
    rotations: list[Rotation] = []
    for i, layer in enumerate(layers):
        moved = {by: other.keys[i] for by, other in others.items()}
        if any(_apart(o.values[i], first.values[i]) > _rounding(model)[0] for o in others.values()):
            raise _Refused("its values change with position, as with learned position embeddings")
        rotation, latent = _rotation(model, first.keys[i], moved, known, rotations), None
        if i in first.latent:
            held = {by: other.given[i][1] for by, other in others.items()}
            latent = _rotation(model, first.given[i][1], held, known, rotations)
            if latent is None:
                raise _Refused("its cache holds no part of its keys that is turned")
        for by, other in others.items():
            if seen.registered:
                _check_query(model, rotation, first.queries[i], other.queries[i], by)
        layers[i] = replace(layer, rotation=rotation, latent=latent)
    if seen.registered and seen.limit is None and known:
        beyond = _fed(model, ids, FARTHEST, True)
        for i, layer in enumerate(layers):
            near = first.queries[i].double().norm(dim=-1)
            size = (beyond.queries[i].double().norm(dim=-1) / near).mean()
            layers[i] = replace(layer, grows=abs(float(size) - 1) > _rounding(model)[0] * 10)
    elif not known and any(layer.rotation for layer in layers):
        seen = replace(seen, limit=length)  # of a table of phases
    if any(layer.grows and layer.native for layer in layers):
        raise _Refused("its queries grow with position in layers that do not see all keys")
    return replace(seen, layers=tuple(layers))


class _Watch(Cache):
    """A cache that claims ``past`` tokens, holds none, and notes what each layer hands to it.

    Attributes:
        given: What each layer handed over: its key and value (B, K, C, D), or what makes them.
        keys: The keys that it attended to.
        values: And the values.
        latent: Layers whose keys and values are made of what they handed over (MLA).
    """

    is_compileable = False

    def __init__(self, past: int) -> None:
        self.layers: list[Any] = _NoLayers()
        self.past = past
        self.given: dict[int, tuple[Tensor, Tensor]] = {}
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.latent: set[int] = set()
        self.queries: dict[int, Tensor] = {}
        self.masks: dict[int, Tensor | None] = {}
        self.makers: list[tuple[Tensor, Callable[..., Tensor]]] = []
        self.passes = self.capped = False

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.given[layer_idx] = key_states, value_states
        self.keys[layer_idx], self.values[layer_idx] = key_states, value_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int | None = 0) -> int:
        return self.past

    def get_mask_sizes(self, query: Any, layer_idx: int = 0) -> tuple[int, int]:
        return (query if isinstance(query, int) else query.shape[0]), self.past

    def attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Every token gets its own value."""
        i = module.layer_idx
        if self.keys.get(i) is not key or self.values.get(i) is not value:
            if not _made_of(key, *self.given.get(i, (key, key))):
                raise _Refused("its attention does not take the keys that its cache returns")
            self.keys[i], self.values[i] = key, value
            self.latent.add(i)
        if unknown := [n for n, v in kwargs.items() if n not in HARMLESS and v is not None]:
            raise _Refused(f"its attention is handed {unknown[0]!r}, which streaming does not know")
        self.passes = self.passes or kwargs.get("stream") is self
        self.queries[i], self.masks[i] = query, attention_mask
        self.capped = self.capped or kwargs.get("softcap") is not None
        groups = query.shape[1] // key.shape[1]
        return value.repeat_interleave(groups, dim=1).transpose(1, 2).contiguous(), None

    def mask(self, *args: Any, mask_function: Callable[..., Tensor], **kwargs: Any) -> Tensor:
        """A mask that can be recognised, and the rule that it is made by."""
        c = next(v for n, v in kwargs.items() if n in ("q_length", "cache_position"))
        c = c if isinstance(c, int) else len(c)
        made = torch.ones(1, 1, c, c).tril().bool()
        self.makers.append((made, mask_function))
        return made


class _NoLayers(list[Any]):
    """What a cache has where its layers are expected: none."""

    def __getitem__(self, i: Any) -> Any:
        raise _Refused("it asks its cache's layers for more than keys and values")


def _made_of(key: Tensor, latent: Tensor, turned: Tensor) -> bool:
    """Whether keys (B, K, C, D) end in what the cache was given second, the same for all heads."""
    r, heads = turned.shape[-1], key.shape[:-1]
    if r >= key.shape[-1] or latent.shape[1] != 1 or turned.shape[:-1] != (heads[0], 1, heads[2]):
        return False
    return key.is_meta or torch.equal(key[..., -r:], turned.expand(*heads, r))


def _fed(model: Any, ids: Tensor, past: int, registered: bool) -> _Watch:
    """What the layers hand over for ids (B, C), at positions ``past`` and on."""
    watch = _Watch(past)
    try:
        _look_on(model, ids, watch, registered)
    except CODE as error:
        raise _Refused(_no_cache(error)) from error
    return watch


def _look_on(model: Any, ids: Tensor, watch: _Watch, registered: bool) -> None:
    name = cache_name(model)
    if registered:
        with _watched(model, watch):
            model(ids, **{name: watch}, use_cache=True, stream=watch)
    else:
        model(ids, **{name: watch}, use_cache=True)


def _check_count(watch: _Watch, count: int) -> None:
    if len(watch.given) != count:
        raise _Refused(f"its {count} layers hand {len(watch.given)} sets of keys to a cache")


@contextmanager
def _watched(model: Any, watch: _Watch) -> Iterator[None]:
    AttentionMaskInterface.register(NAME, watch.mask)
    try:
        with registered(watch.attend, NAME), implementation(model, NAME):
            yield
    finally:
        AttentionMaskInterface._global_mapping.pop(NAME, None)


def _natives(model: Any, ids: Tensor, count: int) -> list[Native | None]:
    """How far each layer looks back, by the mask that transformers makes for it; ids are (1, C)."""
    return _masks(_fed(model, ids, 0, True), count)


def _masks(watch: _Watch, count: int) -> list[Native | None]:
    """The same of a chunk that was watched."""
    found = []
    for i in range(count):
        mask = watch.masks[i]
        rules = [rule for made, rule in watch.makers if mask is made or _same(mask, made)]
        if not rules:
            raise _Refused("its attention has a mask of its own")
        found.append(_native(rules[0]))
    return found


def _same(mask: Any, made: Tensor) -> bool:
    """Whether ``mask`` is a view of all of ``made``."""
    return isinstance(mask, Tensor) and mask.shape == made.shape and mask._base is made


def _native(rule: Callable[..., Tensor]) -> Native | None:
    """What a rule (batch, head, query, key) -> bool amounts to.

    Raises:
        _Refused: Neither everything before, nor a window, nor blocks.
    """
    zero = torch.tensor(0)

    def seen(query: int) -> int:
        key = torch.arange(query + 2)
        sees = rule(zero, zero, torch.tensor(query), key).expand(len(key))
        n = int(sees.sum())
        if sees[-1] or not sees[query + 1 - n : -1].all():
            raise _Refused("its mask is neither causal, nor a window, nor blocks")
        return n

    last = HORIZON - 1
    n = seen(last)
    if n == HORIZON:
        return None
    before = seen(last - n)  # where a block ends, if there are blocks
    found = Native(before, blocks=seen(last - 1) != n)
    for query in (last, last - 1, HORIZON // 3, before, before - 1, 3):
        want = query % before + 1 if found.blocks else min(query + 1, before)
        if seen(query) != want:
            raise _Refused("its mask is neither causal, nor a window, nor blocks")
    return found


def _by_config(config: Any, count: int) -> list[Native | None]:
    """The same where the masks can't be seen: a configuration that names a window is refused."""
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise _Refused("it has a sliding window, and does not take registered attention functions")
    return [None] * count


def _rotation(
    model: Any,
    key: Tensor,
    moved: dict[int, Tensor],
    known: list[Tensor],
    rotations: list[Rotation],
) -> Rotation | None:
    """The turn that takes keys (B, K, 1, D) at 0 to those at d; None where they do not move.

    ``rotations`` are those of the layers before, which this one most likely shares.

    Raises:
        _Refused: They move otherwise.
    """
    rounding = _rounding(model)[0]
    if all(_apart(other, key) <= rounding / 10 for other in moved.values()):
        return None
    d, device = key.shape[-1], key.device
    dtype = torch.float64 if key.dtype == torch.float64 else torch.float32
    candidates = [
        Rotation(inv_freq, first, pairs, device, dtype)
        for frequencies in known or _frequencies_by_sight(key, moved)
        for inv_freq in (frequencies, -frequencies)
        if 2 * len(inv_freq) <= d
        for first in sorted({0, d - 2 * len(inv_freq)})
        for pairs in (False, True)
    ]
    shared = [each for each in rotations if each.first + 2 * len(each.inv_freq) <= d]
    for found in (*shared, *candidates):
        limits = {by: rounding + PHASE * by for by in moved}
        if all(_apart(_by(found, by)(key), moved[by]) <= limits[by] for by in moved):
            if found not in rotations:
                rotations.append(found)
            return found
    raise _Refused(
        "its keys move with position, but not as rotary ones do, turned in halves or pairs"
    )


def _frequencies_by_sight(key: Tensor, moved: dict[int, Tensor]) -> list[Tensor]:
    """Frequencies of neighbouring pairs and of halves, read off keys (B, K, 1, D) that moved.

    The angle by 1 position is known to a rounding; that by 5, and so on, to as much, and so the
    frequency more and more sharply.
    """
    size = _size(key)
    dims = torch.zeros(key.shape[-1], dtype=torch.bool)
    for other in moved.values():
        dims |= ((other - key).abs().amax((0, 1, 2)) > 1e-5 * size).cpu()
    places = dims.nonzero().flatten()
    if not len(places):
        return []
    first, stop = int(places[0]), int(places[-1]) + 1
    if (stop - first) % 2:
        return []
    found = []
    for pairs in (True, False):
        angles = torch.zeros((stop - first) // 2, dtype=torch.float64)
        for by in sorted(moved):
            a, b = (_complex(each[..., first:stop], pairs) for each in (key, moved[by]))
            turned = (b * a.conj()).sum((0, 1, 2)).cpu().angle()  # (R/2,), modulo 2 pi
            turns = ((angles * by - turned) / (2 * torch.pi)).round()
            angles = (turned + 2 * torch.pi * turns) / by
        found.append(angles)
    return found


def _complex(x: Tensor, pairs: bool) -> Tensor:
    x = x.double()
    a, b = (x[..., 0::2], x[..., 1::2]) if pairs else x.chunk(2, dim=-1)
    return torch.complex(a.contiguous(), b.contiguous())


def _check_query(
    model: Any, rotation: Rotation | None, query: Tensor, moved: Tensor, by: int
) -> None:
    """Queries (B, H, 1, D) must move as keys do, or grow besides.

    Raises:
        _Refused: They do not.
    """
    turned = _by(rotation, by)(query) if rotation else query
    grown = (moved.double().norm() / query.double().norm()).to(turned.dtype)
    if _apart(turned * grown, moved) > _rounding(model)[0] + PHASE * by:
        raise _Refused("its queries are not turned by positions as its keys are")


def _by(rotation: Rotation, positions: int) -> Turn:
    return rotation.turn(torch.tensor([float(positions)]))


def _size(x: Tensor) -> float:
    return float(x.double().norm(dim=-1).amax())


def _apart(a: Tensor, b: Tensor) -> float:
    """How far two vectors are apart at most, of the size of the largest one."""
    return float((a.double() - b.double()).norm(dim=-1).amax()) / max(_size(b), 1e-30)


def _rounding(model: Any) -> tuple[float, float]:
    return ROUNDING.get(model.dtype, EXACT)


def _allowed(model: Any, nats: Tensor) -> float:
    """What rounding may do to a token; in half precision it grows with the scores."""
    return _rounding(model)[1] * max(1.0, float(nats.max()) / 20)


class _Shuffled(_Watch):
    """Everything is kept, in reversed order, ``past`` positions on; nothing is evicted."""

    def __init__(self, past: int, found: Anatomy, model: Any) -> None:
        super().__init__(past)
        self.found, self.model, self.first = found, model, past
        self.held: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        new = key_states, value_states
        if layer_idx in self.held and key_states.shape[-2] == 1:
            old = self.held[layer_idx]
            new = torch.cat((new[0], old[0]), -2), torch.cat((new[1], old[1]), -2)
        self.held[layer_idx] = new
        return new

    def get_mask_sizes(self, query: Any, layer_idx: int = 0) -> tuple[int, int]:
        c = query if isinstance(query, int) else query.shape[0]
        return self.past - self.first + c, self.first

    def mask(self, layer: int) -> None:  # type: ignore[override]
        """One token sees everything."""
        return

    def view(self, layer: int, c: int) -> ChunkView:
        """A chunk that begins a text."""
        band = torch.ones(c, c, dtype=torch.bool, device=self.model.device).tril()
        return ChunkView(band, band[:, :0], None)

    def grown(self, layer: int, c: int) -> Tensor | None:
        """What takes queries from their size where they stand to that at the start."""
        if not self.found.layers[layer].grows:
            return None
        sizes = query_sizes(self.model, self.found, self.past + c)[layer]
        at = torch.arange(self.past, self.past + c, device=sizes.device)
        return sizes[at - self.first] / sizes[at]


def _bound(model: Any, stream: _Shuffled) -> AbstractContextManager[None]:
    return attending(model, stream) if stream.found.registered else nullcontext()


def _compare(model: Any, found: Anatomy) -> Anatomy:
    """A short text (2, T) by our attention and by the model itself."""
    config = model.config.get_text_config(decoder=True)
    native = [layer.native.keys for layer in found.layers if layer.native]
    length = min([LENGTH, *native])
    made = torch.Generator().manual_seed(1)
    ids = torch.randint(0, config.vocab_size, (2, length), generator=made).to(model.device)
    own = token_nll(model(ids, use_cache=False).logits[:, :-1], ids[:, 1:])
    if not own.isfinite().all():  # nothing is proved, and no run of it will be done
        return replace(found, largest_nats=float("nan"))
    by = MOVED_BY if (found.limit or MOVED_BY * 2) > MOVED_BY + length else 0
    far, parts, name = _Shuffled(by, found, model), [], cache_name(model)
    with _bound(model, far):
        for t in range(length - 1):
            logits = model(ids[:, t : t + 1], **{name: far}).logits
            parts.append(token_nll(logits, ids[:, t + 1 : t + 2]))
            far.past += 1
    apart = [(torch.cat(parts, 1) - own).abs().max()]
    if found.registered:
        near = _Shuffled(0, found, model)
        with _bound(model, near):
            logits = model(ids[:, :-1], **{name: near}).logits
        apart.append((token_nll(logits, ids[:, 1:]) - own).abs().max())
    largest = float(torch.stack(apart).max())
    if not largest <= _allowed(model, own):  # NaN is not, either
        how = "moved and out of order" if apart[0] == largest else "in one chunk"
        return replace(
            found,
            refusal=f"{length} tokens {how} differ by {largest:.2g} nats from its own forward, so "
            "positions or masks enter otherwise",
        )
    return replace(found, largest_nats=largest)


def query_sizes(model: Any, found: Anatomy, positions: int) -> dict[int, Tensor]:
    """How large queries are at 0, 1, ..., of their size at 0: at least (``positions``,) a layer.

    One forward over as many tokens, each of which attends to itself; kept for the next time.
    """
    layers = [i for i, layer in enumerate(found.layers) if layer.grows]
    if layers and (not found.sizes or len(next(iter(found.sizes.values()))) < positions):
        n = max(256, 2 ** (positions - 1).bit_length())
        ids = torch.zeros(1, n, dtype=torch.int64, device=model.device)
        with torch.inference_mode():
            watch = _fed(model, ids, 0, True)
        for i in layers:
            size = watch.queries[i][0].double().norm(dim=-1).mean(0)  # (N,)
            found.sizes[i] = (size / size[0]).to(torch.float32)
    return found.sizes


def _cached_amiss(model: Any) -> str | None:
    """What is wrong with a short text in parts through transformers' own cache."""
    from transformers import DynamicCache

    config = model.config.get_text_config(decoder=True)
    made = torch.Generator().manual_seed(2)
    ids = torch.randint(0, config.vocab_size, (2, LENGTH), generator=made).to(model.device)
    want = token_nll(model(ids, use_cache=False).logits[:, :-1], ids[:, 1:])
    parts = []
    try:
        cache = DynamicCache(config=model.config)
        for start, stop in ((0, 4), (4, 5), (5, LENGTH - 1)):
            logits = model(ids[:, start:stop], **{cache_name(model): cache}).logits
            parts.append(token_nll(logits, ids[:, start + 1 : stop + 1]))
    except CODE as error:
        return _no_cache(error)
    apart = float((torch.cat(parts, 1) - want).abs().max())
    if apart <= _allowed(model, want) or not want.isfinite().all():
        return None
    return f"{LENGTH} tokens in three parts differ by {apart:.2g} nats from one forward"
