"""The obvious ways to compute what methods claim: slow, and sharing no code with the fast ones.

The streaming loop feeds one token at a time, keeps keys un-rotated and, at every step, rotates all
of them afresh to positions 0..n-1 by the model's own functions (Xiao et al. 2023, section 3.2).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


@torch.inference_mode()
def streaming_nll(model: Any, ids: Tensor, n_sink: int, window: int, every: int = 1) -> Tensor:
    """Nats of ids[:, 1:] (B, T-1) with S = ``n_sink`` and W = ``window``.

    Eviction comes after the tokens 0, ``every``, 2 x ``every`` and so on.
    """
    rotary, scores = model.base_model.rotary_emb, []
    with _keys_left_unrotated(model) as apply:

        def rotate(keys: Tensor) -> Tensor:
            places = torch.arange(keys.shape[-2], device=keys.device)[None]
            rotated: Tensor = apply(keys, keys, *rotary(keys, position_ids=places))[1]
            return rotated

        layers = range(model.config.num_hidden_layers)
        cache = Cache(layers=[_NaiveLayer(n_sink, window, rotate, every) for _ in layers])
        for t in range(ids.shape[1] - 1):
            place = torch.full((ids.shape[0], 1), cache.get_seq_length(), device=ids.device)
            logits = model(ids[:, t : t + 1], past_key_values=cache, position_ids=place).logits
            scores.append(_nll(logits[:, -1], ids[:, t + 1]))
    return torch.stack(scores, dim=1)


@torch.inference_mode()
def recompute_nll(model: Any, ids: Tensor, attended: int) -> Tensor:
    """Nats of ids[:, 1:], each from a forward over the L = ``attended`` tokens before it."""
    scores = []
    for t in range(ids.shape[1] - 1):
        logits = model(ids[:, max(0, t + 1 - attended) : t + 1], use_cache=False).logits
        scores.append(_nll(logits[:, -1], ids[:, t + 1]))
    return torch.stack(scores, dim=1)


@torch.inference_mode()
def dense_nll(model: Any, ids: Tensor) -> Tensor:
    """Nats of ids[:, 1:] from one forward over everything."""
    logits = model(ids[:, :-1], use_cache=False).logits
    return torch.stack([_nll(logits[:, t], ids[:, t + 1]) for t in range(logits.shape[1])], dim=1)


class _NaiveLayer(DynamicLayer):
    """Un-rotated keys of the tokens that are kept; returned rotated, evicted after the step."""

    def __init__(self, n_sink: int, window: int, rotate: Any, every: int) -> None:
        super().__init__()
        self.n_sink, self.window, self.rotate, self.every = n_sink, window, rotate, every
        self.tokens = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states)
        n = keys.shape[-2]
        if n > self.n_sink + self.window and self.tokens % self.every == 0:
            kept = [*range(self.n_sink), *range(n - self.window, n)]
            self.keys, self.values = keys[:, :, kept], values[:, :, kept]
        self.tokens += 1
        return self.rotate(keys), values


@contextmanager
def _keys_left_unrotated(model: Any) -> Iterator[Any]:
    """The model's rotation of query and key, which for the time being leaves keys as they are."""
    module = sys.modules[type(model).__module__]
    apply = module.apply_rotary_pos_emb

    def only_query(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any) -> Any:
        return apply(q, k, cos, sin)[0], k

    module.apply_rotary_pos_emb = only_query  # type: ignore[attr-defined]
    try:
        yield apply
    finally:
        module.apply_rotary_pos_emb = apply  # type: ignore[attr-defined]


def _nll(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, V) and (B,) to nats (B,)."""
    scores: Tensor = -logits.float().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    return scores
