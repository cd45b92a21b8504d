"""Rotary positions seen from outside the model: turn a vector by a number of positions.

Frequencies come from the model's own rotary module; angles are computed in float64. Before it is
trusted, the rotation is proved against the model's own ``apply_rotary_pos_emb``.

Knows nothing of caches or attention.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.errors import UsageError

CHANGES_WITH_LENGTH = ("dynamic", "longrope")
PROOF_AT, PROOF_BY = 11, 23  # any two positions would do


@dataclass(frozen=True)
class Turn:
    """A rotation: ``cos`` and ``sin`` of N positions, float32, each (N, R)."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate the first R dims of ``x`` (..., N, D); the rest passes through."""
        r = self.cos.shape[-1]
        turned = x[..., :r].float()
        first, second = turned.chunk(2, dim=-1)
        turned = turned * self.cos + torch.cat((-second, first), dim=-1) * self.sin
        return torch.cat((turned.to(x.dtype), x[..., r:]), dim=-1)  # (..., N, D)


class Rotary:
    """The rotary positions of one model.

    Attributes:
        inv_freq: Radians a position, float64, (R/2,).
        limit: Positions must stay below this for the frequencies to hold (dynamic NTK and
            LongRoPE change them beyond), None where they never change.
    """

    def __init__(self, model: Any) -> None:
        """Find and prove the model's rotary positions.

        Raises:
            UsageError: The model has none, several kinds, or one that does not add up.
        """
        kind = model.config.model_type
        found = [module for module in model.modules() if _frequencies(module)]
        if not found:
            raise UsageError(
                f"a {kind!r} model has no rotary positions that a streaming cache can move: "
                "choose a RoPE model (GPT-NeoX, Llama, Qwen, ...), or --method recompute or dense."
            )
        module = found[0]
        if len(found) > 1 or "inv_freq" not in _frequencies(module):  # Gemma 3: one a layer type
            raise UsageError(
                f"a {kind!r} model has several kinds of rotary positions, which streaming does not "
                "support: choose a model with one kind, or --method recompute or dense."
            )
        parameters = getattr(model.config, "rope_parameters", None) or {}
        self.limit: int | None = None
        if getattr(module, "rope_type", None) in CHANGES_WITH_LENGTH:
            length = parameters.get("original_max_position_embeddings")
            self.limit = int(length or model.config.max_position_embeddings)
        buffer = getattr(module, "original_inv_freq", module.inv_freq)
        self.device = buffer.device
        home = "cpu" if self.device.type == "mps" else self.device  # which has no float64
        self.inv_freq = buffer.detach().to(home).double()  # (R/2,)
        self._prove(model, module)

    def turn(self, positions: Tensor) -> Turn:
        """The rotation by ``positions`` (N,), which may be negative or fractional."""
        angles = positions.to(self.inv_freq.device).double()[:, None] * self.inv_freq  # (N, R/2)
        angles = torch.cat((angles, angles), dim=-1)  # (N, R)
        return Turn(angles.cos().float().to(self.device), angles.sin().float().to(self.device))

    def check_room(self, positions: int) -> None:
        """Refuse positions 0..``positions``-1 where frequencies would change within them.

        Raises:
            UsageError: They outgrow ``limit``.
        """
        if self.limit is not None and positions > self.limit:
            raise UsageError(
                f"sinks, window and chunk take {positions} positions, but this model's rotary "
                f"frequencies change beyond {self.limit}: "
                "choose a smaller --window or --chunk-size."
            )

    def _prove(self, model: Any, module: Any) -> None:
        """The model's rotation to p + d must be its rotation to p, turned by d."""
        apply: Any = getattr(sys.modules[type(model).__module__], "apply_rotary_pos_emb", None)
        device = self.device
        heads = model.config.num_attention_heads
        dim = getattr(model.config, "head_dim", None) or model.config.hidden_size // heads
        x = torch.linspace(-1, 1, dim, device=device).view(1, 1, 1, dim)

        def at(position: int) -> Tensor:
            cos, sin = module(x, position_ids=torch.tensor([[position]], device=device))
            rotated: Tensor = apply(x, x, cos, sin)[1]
            return rotated

        try:
            want = at(PROOF_AT + PROOF_BY)
            got = self.turn(torch.tensor([float(PROOF_BY)]))(at(PROOF_AT))
            proved = torch.allclose(want, got, atol=1e-5)
        except (TypeError, ValueError, RuntimeError):
            proved = False
        if not proved:
            raise UsageError(
                f"the rotary positions of a {model.config.model_type!r} model are not laid out in "
                "halves as in GPT-NeoX and Llama: choose another, or --method recompute or dense."
            )


def _frequencies(module: Any) -> list[str]:
    return [name for name, _ in module.named_buffers(recurse=False) if name.endswith("inv_freq")]
