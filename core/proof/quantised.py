"""The obvious way to stream through a window of integers: lists of tokens, and no key is turned.

A forward reads n copies of the newest token, at positions 0 to n-1, so that each layer's queries
are had at every distance and its key at position 0. The score of a token d behind is then that of
the query at position d and of the key at 0, for rotary positions tell differences only. Keys and
values are whole, or numbers that stand for them by KIVI's rule (arXiv 2402.02750); of a group of
keys only once the first token after it has come.

Where a number lies amid two codes, a method's rounding may choose the other one, and all that
follows differs. So a loop that is told its ``choices`` holds each against what it would choose, and
goes on with it; from a wrong one on its nats are NaN, which nothing equals.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from core.attending import implementation, registered
from core.config import RunConfig
from core.models.layers import attentions
from core.proof.reference import _nll, _own_masks

NAME = "streamcli-quantised"
GROUP = 32  # tokens of a group of keys, and most channels of one of values
ENDS = 2.0**-9  # of a group's least value or step: two roundings to 16 bits
NOISE = 2e-5  # of the largest number of a group: float32, in keys of another order of summing
TURNED = 1e-6  # of the largest number of the keys: what turning them back leaves where one is 0


@torch.inference_mode()
def streaming_int(
    model: Any, ids: Tensor, config: RunConfig, choices: list[Tensor] | None = None
) -> Tensor:
    """Nats of ids[:, 1:] (B, T-1) where S sinks are whole and a window of W is in codes."""
    masks, layers = _own_masks(model, ids), len(attentions(model))
    scores = torch.full((len(ids), ids.shape[1] - 1), math.nan)
    loop = _Loop(config, layers, masks, choices)
    with registered(loop.attend, NAME), implementation(model, NAME):
        for t in range(ids.shape[1] - 1):
            loop.begin(t)
            copies = ids[:, t : t + 1].expand(-1, loop.furthest + 1)
            logits = model(copies, use_cache=False).logits[:, -1]
            if loop.wrong:
                break
            scores[:, t] = _nll(logits, ids[:, t + 1]).cpu()
    return scores


class _Loop:
    """One stream through a model.

    Attributes:
        wrong: Whether a choice is not what could be chosen.
        furthest: How far behind the query at hand the first token is that any layer sees.
    """

    def __init__(
        self,
        config: RunConfig,
        layers: int,
        masks: dict[int, Tensor],
        choices: list[Tensor] | None,
    ) -> None:
        self.sinks, self.kept = config.n_sink, config.n_sink + config.window_size
        self.bits = int(dict(config.param).get("kv_bits", 8))
        self.masks, self.wrong = masks, False
        self.layers = [_Layer() for _ in range(layers)]
        for i in range(layers if choices else 0):
            assert choices is not None  # each forward's, layer by layer, of keys and of values
            keys, values = (torch.cat(choices[2 * i + n :: 2 * layers], 2) for n in (0, 1))
            self.layers[i].told = keys, values

    def begin(self, t: int) -> None:
        """The token number t comes."""
        self.t = t
        near = range(max(self.sinks, t - self.kept + self.sinks), t + 1)
        self.seen = [*range(min(self.sinks, t + 1)), *near] if t >= self.sinks else [*range(t + 1)]
        self.furthest = len(self.seen) - 1
        for mask in self.masks.values():
            self.furthest = max(self.furthest, t - int(mask[t].int().argmax()))

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """In place of the model's attention: what every copy of the token reads."""
        i, t = int(module.layer_idx), self.t
        own, sinks, seen = i in self.masks, self.sinks, self.seen
        away = [len(seen) - 1 - place for place in range(len(seen))]
        if own:
            sinks = 0
            seen = [j for j in range(t + 1) if self.masks[i][t, j]]
            away = [t - j for j in seen]
        layer = self.layers[i]
        self._add(layer, key[:, :, 0], value[:, :, 0], sinks)
        group = (t - sinks) // GROUP
        keys = [
            layer.keys[j] if j < sinks or (j - sinks) // GROUP == group else layer.coded[j]
            for j in seen
        ]
        k, v = torch.stack(keys, 2), torch.stack([layer.values[j] for j in seen], 2)
        heads = query.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(heads, 1), v.repeat_interleave(heads, 1)  # (B, H, n, D)
        size = query.norm(dim=-1, keepdim=True)  # that a query has at its own place
        at = query[:, :, away] * size[:, :, [min(t, self.kept)]] / size[:, :, away]
        logits = (at * k).sum(-1) * (kwargs.get("scaling") or query.shape[-1] ** -0.5)  # (B, H, n)
        if (cap := kwargs.get("softcap")) is not None:
            logits = cap * (logits / cap).tanh()
        whole = logits.exp().sum(-1)
        if (learned := kwargs.get("s_aux")) is not None:
            whole = whole + learned.to(logits.dtype).exp()
        out = (logits.exp()[..., None] * v).sum(2) / whole[..., None]  # (B, H, Dv)
        return out[:, None].expand(-1, query.shape[2], -1, -1).contiguous(), None

    def _add(self, layer: _Layer, key: Tensor, value: Tensor, sinks: int) -> None:
        """Keep the newest key and value (B, K, D), and code what can be coded now."""
        t = self.t
        layer.keys.append(key)
        if t < sinks:
            layer.values.append(value)
            return
        d = value.shape[-1]
        sizes = range(min(d, GROUP), 0, -1)  # of groups that fill whole bytes
        channels = next(n for n in sizes if d % n == 0 and n * self.bits % 8 == 0)
        told = layer.told and layer.told[1][:, :, t - sinks]
        grouped = value.reshape(*value.shape[:-1], -1, channels)
        layer.values.append(self._coded(grouped, told).flatten(-2))
        if t > sinks and (t - sinks) % GROUP == 0:
            tokens = range(t - GROUP, t)
            told = layer.told and layer.told[0][:, :, (t - sinks) // GROUP - 1]
            whole = torch.stack([layer.keys[j] for j in tokens], -1)  # (B, K, D, n)
            left = TURNED * whole.abs().amax((-1, -2), keepdim=True)
            keys = self._coded(whole, told, left)
            layer.coded.update(zip(tokens, keys.unbind(-1), strict=True))

    def _coded(self, x: Tensor, told: Tensor | None, left: Tensor | float = 0.0) -> Tensor:
        """The nearest numbers (..., n) of a grid for each group; of ``told`` (..., n + 2) ones.

        These may be of numbers that are off by ``left``.
        """
        most = 2**self.bits - 1
        least, noise = x.amin(-1, keepdim=True), NOISE * x.abs().amax(-1, keepdim=True) + left
        low = (least - least.abs() / 2048).half().float()
        if told is not None:
            told = told.to(x.device)
            self.wrong |= not _rounded_alike(told[..., -2:-1], low, noise)
            low = told[..., -2:-1]  # which the step depends on
        step = (x.amax(-1, keepdim=True) - low) / most * (1 + 1 / 2048)
        step = step.clamp(min=2.0**-24).half().float()
        codes = ((x - low) / step).round().clamp(0, most)
        if told is not None:
            self.wrong |= not _rounded_alike(told[..., -1:], step, 2 * noise / most)
            step, codes = told[..., -1:], told[..., :-2]
            whole = bool((codes == codes.round()).all()) and 0 <= codes.min() <= codes.max() <= most
            nearest = bool(((codes * step + low - x).abs() <= step / 2 + noise).all())
            self.wrong |= not (whole and nearest)
        coded: Tensor = codes * step + low
        return coded


def _rounded_alike(told: Tensor, own: Tensor, noise: Tensor) -> bool:
    """Whether an end of a grid may differ by roundings to 16 bits, and by ``noise``."""
    return bool(((told - own).abs() <= ENDS * own.abs() + noise).all())


class _Layer:
    """What one layer keeps of each token: keys (B, K, D) at position 0, whole and coded; values.

    Attributes:
        told: The codes of keys (B, K, groups, D, n + 2) and of values (B, K, T, groups, n + 2) that
            are gone on with; None where there are none.
    """

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.coded: dict[int, Tensor] = {}
        self.values: list[Tensor] = []
        self.told: tuple[Tensor, Tensor] | None = None
