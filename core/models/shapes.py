"""Models of a known shape with random weights: speed can be measured where no weights can be had.

Their predictions mean nothing, and nothing that is measured with them is ever shown as quality.
Sizes are those of the published configurations, and weights are exact in the format of the
published ones: float16 for Pythia, bfloat16 for the others. Torch-free until one is built.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from core.errors import unknown

if TYPE_CHECKING:
    from core.models.loading import Loaded


def _neox(layers: int, hidden: int, heads: int, vocabulary: int = 50304) -> dict[str, Any]:
    return {
        "model_type": "gpt_neox",
        "dtype": "float16",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.25,
        },
    }


def _llama(
    layers: int, hidden: int, heads: tuple[int, int], mlp: int, **rest: Any
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "dtype": "bfloat16",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "intermediate_size": mlp,
        **rest,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "pythia-70m": _neox(6, 512, 8),
    "pythia-160m": _neox(12, 768, 12),
    "pythia-1.4b": _neox(24, 2048, 16),
    "llama-1b": _llama(
        16,
        2048,
        (32, 8),
        8192,
        vocab_size=128256,
        max_position_embeddings=8192,
        head_dim=64,
        tie_word_embeddings=True,
    ),
    "smollm2-135m": _llama(
        30,
        576,
        (9, 3),
        1536,
        vocab_size=49152,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "tiny": _neox(2, 64, 4, 512),
}


def build(name: str, *, dtype: str, device: str, seed: int = 0) -> Loaded:
    """A model of this shape, its weights drawn as transformers draws them and rounded as published.

    Raises:
        UsageError: No such shape, or no such device.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from core.models.loading import Loaded, resolve_device

    if name not in SHAPES:
        raise unknown("shape", name, SHAPES)
    asked = json.dumps(SHAPES[name], sort_keys=True)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(**SHAPES[name])
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model = model.to(resolve_device(device)).eval().requires_grad_(False)
    published = getattr(torch, SHAPES[name]["dtype"])  # the configuration has the model's by now
    for weight in model.parameters():
        weight.copy_(weight.to(published))
    return Loaded(
        model=model,
        tokenizer=None,
        name=f"random:{name}",
        revision=None,
        weights_sha256=f"random, seed {seed}",
        files_sha256=hashlib.sha256(asked.encode()).hexdigest(),
        trained_length=config.max_position_embeddings,
        parameters=sum(weight.numel() for weight in model.parameters()),
        notes=("Weights are random: times mean something, predictions do not.",),
    )
