"""Dense attention: nothing is ever dropped, so memory and time grow with the stream.

The model and its cache are transformers' own, untouched; this is the reference up to the trained
length, and what a user has before choosing anything else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from core.methods.base import CacheStream, Method, Stream
from core.models import anatomy
from core.models.loading import Loaded
from core.registry import METHODS


class Dense(Method):
    """The full cache, keys at absolute positions."""

    positions = "absolute"
    eviction = "none"
    spec = METHODS["dense"]

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache that will hold everything that its layers' own masks show.

        Raises:
            UsageError: The model's own cache gives other scores than one forward.
        """
        anatomy.of(loaded.model).check_cached()
        return CacheStream(loaded.model, DynamicCache(config=loaded.model.config))

    def check(self, loaded: Loaded, length: int) -> None:
        """Keys must not be of two kinds of rotary frequencies, which change with length in some."""
        anatomy.of(loaded.model).check_room(
            length, "fewer tokens, as keys in the cache keep the frequencies they came with"
        )

    def full_after(self, loaded: Loaded) -> int:
        """Never: each step costs more than the one before."""
        return 0

    def attended(self, feeds: Sequence[int]) -> Tensor:
        """Every token before it, and itself."""
        return torch.arange(1, sum(feeds) + 1)

    def kv_formula_bytes(self, loaded: Loaded, batch: int, feeds: Sequence[int]) -> int:
        """Keys and values of every token, or of as many as a layer's own mask shows."""
        total, numbers = sum(feeds), 0
        for layer in anatomy.of(loaded.model).layers:
            held = min(total, layer.native.keys - 1) if layer.native else total
            numbers += held * (layer.key_numbers + layer.value_numbers)
        return batch * numbers * int(loaded.model.dtype.itemsize)
