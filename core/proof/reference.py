"""The obvious ways to compute what methods claim: slow, and sharing no code with the fast ones.

The streaming loop holds no keys and turns none. To read a token it runs the model's own forward,
without any cache, over the tokens that are kept, at positions 0 to n-1, as re-computation would;
only that in every layer what attention is given of an older token is what it was when that token
came. The model makes keys and queries of these inputs afresh, by whatever rule it has (Xiao et al.
2023, section 3.2: keys at positions in the cache, made of what the token itself could see).

A layer with a window of its own gets what its own mask shows, at the distances that these tokens
have in the text. A softmax that is off by one is written out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from core.attending import implementation, registered
from core.attention import BY_MASK
from core.config import RunConfig
from core.models.layers import attentions

GLOBAL = "full_attention"


def _off_by_one(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **kwargs: Any
) -> tuple[Tensor, None]:
    """exp(x) / (1 + the sum of exp) of every logit x, in float64; arguments as transformers has."""
    heads = query.shape[1] // key.shape[1]
    k, v = (each.double().repeat_interleave(heads, 1) for each in (key, value))
    logits = query.double() @ k.transpose(-1, -2) * (kwargs.get("scaling") or key.shape[-1] ** -0.5)
    if (cap := kwargs.get("softcap")) is not None:
        logits = cap * (logits / cap).tanh()
    shares = logits.exp() * (mask == 0)
    out = shares / (1 + shares.sum(-1, keepdim=True)) @ v
    return out.to(value.dtype).transpose(1, 2).contiguous(), None


@contextmanager
def _written_out() -> Iterator[None]:
    """A model whose softmax is off by one attends by the formula; others as they do."""
    with registered(_off_by_one, BY_MASK):
        yield


def streaming(model: Any, ids: Tensor, config: RunConfig) -> Tensor:
    """``streaming_nll`` with the sizes of ``config``."""
    every = config.steps_between_evictions()
    return streaming_nll(model, ids, config.n_sink, config.window_size, every)


@_written_out()
@torch.inference_mode()
def context_shift(model: Any, ids: Tensor, config: RunConfig) -> Tensor:
    """Nats of ids[:, 1:] (B, T-1) where a full cache drops many of its oldest tokens but the sinks.

    As many as the option ``n_discard`` says; half of those that are no sinks where that is 0.
    """
    masks, scores = _own_masks(model, ids), []
    asked, full = dict(config.param).get("n_discard") or 0, config.attended_keys
    with _remembering(model, ids.shape) as memory:
        kept: list[int] = []
        for t in range(ids.shape[1] - 1):
            if len(kept) == full:  # no room for this one
                others = kept[config.n_sink :]
                kept = kept[: config.n_sink] + others[asked or len(others) // 2 :]
            kept.append(t)
            scores.append(_nll(memory.read(ids, kept, masks), ids[:, t + 1]))
    return torch.stack(scores, dim=1)


def recompute(model: Any, ids: Tensor, config: RunConfig) -> Tensor:
    """``recompute_nll`` with as many keys as ``config`` attends to."""
    return recompute_nll(model, ids, config.attended_keys)


def dense(model: Any, ids: Tensor, config: RunConfig) -> Tensor:
    """``dense_nll``, whatever the sizes."""
    return dense_nll(model, ids)


@_written_out()
@torch.inference_mode()
def streaming_nll(model: Any, ids: Tensor, n_sink: int, window: int, every: int = 1) -> Tensor:
    """Nats of ids[:, 1:] (B, T-1) with S = ``n_sink`` and W = ``window``.

    Eviction comes after the tokens 0, ``every``, 2 x ``every`` and so on.
    """
    masks, scores = _own_masks(model, ids), []
    with _remembering(model, ids.shape) as memory:
        kept: list[int] = []
        for t in range(ids.shape[1] - 1):
            kept.append(t)
            logits = memory.read(ids, kept, masks)
            scores.append(_nll(logits, ids[:, t + 1]))
            if t % every == 0 and len(kept) > n_sink + window:
                kept = kept[:n_sink] + kept[len(kept) - window :]
    return torch.stack(scores, dim=1)


@_written_out()
@torch.inference_mode()
def recompute_nll(model: Any, ids: Tensor, attended: int) -> Tensor:
    """Nats of ids[:, 1:], each from a forward over the L = ``attended`` tokens before it."""
    scores = []
    for t in range(ids.shape[1] - 1):
        logits = model(ids[:, max(0, t + 1 - attended) : t + 1], use_cache=False).logits
        scores.append(_nll(logits[:, -1], ids[:, t + 1]))
    return torch.stack(scores, dim=1)


@_written_out()
@torch.inference_mode()
def dense_nll(model: Any, ids: Tensor) -> Tensor:
    """Nats of ids[:, 1:] from one forward over everything."""
    logits = model(ids[:, :-1], use_cache=False).logits
    return torch.stack([_nll(logits[:, t], ids[:, t + 1]) for t in range(logits.shape[1])], dim=1)


def _own_masks(model: Any, ids: Tensor) -> dict[int, Tensor]:
    """By the number of each layer that has a window of its own, what it shows: (T, T) bool.

    Empty where no layer has one, or all have (then S and W are for all of them).
    """
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or ()
    own = [i for i, kind in enumerate(kinds) if kind != GLOBAL]
    if not own or len(own) == len(kinds):
        return {}
    found: dict[int, Tensor] = {}

    def note(i: int) -> Any:
        def hook(layer: Any, args: Any, kwargs: dict[str, Any]) -> None:
            mask = kwargs["attention_mask"][0, 0]  # (T, T), 0 where a key is seen, or bool
            found[i] = mask if mask.dtype == torch.bool else mask == 0

        return hook

    with hooked(model, note, own), implementation(model, "eager"):
        model(ids, use_cache=False, logits_to_keep=1)
    return found


@contextmanager
def hooked(model: Any, hook: Callable[[int], Any], layers: Iterable[int]) -> Iterator[None]:
    """Within it ``hook(i)`` is called before the attention of each of these layers, by number."""
    found = attentions(model)
    with ExitStack() as stack:
        for i in layers:
            each = found[i].register_forward_pre_hook(hook(i), with_kwargs=True)
            stack.enter_context(each)
        yield


class _Memory:
    """What every attention was given for each token: (B, T, hidden), by layer.

    Attributes:
        places: Which token each row of the forward at hand is.
        query: The row of the new one.
        masks: What the new token sees of the rows, by layer: (n,) bool.
    """

    def __init__(self, model: Any, shape: tuple[int, int]) -> None:
        self.model, self.shape = model, shape
        self.held: dict[int, Tensor] = {}
        self.places: list[int] = []
        self.query = 0
        self.masks: dict[int, Tensor] = {}

    def read(self, ids: Tensor, kept: list[int], own: dict[int, Tensor]) -> Tensor:
        """Logits (B, V) after the last token of ``kept``, which is new."""
        t, options = kept[-1], dict[str, Any]()
        self.places, self.query, self.masks = kept, len(kept) - 1, {}
        if own:
            # Tokens that a layer's own mask shows stand behind those that are kept, as copies.
            near = [j for j in range(t) if any(mask[t, j] for mask in own.values())]
            self.places = kept + near
            rows = torch.arange(len(self.places))
            for i in range(len(attentions(self.model))):
                is_near = torch.tensor([bool(i in own and own[i][t, j]) for j in near])
                sees = torch.cat((torch.full((len(kept),), i not in own), is_near.bool()))
                self.masks[i] = sees | (rows == self.query)
            positions = [*range(len(kept)), *(self.query - (t - j) for j in near)]
            options["position_ids"] = torch.tensor([positions], device=ids.device)
            if "cache_position" in inspect.signature(self.model.base_model.forward).parameters:
                options["cache_position"] = options["position_ids"][0]
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            options["logits_to_keep"] = torch.tensor([self.query], device=ids.device)
        rows_ids = ids[:, self.places]
        logits: Tensor = self.model(rows_ids, use_cache=False, **options).logits
        return logits[:, 0 if logits.shape[1] == 1 else self.query]

    def hook(self, i: int) -> Any:
        """Replaces what layer ``i`` is given for older tokens, and notes what it is for the new."""

        def replace(layer: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            x = args[0] if args else kwargs["hidden_states"]  # (B, n, hidden)
            if i not in self.held:
                self.held[i] = x.new_zeros(*self.shape, x.shape[-1])
            self.held[i][:, self.places[self.query]] = x[:, self.query]
            x = self.held[i][:, self.places]
            if i in self.masks:
                n = x.shape[1]
                mask = torch.zeros(1, 1, n, n, dtype=x.dtype, device=x.device)
                unseen = ~self.masks[i].to(x.device)
                mask[..., self.query, :].masked_fill_(unseen, torch.finfo(x.dtype).min)
                kwargs = kwargs | {"attention_mask": mask}
            return ((x, *args[1:]), kwargs) if args else ((), kwargs | {"hidden_states": x})

        return replace


@contextmanager
def _remembering(model: Any, shape: Any) -> Iterator[_Memory]:
    """A model whose attentions are given what ``_Memory`` holds; as before on leaving."""
    memory = _Memory(model, tuple(shape))
    own = model.config._attn_implementation
    if own != BY_MASK and _own_masks_can_be(model):
        own = "eager"
    every = range(len(attentions(model)))
    with hooked(model, memory.hook, every), implementation(model, own):
        yield memory


def _own_masks_can_be(model: Any) -> bool:
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ()
    return any(kind != GLOBAL for kind in kinds)


def _nll(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, V) and (B,) to nats (B,)."""
    scores: Tensor = -logits.float().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    return scores
