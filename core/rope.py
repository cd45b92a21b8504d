"""Rotary positions seen from outside the model: turn a vector by a number of positions.

Angles are computed in float64 from the frequencies that the model's own rotary modules hold. Which
dims of which layer are turned, and in which pairs, is not known here:
``core.models.anatomy`` sees it.

Knows nothing of caches or attention.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHANGES_WITH_LENGTH = ("dynamic", "longrope")

_states: weakref.WeakKeyDictionary[Any, tuple[dict[str, Tensor], dict[str, Any]]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True)
class Turn:
    """A rotation of R dims from dim ``first``: ``cos`` and ``sin`` of N positions, (N, R) each.

    Dim i is turned together with dim i + R/2 (GPT-NeoX, Llama), or where ``pairs`` is true dim 2i
    together with dim 2i + 1 (GPT-J, Cohere, GLM).
    """

    cos: Tensor
    sin: Tensor
    first: int = 0
    pairs: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate R dims of ``x`` (..., N, D); the rest passes through."""
        r, d = self.cos.shape[-1], x.shape[-1]
        part = x[..., self.first : self.first + r].to(self.cos.dtype)
        if self.pairs:
            a, b = part[..., 0::2], part[..., 1::2]
            partner = torch.stack((-b, a), dim=-1).flatten(-2)
        else:
            a, b = part.chunk(2, dim=-1)
            partner = torch.cat((-b, a), dim=-1)
        turned = (part * self.cos + partner * self.sin).to(x.dtype)
        if r == d:
            return turned
        before, after = x[..., : self.first], x[..., self.first + r :]
        return torch.cat((before, turned, after) if self.first else (turned, after), dim=-1)


@dataclass(frozen=True, eq=False)
class Rotation:
    """How the keys and queries of a layer are turned by a number of positions.

    Attributes:
        inv_freq: Radians a position, float64, (R/2,).
        first: The first of the R dims.
        pairs: Which dims are turned together, see ``Turn``.
        device: Where the turns are used.
        dtype: float64 for a model in float64, else float32.
    """

    inv_freq: Tensor
    first: int
    pairs: bool
    device: torch.device
    dtype: torch.dtype = torch.float32

    def turn(self, positions: Tensor) -> Turn:
        """The rotation by ``positions`` (N,), which may be negative or fractional.

        Those of (B, K, N) turn each key of each head by its own.
        """
        angles = positions.to(self.inv_freq.device).double()[..., None] * self.inv_freq  # (N, R/2)
        angles = angles.repeat_interleave(2, -1) if self.pairs else torch.cat((angles, angles), -1)
        cos, sin = (each.to(self.dtype).to(self.device) for each in (angles.cos(), angles.sin()))
        return Turn(cos, sin, self.first, self.pairs)

    @property
    def words(self) -> str:
        """The rotation in words, such as ``16 dims in halves from dim 0``."""
        layout = "neighbours" if self.pairs else "halves"
        return f"{2 * len(self.inv_freq)} dims in {layout} from dim {self.first}"


def frequencies(model: Any) -> list[Tensor]:
    """All different frequencies that the model's modules hold: float64, (R/2,) each."""
    found: list[Tensor] = []
    for module in model.modules():
        for name, buffer in _buffers(module).items():
            if "original" in name or buffer.ndim != 1 or not len(buffer):
                continue
            home = "cpu" if buffer.device.type == "mps" else buffer.device  # which has no float64
            new = buffer.detach().to(home).double()
            if not any(torch.equal(new, old) for old in found):
                found.append(new)
    return found


def limit(model: Any) -> int | None:
    """Positions must stay below this for the frequencies to hold; None where they never change.

    Dynamic NTK and LongRoPE have other frequencies beyond the length that they were trained on.
    """
    lengths = []
    for module in model.modules():
        for layer_type, kind in _kinds(module).items():
            if kind in CHANGES_WITH_LENGTH:
                config = module.config
                parameters = getattr(config, "rope_parameters", None) or {}
                parameters = parameters.get(layer_type, parameters)
                length = parameters.get("original_max_position_embeddings")
                lengths.append(int(length or config.max_position_embeddings))
    return min(lengths, default=None)


def restore(model: Any) -> None:
    """Put every rotary module that forwards may change back to where it was when first seen here.

    A forward beyond the trained length changes the frequencies of dynamic NTK for the rest of the
    process (transformers 5.2), and with them the figures of every run that follows. Those of a kind
    that holds stay as they are, since a user may have set them.
    """
    for module in model.modules():
        buffers, kinds = _buffers(module), set(_kinds(module).values())
        if not buffers or not kinds & {None, *CHANGES_WITH_LENGTH}:
            continue
        plain = _plain(module)
        if module not in _states:
            kept = {name: buffers.get(_original(name), buffer) for name, buffer in buffers.items()}
            _states[module] = {name: each.clone() for name, each in kept.items()}, plain
        kept, before = _states[module]
        for name, buffer in buffers.items():
            if not torch.equal(buffer, kept[name].to(buffer.device)):
                setattr(module, name, kept[name].to(buffer.device).clone())
        for name, value in plain.items():
            if name not in before:
                delattr(module, name)
            elif before[name] is not value:
                setattr(module, name, before[name])


def _kinds(module: Any) -> dict[Any, Any]:
    """What kind of frequencies a module has, by the type of the layers that use them."""
    kinds = getattr(module, "rope_type", None)
    return kinds if isinstance(kinds, dict) else {None: kinds}


def _plain(module: Any) -> dict[str, Any]:
    """Numbers and tensors that are the module's own attributes, such as a length reached so far."""
    held = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name: value for name, value in held.items() if type(value) in (int, float, Tensor)}


def _buffers(module: Any) -> dict[str, Tensor]:
    named = module.named_buffers(recurse=False)
    return {name: buffer for name, buffer in named if name.endswith("inv_freq")}


def _original(name: str) -> str:
    return name.removesuffix("inv_freq") + "original_inv_freq"
