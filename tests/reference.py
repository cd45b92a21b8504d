"""The naive token loop that every exact claim is held against.

One token a forward; keys are kept un-rotated, and at every step all of them are rotated afresh to
positions 0..n-1 by the model's own functions. Slow and obvious; shares no code with ``core``.
"""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class NaiveLayer(DynamicLayer):
    """Un-rotated keys of the tokens that are kept."""

    def __init__(self, n_sink: int, window: int, rotate: Any) -> None:
        super().__init__()
        self.n_sink, self.window, self.rotate = n_sink, window, rotate

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states)
        n = keys.shape[-2]
        if n > self.n_sink + self.window:
            kept = [*range(self.n_sink), *range(n - self.window, n)]
            self.keys, self.values = keys[:, :, kept], values[:, :, kept]
        return self.rotate(keys), values


@torch.inference_mode()
def naive_nll(model: Any, ids: Tensor, n_sink: int, window: int) -> Tensor:
    """Nats of ids[:, 1:] (B, T-1) under a streaming cache of S = n_sink, W = window."""
    module = sys.modules[type(model).__module__]
    apply = module.apply_rotary_pos_emb
    rotary = model.base_model.rotary_emb

    def rotate(keys: Tensor) -> Tensor:
        positions = torch.arange(keys.shape[-2], device=keys.device)[None]
        cos, sin = rotary(keys, position_ids=positions)
        rotated: Tensor = apply(keys, keys, cos, sin)[1]
        return rotated

    def only_query(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any) -> Any:
        return apply(q, k, cos, sin)[0], k

    layers = [NaiveLayer(n_sink, window, rotate) for _ in range(model.config.num_hidden_layers)]
    cache = Cache(layers=layers)
    nll = []
    with mock.patch.object(module, "apply_rotary_pos_emb", only_query):
        for t in range(ids.shape[1] - 1):
            position = torch.full((ids.shape[0], 1), min(t, n_sink + window), device=ids.device)
            logits = model(ids[:, t : t + 1], past_key_values=cache, position_ids=position).logits
            scores = logits[:, -1].float().log_softmax(-1)
            nll.append(-scores.gather(-1, ids[:, t + 1, None])[:, 0])
    return torch.stack(nll, dim=1)
