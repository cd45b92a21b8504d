"""The one attention function of the streaming cache, for every RoPE model, unpatched.

transformers lets an attention function be registered under a name and hands it the query, keys and
values of each layer together with the keyword arguments of the model's forward; ours arrives with
``stream=cache``. One token sees every key that the cache returns and has not evicted. A chunk of C
tokens is computed at once, exactly as if its tokens had come one by one (Xiao et al. 2023, section
3.2, in parallel): a band over the window's keys, and the sinks seen from a query that is rotated
back, under one softmax.

Knows nothing of models, modes or how keys are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from core.errors import StreamError, UsageError
from core.rope import Turn

NAME = "streaming"
UNSUPPORTED = ("softcap", "s_aux", "sinks")


class View(Protocol):
    """What a chunk of C queries sees; the same in every layer.

    Attributes:
        band: Whether query c sees key n of the window and the chunk, (C, N) bool.
        sinks: Whether query c sees sink s, (C, S) bool.
        back: The rotation that takes each query to its position relative to the sinks, (C, R).
    """

    band: Tensor
    sinks: Tensor
    back: Turn


@contextmanager
def streaming_attention(model: Any) -> Iterator[None]:
    """Let ``model`` attend through this module; as it was before on leaving.

    Raises:
        UsageError: The model's code does not take registered attention functions.
    """
    if not getattr(model, "_supports_attention_backend", False):
        raise UsageError(
            f"a {model.config.model_type!r} model does not take registered attention functions: "
            "choose another model, or --method recompute or dense."
        )
    before = model.config._attn_implementation
    AttentionInterface.register(NAME, attend)
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def check_native_window(config: Any, attended: int) -> None:
    """Layers trained with a sliding window are fine as long as it never cuts what is kept.

    Raises:
        UsageError: ``attended`` keys outgrow the model's own window.
    """
    types = getattr(config, "layer_types", None)
    native = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in types if types else bool(native)
    if slides and native and attended > native:
        raise UsageError(
            f"{attended} attended keys outgrow the model's own sliding window of {native}: "
            f"choose --n-sink and --window so that their sum is below {native}."
        )


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    stream: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of C queries to what the cache kept and to each other.

    Args:
        module: The model's attention layer; its ``layer_idx`` names the cache's layer.
        query: (B, H, C, D), at its position in the cache's frame.
        key: (B, K, N, D) as returned by the cache.
        value: (B, K, N, D).
        attention_mask: Unused: the cache knows what is visible.
        scaling: Factor of the logits; 1/sqrt(D) when None.
        stream: The streaming cache, from ``model(..., stream=cache)``.
        kwargs: What other attention functions take.

    Returns:
        The output (B, C, H, D), and no weights.

    Raises:
        StreamError: Called without ``stream``, or the model asks for an operation that is not here.
    """
    if stream is None:
        raise StreamError("the streaming attention needs its cache: call model(..., stream=cache).")
    if asked := [name for name in UNSUPPORTED if kwargs.get(name) is not None]:
        raise UsageError(
            f"this model's attention uses {asked[0]}, which streaming does not support."
        )
    b, h, c, d = query.shape
    groups = h // key.shape[1]
    scale = d**-0.5 if scaling is None else scaling
    # The heads of a group share their keys, so they stand in a row as G*C queries of one head.
    grouped = query.reshape(b, h // groups, groups * c, d)  # (B, K, G*C, D)
    if c == 1:
        seen = stream.mask(module.layer_idx)
        mask = None if seen is None else seen.expand(groups, -1)
        out = scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scale)
    else:
        view: View = stream.view(module.layer_idx, c)
        window = Part(grouped, key, value, view.band.repeat(groups, 1))
        sink_key, sink_value = stream.sinks(module.layer_idx)  # (B, K, S, D) each
        back = view.back(query).reshape(grouped.shape)
        sinks = Part(back, sink_key, sink_value, view.sinks.repeat(groups, 1))
        in_two = query.device.type == "cpu" and d == value.shape[-1]
        out = (_in_two if in_two else _in_one)(window, sinks, scale)
    return out.to(value.dtype).reshape(b, h, c, -1).transpose(1, 2).contiguous(), None


class Part(NamedTuple):
    """Queries (B, K, Q, D), keys and values (B, K, N, D), and whether q sees n, (Q, N) bool."""

    q: Tensor
    k: Tensor
    v: Tensor
    seen: Tensor


def _in_one(window: Part, sinks: Part, scale: float) -> Tensor:
    """One call, for any device: a query stands twice in a row, and each key beside zeros.

    The product with a key of the window is that of the query at its position, with a sink that of
    the query turned back.
    """
    d = window.q.shape[-1]
    q = torch.cat((window.q, sinks.q), -1)  # (B, K, Q, 2D)
    k = torch.cat((pad(window.k, (0, d)), pad(sinks.k, (d, 0))), -2)  # (B, K, N+S, 2D)
    v = torch.cat((window.v, sinks.v), -2)
    seen = torch.cat((window.seen, sinks.seen), -1)
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)


def _in_two(window: Part, sinks: Part, scale: float) -> Tensor:
    """Two calls, merged by their log-sum-exp, which saves a CPU half of the products."""
    out, lse = _weigh(*window, scale)
    return _merge(out, lse, *_weigh_few(*sinks, scale)) if sinks.k.shape[-2] else out


def _weigh(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its logits: (B, K, Q, D) and (B, K, Q) in float32."""
    mask = torch.zeros(seen.shape, dtype=q.dtype).masked_fill_(~seen, -torch.inf)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, attn_mask=mask, scale=scale
    )
    return out.float(), lse.masked_fill(~seen.any(-1), -torch.inf)  # the kernel says 0 there


def _weigh_few(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """The same in plain operations, which hold Q x N logits at once: for few keys."""
    logits = (q.float() @ k.float().transpose(-1, -2)) * scale  # (B, K, Q, N)
    logits = logits.masked_fill(~seen, -torch.inf)
    lse = logits.logsumexp(-1)
    return (logits - lse[..., None]).exp() @ v.float(), lse


def _merge(a: Tensor, lse_a: Tensor, b: Tensor, lse_b: Tensor) -> Tensor:
    """One softmax over the keys of two attentions; a part that sees no key weighs nothing."""
    lse = torch.logaddexp(lse_a, lse_b)
    share_a, share_b = (lse_a - lse).exp()[..., None], (lse_b - lse).exp()[..., None]
    return torch.where(share_a > 0, a * share_a, 0) + torch.where(share_b > 0, b * share_b, 0)
