"""A tiny model, a streaming cache, and what greedy decoding says of transformers' ``generate``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from core.attending import cache_name, streaming_attention
from core.cache import StreamingKVCache
from tests.support.samples import tiny_llama

N_SINK, WINDOW = 4, 20
NEW = 40  # tokens


class Wrong(Exception):
    """The tokens are others than they should be."""


def model(attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> Any:
    """A tiny Llama."""
    made = tiny_llama().to(dtype)
    made.set_attn_implementation(attention)
    made.generation_config.eos_token_id = None
    return made


def name_of(model: Any) -> str:
    """What ``generate`` calls its cache."""
    return cache_name(model)


def options(tokens: int = NEW, **more: Any) -> dict[str, Any]:
    """Greedy decoding of so many tokens."""
    return {"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 97, **more}


def new(model: Any, **how: Any) -> StreamingKVCache:
    """An empty cache."""
    return StreamingKVCache(N_SINK, WINDOW, model, **how)


_KNOWN: dict[tuple[object, ...], Tensor] = {}


@torch.inference_mode()
def greedy(model: Any, ids: Tensor, tokens: int = NEW) -> Tensor:
    """(B, ``tokens``) that follow ids (B, C): single rows, one token at a time.

    Found once for a row and equal models.
    """
    weights = float(sum(weight.double().abs().sum() for weight in model.parameters()))
    rows = []
    for row in ids:
        case = (repr(model.config), weights, tokens, *row.tolist())
        if case in _KNOWN:
            rows.append(_KNOWN[case])
            continue
        cache, made = StreamingKVCache(N_SINK, WINDOW, model), []
        for token in row.split(1):
            logits = cache.read(token[None])
        for _ in range(tokens):
            made.append(logits[:, -1].argmax(-1))
            logits = cache.read(made[-1][None])
        _KNOWN[case] = torch.stack(made, 1)
        rows.append(_KNOWN[case])
    return torch.cat(rows)


def equal(got: Tensor, want: Tensor) -> None:
    """Raise ``Wrong`` where tokens differ."""
    if not torch.equal(got, want):
        same = float((got == want).float().mean()) if got.shape == want.shape else 0.0
        raise Wrong(f"{same:.0%} of the tokens are right")


def follows(
    model: Any,
    ids: Tensor,
    cache: StreamingKVCache,
    within: bool = True,
    tokens: int = NEW,
    **more: Any,
) -> Tensor:
    """Generate, and compare with greedy decoding; the whole text."""
    with streaming_attention(model, cache) if within else nullcontext():
        made: Tensor = model.generate(ids, **{name_of(model): cache}, **options(tokens, **more))
    equal(made, torch.cat((ids, greedy(model, ids, tokens)), 1))
    return made
