"""Sliding window with re-computation: every token re-encodes the last L tokens from scratch.

The paper's strongest baseline in quality and its slowest: O(L^2) a token (section 3.1, figure 1c).
L is the budget that streaming has, S + W + 1. No cache is kept: the model is transformers' own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.config import RunConfig
from core.methods.base import Method, Stream
from core.models import anatomy
from core.models.loading import Loaded
from core.registry import METHODS

# Tokens of all windows in a batch, as measured: docs/decisions/0005-recomputed-windows.md.
TOKENS_PER_FORWARD = 2048


class _WindowStream(Stream):
    def __init__(self, loaded: Loaded, batch: int, length: int) -> None:
        self.model, self.length = loaded.model, length
        self.ids = torch.empty(batch, 0, dtype=torch.int64, device=loaded.model.device)

    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        self.ids = torch.cat((self.ids, ids), dim=1)
        first = self.ids.shape[1] - (keep or ids.shape[1])  # after it comes the first prediction
        parts = []
        if first < self.length:  # the prefix is its own window: one forward predicts all of it
            prefix = self.ids[:, : self.length]
            parts.append(self._encode(prefix, prefix.shape[1] - first))
        if self.ids.shape[1] > self.length:
            windows = self.ids.unfold(1, self.length, 1)  # (B, n, L)
            parts.append(self._encode_each(windows[:, max(first - self.length, 0) + 1 :]))
        self.ids = self.ids[:, 1 - self.length :]  # L is 2 or more
        return torch.cat(parts, dim=1)

    def _encode_each(self, windows: Tensor) -> Tensor:
        b, n, length = windows.shape
        rows = windows.reshape(b * n, length)
        step = max(1, TOKENS_PER_FORWARD // length)
        last = [self._encode(part, 1) for part in torch.split(rows, step)]
        return torch.cat(last).view(b, n, -1)

    def _encode(self, ids: Tensor, keep: int) -> Tensor:
        logits: Tensor = self.model(ids, use_cache=False, logits_to_keep=keep).logits
        return logits

    def held(self) -> int:
        return 0

    def kv_bytes(self) -> int:
        return 0


class Recompute(Method):
    """Re-encode the last L tokens for every token; windows are batched where only scores count."""

    positions = "cache"
    eviction = "re-encode"
    spec = METHODS["recompute"]

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.length = config.attended_keys

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """No tokens yet.

        Raises:
            UsageError: The model's rotary frequencies change within L positions.
        """
        found = anatomy.of(loaded.model)
        found.check_room(self.length, "a smaller --window")  # shorter windows have other ones
        return _WindowStream(loaded, batch, self.length)

    def kv_formula_bytes(self, loaded: Loaded, batch: int, feeds: Sequence[int]) -> int:
        """Nothing is held between steps."""
        return 0
