"""Texts and small models that many tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from core import registry
from core.config import RunConfig
from core.errors import StreamError, UsageError
from core.measure.meters import token_nll
from core.methods.base import Method
from core.models.loading import Loaded, load
from core.packaged import bundled
from core.proof.reference import streaming_nll

EXACT = 1e-4  # nats on any token, float32

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
}


def around(model: Any) -> Loaded:
    """A model alone, without a tokenizer, a name or a hash."""
    return Loaded(model, None, "", None, "", trained_length=256, parameters=0)


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference."""
    return float((a - b).abs().max())


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


def thinned(model: Any, layers: int = 1) -> Any:
    """The same model with its first layers only, so that a compiler or a loop has less to do."""
    model.base_model.layers = model.base_model.layers[:layers]
    model.config.num_hidden_layers = layers
    return model


def random_ids(rows: int, length: int) -> torch.Tensor:
    """(B, T) ids for ``tiny_llama``."""
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(1))


def method_of(name: str = "streaming", **asked: Any) -> Method:
    """A method of S = 4 and W = 27, unless asked otherwise."""
    config = RunConfig(**{"method": name, "n_sink": 4, "window": 27, "device": "cpu", **asked})
    method: Method = registry.load("method", name)(config)
    return method


@torch.inference_mode()
def fed_nll(loaded: Loaded, ids: Tensor, size: int, method: Method) -> Tensor:
    """Nats of ids[:, 1:] (B, T-1), fed ``size`` tokens at a time, single ones by the engine."""
    stream, parts = method.start(loaded, len(ids)), []
    for start in range(0, ids.shape[1] - 1, size):
        stop = min(start + size, ids.shape[1] - 1)
        if size == 1:
            stream.warm(ids[:, start:stop])
        parts.append(token_nll(stream.feed(ids[:, start:stop]), ids[:, start + 1 : stop + 1]))
    return torch.cat(parts, dim=1)


_WANTS: dict[tuple[object, ...], list[tuple[Tensor, Tensor]]] = {}


def naive_nll(model: Any, ids: Tensor, n_sink: int, window: int, every: int = 1) -> Tensor:
    """``core.proof.reference.streaming_nll``, computed once for equal models and tokens.

    Rows do not see each other, nor tokens those behind them: what is part of a known one is known.
    """
    weights = float(sum(weight.detach().double().abs().sum() for weight in model.parameters()))
    known = _WANTS.setdefault((repr(model.config), weights, n_sink, window, every), [])
    rows, length = ids.shape
    for other, want in known:
        if torch.equal(other[:rows, :length], ids):
            return want[:rows, : length - 1]
    known.append((ids, streaming_nll(model, ids, n_sink, window, every)))
    return known[-1][1]


@torch.inference_mode()
def windowed_nll(model: Any, ids: Tensor, held: list[int], size: int) -> Tensor:
    """One forward with a mask: a chunk sees the ``held`` tokens before it, and itself causally.

    Without sinks, positions in the cache differ as those in the stream do.
    """
    total = ids.shape[1] - 1
    mask = torch.ones(total, total).tril().bool()
    for start, kept in zip(range(0, total, size), held, strict=True):
        mask[start : start + size, : start - kept] = False
    return token_nll(model(ids[:, :-1], attention_mask=mask[None, None]).logits, ids[:, 1:])


def watched_attention(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills up with the number of keys that each query of the first layer is let see."""
    counts: list[int] = []
    real = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def spy(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **rest: Any) -> Any:
        if module.layer_idx == 0:
            c, n = query.shape[-2], key.shape[-2]
            if mask is not None:
                counts.extend(mask[0, 0].sum(-1).tolist())
            else:  # one query sees all; the first queries of a stream, only those before them
                assert c in (1, n)
                counts.extend([n] if c == 1 else range(1, n + 1))
        return real(module, query, key, value, mask, **rest)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", spy)
    return counts


def read(spec: str | Path, **options: Any) -> Loaded:
    """The model that ``spec`` names, in float32 on the CPU."""
    return load(str(spec), dtype="float32", device="cpu", **options)


def refusal(spec: str | Path, kind: type[StreamError] = UsageError, **options: Any) -> str:
    """What ``spec`` is refused with; always one line, and of exactly this kind."""
    with pytest.raises(StreamError) as caught:
        read(spec, **options)
    assert caught.type is kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)
