"""A forward that is watched: what each layer hands to its cache and its attention, and its mask.

Nothing is evicted or remembered: every token attends to itself alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionMaskInterface
from transformers.cache_utils import Cache

from core.attending import cache_name, implementation, registered
from core.models.layers import Native

NAME = "streamcli-watch"
HORIZON = 2**20  # tokens back that a mask is asked about
# What an attention is handed that does not change what a query sees or how much of it.
HARMLESS = {
    *("dropout", "scaling", "sliding_window", "is_causal", "stream", "softcap", "s_aux"),
    *("position_ids", "cache_position", "position_embeddings", "output_attentions"),
    *("use_cache", "output_hidden_states", "output_router_logits", "return_dict"),
    *("logits_to_keep", "num_items_in_batch", "training", "attention_type", "layer_idx"),
}
CODE = (AttributeError, TypeError, KeyError, IndexError, ValueError, RuntimeError)  # what it raises


def no_cache(error: Exception) -> str:
    """What an error of the model's code says of the cache that it was given; memory is no such."""
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        raise error
    if isinstance(error, AttributeError) and isinstance(error.obj, Cache):
        return f"it asks its cache for {error.name!r}, so it keeps more than keys and values"
    lines = str(error).strip().splitlines() or [""]
    words = shorten(lines[0], 90, placeholder=" ...").rstrip(".")
    return f"its code does not take a cache of keys ({type(error).__name__}: {words})"


class Refused(Exception):
    """What was found that can't be moved."""


class Watch(Cache):
    """A cache that claims ``past`` tokens, holds none, and notes what each layer hands to it.

    Attributes:
        given: What each layer handed over: its key and value (B, K, C, D), or what makes them.
        keys: The keys that it attended to.
        values: And the values.
        latent: Layers whose keys and values are made of what they handed over (MLA).
        sinks: Layers whose attention is handed learned sinks.
    """

    is_compileable = False

    def __init__(self, past: int) -> None:
        self.layers: list[Any] = _NoLayers()
        self.past = past
        self.given: dict[int, tuple[Tensor, Tensor]] = {}
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.latent: set[int] = set()
        self.sinks: set[int] = set()
        self.queries: dict[int, Tensor] = {}
        self.masks: dict[int, Tensor | None] = {}
        self.makers: list[tuple[Tensor, Callable[..., Tensor]]] = []
        self.passes = self.capped = False

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Note keys and values (B, K, C, D), and give them back."""
        self.given[layer_idx] = key_states, value_states
        self.keys[layer_idx], self.values[layer_idx] = key_states, value_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int | None = 0) -> int:
        """Tokens that it claims to have seen."""
        return self.past

    def get_mask_sizes(self, query: Any, layer_idx: int = 0) -> tuple[int, int]:
        """Length and first position of the keys that ``query`` tokens will be given."""
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
                raise Refused("its attention does not take the keys that its cache returns")
            self.keys[i], self.values[i] = key, value
            self.latent.add(i)
        if unknown := [n for n, v in kwargs.items() if n not in HARMLESS and v is not None]:
            raise Refused(f"its attention is handed {unknown[0]!r}, which streaming does not know")
        self.passes = self.passes or kwargs.get("stream") is self
        self.queries[i], self.masks[i] = query, attention_mask
        if kwargs.get("s_aux") is not None:
            self.sinks.add(i)
        self.capped = self.capped or kwargs.get("softcap") is not None
        groups = query.shape[1] // key.shape[1]
        return value.repeat_interleave(groups, dim=1).transpose(1, 2).contiguous(), None

    def mask(self, *args: Any, mask_function: Callable[..., Tensor], **kwargs: Any) -> Tensor:
        """A mask that can be recognised, and the rule that it is made by."""
        at = next(v for n, v in kwargs.items() if n in ("q_length", "cache_position"))
        c, device = (at, kwargs.get("device")) if isinstance(at, int) else (len(at), at.device)
        made = torch.ones(1, 1, c, c, device=device).tril().bool()
        self.makers.append((made, mask_function))
        return made


class _NoLayers(list[Any]):
    """What a cache has where its layers are expected: none."""

    def __getitem__(self, i: Any) -> Any:
        raise Refused("it asks its cache's layers for more than keys and values")


def _made_of(key: Tensor, latent: Tensor, turned: Tensor) -> bool:
    """Whether keys (B, K, C, D) end in what the cache was given second, the same for all heads."""
    r, heads = turned.shape[-1], key.shape[:-1]
    if r >= key.shape[-1] or latent.shape[1] != 1 or turned.shape[:-1] != (heads[0], 1, heads[2]):
        return False
    return key.is_meta or torch.equal(key[..., -r:], turned.expand(*heads, r))


def fed(model: Any, ids: Tensor, past: int, registered: bool) -> Watch:
    """What the layers hand over for ids (B, C), at positions ``past`` and on."""
    watch = Watch(past)
    try:
        look_on(model, ids, watch, registered)
    except CODE as error:
        raise Refused(no_cache(error)) from error
    return watch


def look_on(model: Any, ids: Tensor, watch: Watch, registered: bool) -> None:
    """One forward of ids (B, C); the model's own errors come through."""
    name = cache_name(model)
    if registered:
        with _watched(model, watch):
            model(ids, **{name: watch}, use_cache=True, stream=watch)
    else:
        model(ids, **{name: watch}, use_cache=True)


class _Zeros(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What has no value on the meta device is 0 to code that looks at it."""

    LOOKS = ("is_nonzero", "item", "_local_scalar_dense")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket.__name__ in self.LOOKS and args[0].is_meta:
            return torch.zeros((), dtype=args[0].dtype).item()
        return func(*args, **(kwargs or {}))


@contextmanager
def without_values() -> Iterator[None]:
    """For forwards on the meta device: values are zeros, and no autocast is asked for there."""
    asked = torch.is_autocast_enabled
    torch.is_autocast_enabled = lambda *device: False
    try:
        with _Zeros():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.is_autocast_enabled = asked


def check_count(watch: Watch, count: int) -> None:
    """Raise ``Refused`` unless every layer has handed over keys."""
    if len(watch.given) != count:
        raise Refused(f"its {count} layers hand {len(watch.given)} sets of keys to a cache")


@contextmanager
def _watched(model: Any, watch: Watch) -> Iterator[None]:
    AttentionMaskInterface.register(NAME, watch.mask)
    try:
        with registered(watch.attend, NAME), implementation(model, NAME):
            yield
    finally:
        AttentionMaskInterface._global_mapping.pop(NAME, None)


def natives(model: Any, ids: Tensor, count: int) -> list[Native | None]:
    """How far each layer looks back, by the mask that transformers makes for it; ids are (1, C)."""
    return masks(fed(model, ids, 0, True), count)


def masks(watch: Watch, count: int) -> list[Native | None]:
    """The same of a chunk that was watched."""
    found, native = [], cache(_native)  # layers share rules, and to look at one takes a while
    for i in range(count):
        mask = watch.masks[i]
        rules = [rule for made, rule in watch.makers if mask is made or _same(mask, made)]
        if not rules:
            raise Refused("its attention has a mask of its own")
        found.append(native(rules[0]))
    return found


def _same(mask: Any, made: Tensor) -> bool:
    """Whether ``mask`` is a view of all of ``made``."""
    return isinstance(mask, Tensor) and mask.shape == made.shape and mask._base is made


def _native(rule: Callable[..., Tensor]) -> Native | None:
    """What a rule (batch, head, query, key) -> bool amounts to.

    Raises:
        Refused: Neither everything before, nor a window, nor blocks.
    """
    zero = torch.tensor(0)

    def seen(query: int) -> int:
        key = torch.arange(query + 2)
        sees = rule(zero, zero, torch.tensor(query), key).expand(len(key))
        n = int(sees.sum())
        if sees[-1] or not sees[query + 1 - n : -1].all():
            raise Refused("its mask is neither causal, nor a window, nor blocks")
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
            raise Refused("its mask is neither causal, nor a window, nor blocks")
    return found


def by_config(config: Any, count: int) -> list[Native | None]:
    """The same where the masks can't be seen: a configuration that names a window is refused."""
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise Refused("it has a sliding window, and does not take registered attention functions")
    return [None] * count
