"""Texts and small models that many tests share."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from core.bundled import bundled
from core.models import Loaded


def ids_of(loaded: Loaded, length: int) -> torch.Tensor:
    """(2, T): the beginnings of the two bundled texts, as ``loaded`` reads them."""
    texts = [
        bundled(f"{name}.txt").read_text()[: 8 * length] for name in ("encyclopedia", "narrative")
    ]
    return torch.tensor([loaded.tokenizer(text)["input_ids"][:length] for text in texts])


def tiny_llama(rope: dict[str, Any] | None = None, layers: int = 2) -> Any:
    """A random Llama with grouped queries whose attention is sharp enough to tell keys apart."""
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rope_parameters={"rope_theta": 10000.0, **(rope or {"rope_type": "default"})},
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def random_ids(rows: int, length: int) -> torch.Tensor:
    """(B, T) ids for ``tiny_llama``."""
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(1))
