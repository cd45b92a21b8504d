"""Dense attention: nothing is ever dropped, so memory and time grow with the stream.

The model and its cache are transformers' own, untouched; this is the reference up to the trained
length, and what a user has before choosing anything else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from core.methods.base import Method, Stream, key_bytes, past_trained_length
from core.models import Loaded


class _DenseStream(Stream):
    def __init__(self, loaded: Loaded) -> None:
        self.model, self.cache = loaded.model, DynamicCache(config=loaded.model.config)

    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        logits: Tensor = self.model(ids, past_key_values=self.cache, logits_to_keep=keep).logits
        return logits

    def held(self) -> int:
        return int(self.cache.get_seq_length())

    def kv_bytes(self) -> int:
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)


class Dense(Method):
    """The full cache, keys at absolute positions."""

    positions = "absolute"
    eviction = "none"
    reference = "dense"

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache that will hold everything."""
        return _DenseStream(loaded)

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

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """Past the trained length the positions are ones that the model never saw."""
        return past_trained_length("dense", loaded, length)
