"""Dense attention: nothing is ever dropped, so memory and time grow with the stream.

The model and its cache are transformers' own, untouched; this is the reference up to the trained
length, and what a user has before choosing anything else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from core.methods.base import CacheStream, Method, Stream, key_bytes
from core.models import Loaded


class Dense(Method):
    """The full cache, keys at absolute positions."""

    positions = "absolute"
    eviction = "none"
    reference = "dense"

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache that will hold everything."""
        return CacheStream(loaded.model, DynamicCache(config=loaded.model.config))

    @property
    def full_after(self) -> int:
        """Never: each step costs more than the one before."""
        return 0

    def attended(self, feeds: Sequence[int]) -> Tensor:
        """Every token before it, and itself."""
        return torch.arange(1, sum(feeds) + 1)

    def kv_formula_bytes(self, loaded: Loaded, batch: int, feeds: Sequence[int]) -> int:
        """Keys and values of every token."""
        return 2 * sum(feeds) * key_bytes(loaded.model, batch)
