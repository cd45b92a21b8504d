"""What a method is: how a stream of tokens is remembered, and what that costs.

Knows nothing of texts, scores or clocks: modes have those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from core.config import RunConfig
from core.models import Loaded


class Stream(ABC):
    """One batch of documents on their way through a model, in step."""

    @abstractmethod
    def feed(self, ids: Tensor) -> Tensor:
        """Read the next C tokens of each document and predict the ones after them.

        Args:
            ids: (B, C) int64.

        Returns:
            Logits (B, C, V).
        """

    @abstractmethod
    def kv_bytes(self) -> int:
        """Bytes of the keys and values held between steps."""


class Method(ABC):
    """A way to remember a stream, set up for one run.

    Attributes:
        positions: Where keys and query sit: ``cache`` or ``absolute``.
        eviction: When keys are dropped: ``after-step``, ``re-encode`` or ``none``.
    """

    positions: str
    eviction: str

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty memory for ``batch`` documents."""

    @property
    def full_after(self) -> int:
        """Tokens after which every step costs the same; 0 where no such point comes."""
        return self.config.attended_keys

    def attended(self, length: int) -> Tensor:
        """How many keys each of ``length`` tokens sees, itself included: (T,) int64."""
        return torch.arange(1, length + 1).clamp(max=self.config.attended_keys)

    @abstractmethod
    def kv_formula_bytes(self, loaded: Loaded, batch: int, length: int) -> int:
        """Bytes that the method holds after ``length`` tokens, computed from the model's shape."""

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """What a reader must know of a stream of ``length`` tokens under this method."""
        return ()


def key_bytes(model: Any, batch: int) -> int:
    """Bytes of one token's keys in all layers: layers x B x K x D x bytes a number."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size: int = config.num_hidden_layers * batch * heads * dim * model.dtype.itemsize
    return size
