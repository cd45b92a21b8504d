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

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import replace
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from core import rope
from core.attending import attending, cache_name
from core.attention import ChunkView
from core.measure.meters import token_nll
from core.models.layers import LENGTH, Anatomy, Layer
from core.models.turning import allowed, apart, check_query, rotation_of, rounding
from core.models.watching import (
    CODE,
    Refused,
    Watch,
    by_config,
    check_count,
    fed,
    look_on,
    masks,
    natives,
    no_cache,
    without_values,
)
from core.rope import Rotation

ROWS, FEW = 16, 2  # tokens that are watched, and layers where there are no weights
SHIFTS = (1, 5)  # positions that they are moved by, and one far away
FAR, FARTHEST = 4096, 2**20  # the latter for the size of queries alone
MOVED_BY = 37  # positions on, where the short text stands when it is out of order
BIASED = "no layer turns its keys, so positions enter otherwise, such as by a bias (ALiBi)"
NOT_ROTARY = "it has no rotary positions, which are those that can be moved"
RECURRENT = "its layers keep recurrent states, which are no keys that can be evicted"

# Of a model, and the rotary frequencies that it had then.
_known: weakref.WeakKeyDictionary[Any, tuple[Anatomy, list[Tensor]]] = weakref.WeakKeyDictionary()
_looking = RLock()  # one thread at a time


@torch.inference_mode()
def of(model: Any) -> Anatomy:
    """What ``model`` is like; some 30 forwards of a few tokens, where it was not looked at so."""
    with _looking:
        rope.restore(model)
        now, (found, then) = rope.frequencies(model), _known.get(model, (None, []))
        if found is None or len(now) != len(then) or not all(map(_alike, now, then)):
            with _plain(model):
                found = _proved(model)
            rope.restore(model)
            _known[model] = found, now
        return found


def _alike(now: Tensor, then: Tensor) -> bool:
    return now.device == then.device and torch.equal(now, then)


@contextmanager
def _plain(model: Any) -> Iterator[None]:
    """The model without its compiler, without dropout and in its own number format."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    stance = torch.compiler.set_stance("force_eager")
    try:
        with stance, torch.autocast(model.device.type, enabled=False):
            yield
    finally:
        for module in training:
            module.training = True


def _proved(model: Any) -> Anatomy:
    """What a model hands over, held against its own rotation, masks and forwards."""
    found = _look(model)
    if found.capped and model.config._attn_implementation == "sdpa":  # without, in silence
        model.set_attn_implementation("eager")
    if not found.refusal:
        try:
            found = _compare(model, found)
        except CODE as error:
            found = replace(found, refusal=no_cache(error))
        if found.refusal and not any(layer.rotation for layer in found.layers):
            found = replace(found, refusal=BIASED)
    if found.refusal not in (None, RECURRENT) and _no_rotary(model):
        found = replace(found, refusal=NOT_ROTARY)
    return replace(found, uncached=_cached_amiss(model))


def check_config(config: Any, trust: bool = False) -> None:
    """Refuse what can't stream by its structure alone, before any weight is read.

    Raises:
        UsageError: A model of this configuration keeps recurrent states, or has no rotary
            positions.
    """
    try:
        model = without_weights(config, trust)
    except Exception:  # such as a look at values, which are not there: the loaded model will show
        return
    refusal = NOT_ROTARY if _no_rotary(model) else None
    if getattr(model, "_is_stateful", False):
        refusal = RECURRENT
    with suppress(*CODE, AssertionError):
        refusal = refusal or _amiss(model, "meta")
        Anatomy(kind=str(config.model_type), refusal=refusal).check_movable()
        return
    # Its code looks at values, such as how many tokens each expert got: two layers of zeros have.
    with suppress(Exception):  # of what it needs more of: the loaded model will show
        refusal = _amiss(of_zeros(config, trust), "cpu")
    Anatomy(kind=str(config.model_type), refusal=refusal).check_movable()


def without_weights(config: Any, trust: bool) -> Any:
    """A model on the meta device, where tensors have shapes only."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(deepcopy(config), trust_remote_code=trust)


def of_zeros(config: Any, trust: bool) -> Any:
    """The model's first two layers on the CPU, every tensor one zero that stands for all."""
    few = deepcopy(config)
    few.get_text_config(decoder=True).num_hidden_layers = FEW
    model = without_weights(few, trust).eval()
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    zeros = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
                    is_weight = held is module._parameters
                    held[name] = nn.Parameter(zeros, requires_grad=False) if is_weight else zeros
    return model


def _amiss(model: Any, device: str) -> str | None:
    """What forwards of a model without its weights show to be amiss.

    Raises:
        Exception: The model's own code failed, which shows nothing where it looks at values.
    """
    registered = bool(getattr(model, "_supports_attention_backend", False))
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    ids = torch.zeros(ROWS, 1, dtype=torch.int64, device=device)
    values = without_values() if device == "meta" else nullcontext()
    try:
        with torch.inference_mode(), values:
            look_on(model, ids, watch := Watch(0), registered)
            check_count(watch, count)
            if registered:
                look_on(model, ids[:5].T, watch := Watch(0), True)
                masks(watch, count)
    except Refused as found:
        return str(found)
    except (AttributeError, ValueError) as error:
        if isinstance(error, ValueError) or isinstance(error.obj, Cache):
            return no_cache(error)
        raise
    return None


def _no_rotary(model: Any) -> bool:
    """Whether no module is called rotary, and none holds frequencies or a table of phases.

    Falcon's has one, which it leaves aside where its configuration asks for ALiBi.
    """
    if getattr(model.config, "alibi", False):
        return True
    tables = ("inv_freq", "embed_positions")
    return not any("Rotary" in type(m).__name__ for m in model.modules()) and not any(
        name.endswith(tables) for name, _ in model.named_buffers()
    )


def _look(model: Any) -> Anatomy:
    config = model.config.get_text_config(decoder=True)
    plain = Anatomy(
        kind=str(model.config.model_type),
        registered=bool(getattr(model, "_supports_attention_backend", False)),
        limit=rope.limit(model),
    )
    try:
        return _seen(model, config, plain)
    except Refused as found:
        return replace(plain, refusal=str(found))


def _seen(model: Any, config: Any, plain: Anatomy) -> Anatomy:
    """The layers.

    Raises:
        Refused: With what was found.
    """
    if getattr(model, "_is_stateful", False):
        raise Refused(RECURRENT)
    count, device = config.num_hidden_layers, model.device
    made = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (ROWS, 1), generator=made).to(device)
    first = fed(model, ids, 0, plain.registered)
    given = [(b, a) if i in first.latent else (a, b) for i, (a, b) in first.given.items()]
    layers = [Layer(k[0].numel(), v[0].numel(), heads=k.shape[1]) for k, v in given]
    seen = replace(plain, layers=tuple(layers), passes=first.passes, capped=first.capped)
    try:
        check_count(first, count)
        see = natives(model, ids[:5].T, count) if plain.registered else by_config(config, count)
        layers = [replace(layer, native=see[i]) for i, layer in enumerate(layers)]
        seen = replace(seen, layers=tuple(layers))
        return _moving(model, ids, first, seen)
    except Refused as found:
        return replace(seen, refusal=str(found))


def _moving(model: Any, ids: Tensor, first: Watch, seen: Anatomy) -> Anatomy:
    """The same with what positions do to each layer; ``first`` was fed at position 0.

    Raises:
        Refused: With what was found.
    """
    layers = list(seen.layers)
    length = model.config.get_text_config(decoder=True).max_position_embeddings
    far = min(FAR, length - 1, (seen.limit or length) - 1)
    others = {by: fed(model, ids, by, seen.registered) for by in (*SHIFTS, far) if by <= far}
    known = rope.frequencies(model)
    rotations: list[Rotation] = []
    for i, layer in enumerate(layers):
        moved = {by: other.keys[i] for by, other in others.items()}
        if any(apart(o.values[i], first.values[i]) > rounding(model)[0] for o in others.values()):
            raise Refused("its values change with position, as with learned position embeddings")
        rotation, latent = rotation_of(model, first.keys[i], moved, known, rotations), None
        if i in first.latent:
            held = {by: other.given[i][1] for by, other in others.items()}
            latent = rotation_of(model, first.given[i][1], held, known, rotations)
            if latent is None:
                raise Refused("its cache holds no part of its keys that is turned")
        for by, other in others.items():
            if seen.registered:
                check_query(model, rotation, first.queries[i], other.queries[i], by)
        layers[i] = replace(layer, rotation=rotation, latent=latent)
    if seen.registered and seen.limit is None and known:
        beyond = fed(model, ids, FARTHEST, True)
        for i, layer in enumerate(layers):
            near = first.queries[i].double().norm(dim=-1)
            size = (beyond.queries[i].double().norm(dim=-1) / near).mean()
            layers[i] = replace(layer, grows=abs(float(size) - 1) > rounding(model)[0] * 10)
    elif not known and any(layer.rotation for layer in layers):
        seen = replace(seen, limit=length)  # of a table of phases
    if any(layer.grows and layer.native for layer in layers):
        raise Refused("its queries grow with position in layers that do not see all keys")
    return replace(seen, layers=tuple(layers))


class _Shuffled(Watch):
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
        return ChunkView(band, band[:, :0], None, torch.arange(c, device=band.device))

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
    if largest != largest and not all(w.isfinite().all() for w in model.parameters()):
        return replace(found, largest_nats=largest)  # not its family's fault: the run will say so
    if not largest <= allowed(model, own):  # NaN is not, either
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
            watch = fed(model, ids, 0, True)
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
        return no_cache(error)
    apart = float((torch.cat(parts, 1) - want).abs().max())
    if apart <= allowed(model, want) or not want.isfinite().all():
        return None
    return f"{LENGTH} tokens in three parts differ by {apart:.2g} nats from one forward"
