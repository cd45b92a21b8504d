"""The one attention function of the streaming cache, for every RoPE model, unpatched.

transformers hands it the query, keys and values of each layer, as ``core.attending`` has it do. One
token sees every key that the cache returns and has not evicted. A chunk of C tokens is computed at
once, exactly as if its tokens had come one by one (Xiao et al. 2023, section 3.2, in parallel): a
band over the window's keys, and the sinks seen from a query that is rotated back, under one
softmax.

What a model adds to its attention is kept: a cap on the logits (Gemma 2), and learned sinks
(gpt-oss), which are one more logit a head in the softmax's sum, added once. ``attend_by_mask`` is
what a model that was given such sinks attends through by itself (``core.models.softmax``).

Knows nothing of models, modes or how keys are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from core.errors import StreamError
from core.rope import Turn

BY_MASK = "streamcli-by-mask"


@dataclass(frozen=True)
class ChunkView:
    """What a chunk of C queries sees in one layer.

    Attributes:
        band: Whether query c sees key n of the window and the chunk, (C, N) bool.
        sinks: Whether query c sees sink s, (C, S) bool.
        back: The rotation that takes each query to its position relative to the sinks, (C, R); None
            where the layer has no rotary positions.
        tokens: Which token of the stream each key of the window and the chunk is, (N,) int64.
    """

    band: Tensor
    sinks: Tensor
    back: Turn | None
    tokens: Tensor


class Stream(Protocol):
    """What our attention asks of a cache; ``layer`` is a layer's number."""

    def mask(self, layer: int) -> Tensor | None:
        """Which keys the one token at hand sees, (N,) bool; None for all."""

    def view(self, layer: int, c: int) -> ChunkView:
        """What the chunk of C tokens at hand sees."""

    def grown(self, layer: int, c: int) -> Tensor | None:
        """Factors (C,) of queries that grow with their position; None where they do not."""


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    stream: Stream | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of C queries to what the cache kept and to each other.

    Args:
        module: The model's attention layer; its ``layer_idx`` names the cache's layer.
        query: (B, H, C, D), at its position in the cache's frame.
        key: (B, K, N, D) as returned by the cache; before a chunk's, the S sinks as first seen.
        value: (B, K, N, Dv).
        attention_mask: Unused: the cache knows what is visible.
        scaling: Factor of the logits; 1/sqrt(D) when None.
        stream: The streaming cache, see ``streaming_attention``.
        softcap: Logits x become softcap * tanh(x / softcap).
        s_aux: Learned sinks (H,): logits that take a share of each softmax and give no value.
        kwargs: What other attention functions take.

    Returns:
        The output (B, C, H, Dv), and no weights.

    Raises:
        StreamError: Called without ``stream``.
    """
    if stream is None:
        raise StreamError(
            "the streaming attention needs its cache: use streaming_attention(model, cache)."
        )
    b, h, c, d = query.shape
    parts, extra = seen_by(module, query, key, value, stream, scaling, softcap, s_aux)
    on_cpu = query.device.type == "cpu" and d == value.shape[-1]
    if extra.plain and (c == 1 or not on_cpu):
        out = _in_one(parts, extra.scale)
    else:
        out = _in_parts(parts, extra)
    return out.to(value.dtype).reshape(b, h, c, -1).transpose(1, 2).contiguous(), None


def attend_by_mask(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    *,
    s_aux: Tensor,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of C queries to the N keys that a mask shows, with sinks.

    Args and returns are those of ``attend``, but for the mask, (B or 1, 1, C, N), which is 0 or
    true where a key is seen; None shows all.
    """
    b, h, c, d = query.shape
    k = key.shape[1]
    seen = attention_mask
    if seen is not None:
        seen = seen if seen.dtype == torch.bool else seen == 0
        seen = seen.repeat(1, 1, h // k, 1)  # (B or 1, 1, G*C, N)
    scale = d**-0.5 if scaling is None else scaling
    part = Part(query.reshape(b, k, -1, d), key, value, seen)
    out = _in_parts([part], Extra(scale, softcap, s_aux.view(k, h // k, 1)))
    return out.to(value.dtype).reshape(b, h, c, -1).transpose(1, 2).contiguous(), None


def seen_by(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    stream: Stream,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
) -> tuple[list[Part], Extra]:
    """What C queries attend to, see ``attend``: the window and the chunk, then the sinks, if any.

    The heads of a group share their keys, so they stand in a row as Q = G*C queries of one head.
    """
    b, h, c, d = query.shape
    k = key.shape[1]
    layer, groups = module.layer_idx, h // k
    scale = d**-0.5 if scaling is None else scaling
    if (grown := stream.grown(layer, c)) is not None:
        query = query * grown[:, None].to(query.dtype)
    grouped = query.reshape(b, k, groups * c, d)  # (B, K, G*C, D)
    extra = Extra(scale, softcap, None if s_aux is None else s_aux.view(k, groups, 1))
    if c == 1:
        seen = stream.mask(layer)
        mask = None if seen is None else seen.expand(groups, -1)
        return [Part(grouped, key, value, mask)], extra
    view = stream.view(layer, c)
    s = view.sinks.shape[-1]
    parts = [Part(grouped, key[:, :, s:], value[:, :, s:], view.band.repeat(groups, 1))]
    if s:
        back = grouped if view.back is None else view.back(query).reshape(grouped.shape)
        parts.append(Part(back, key[:, :, :s], value[:, :, :s], view.sinks.repeat(groups, 1)))
    return parts, extra


class Part(NamedTuple):
    """Queries (B, K, Q, D), keys and values (B, K, N, D), whether q sees n, (..., Q, N) bool."""

    q: Tensor
    k: Tensor
    v: Tensor
    seen: Tensor | None


class Extra(NamedTuple):
    """Factor of the logits, their cap, and learned sinks (K, G, 1)."""

    scale: float
    cap: float | None
    learned: Tensor | None

    @property
    def plain(self) -> bool:
        """Whether torch's own attention has all that it takes."""
        return self.cap is None and self.learned is None


def _in_one(parts: list[Part], scale: float) -> Tensor:
    """One call, for any device: a query stands twice in a row, and each key beside zeros.

    The product with a key of the window is that of the query at its position, with a sink that of
    the query turned back.
    """
    if len(parts) == 1:
        q, k, v, seen = parts[0]
        return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    window, sinks = parts
    d = window.q.shape[-1]
    q = torch.cat((window.q, sinks.q), -1)  # (B, K, Q, 2D)
    k = torch.cat((pad(window.k, (0, d)), pad(sinks.k, (d, 0))), -2)  # (B, K, N+S, 2D)
    v = torch.cat((window.v, sinks.v), -2)
    assert window.seen is not None and sinks.seen is not None
    seen = torch.cat((window.seen, sinks.seen), -1)
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)


def _in_parts(parts: list[Part], extra: Extra) -> Tensor:
    """Attention to each part by itself, merged by log-sum-exp; the learned sinks are added once.

    On a CPU that saves half of the products of ``_in_one``.
    """
    q, _, v, seen = parts[0]
    kernel = q.device.type == "cpu" and q.shape[-1] == v.shape[-1] and seen is not None
    first = _weigh if kernel and extra.cap is None else _weigh_few
    out, lse = first(parts[0], extra)
    for part in parts[1:]:
        out, lse = _merge(out, lse, *_weigh_few(part, extra))
    if extra.learned is not None:
        out = out * torch.sigmoid(lse - _learned(extra, lse))[..., None]
    return out


def _weigh(part: Part, extra: Extra) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its logits: (B, K, Q, D) and (B, K, Q) in float32."""
    q, k, v, seen = part
    assert seen is not None
    mask = torch.zeros(seen.shape, dtype=q.dtype).masked_fill_(~seen, -torch.inf)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, attn_mask=mask, scale=extra.scale
    )
    out = out if out.dtype == torch.float64 else out.float()
    return out, lse.masked_fill(~seen.any(-1), -torch.inf)  # the kernel says 0 there


def _weigh_few(part: Part, extra: Extra) -> tuple[Tensor, Tensor]:
    """The same in plain operations, which hold Q x N logits at once: for few keys, or a cap."""
    logits, v = _logits(part, extra), part.v if part.v.dtype == torch.float64 else part.v.float()
    lse = logits.logsumexp(-1)
    return (logits - lse[..., None]).exp() @ v, lse


def weights(parts: list[Part], extra: Extra) -> Tensor:
    """The share of every key in each query's softmax, (B, K, Q, N), part after part.

    They sum to 1, or with learned sinks to what these leave. Holds Q x N numbers at once.
    """
    logits = torch.cat([_logits(part, extra) for part in parts], -1)
    lse = logits.logsumexp(-1)
    if extra.learned is not None:
        lse = torch.logaddexp(lse, _learned(extra, lse))
    return (logits - lse[..., None]).exp()


def _logits(part: Part, extra: Extra) -> Tensor:
    """(B, K, Q, N) in float32 at least; minus infinity where a key is not seen."""
    q, k = (each if each.dtype == torch.float64 else each.float() for each in part[:2])
    logits = (q @ k.transpose(-1, -2)) * extra.scale
    if extra.cap is not None:
        logits = extra.cap * torch.tanh(logits / extra.cap)
    return logits if part.seen is None else logits.masked_fill(~part.seen, -torch.inf)


def _learned(extra: Extra, lse: Tensor) -> Tensor:
    """The learned sinks beside log-sum-exps (B, K, Q): a group's queries stand in a row."""
    assert extra.learned is not None
    each = extra.learned.expand(-1, -1, lse.shape[-1] // extra.learned.shape[1])
    return each.flatten(1).to(lse.dtype)


def _merge(a: Tensor, lse_a: Tensor, b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """One softmax over the keys of two attentions; a part that sees no key weighs nothing."""
    lse = torch.logaddexp(lse_a, lse_b)
    share_a, share_b = (lse_a - lse).exp()[..., None], (lse_b - lse).exp()[..., None]
    both = torch.where(share_a > 0, a * share_a, 0) + torch.where(share_b > 0, b * share_b, 0)
    return both, lse
