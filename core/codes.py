"""Numbers as integers of a few bits, packed: each group has a least value and a step of its own.

As in KIVI (Liu et al. 2024, arXiv 2402.02750), with a group's ends in 16 bits, rounded outwards.

Knows nothing of keys, caches or models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.errors import UsageError

GROUP = 32  # tokens of a group of keys, and most channels of a group of values: KIVI's
GRID = torch.float16  # of a group's least value and step
ROUNDING = 2.0**-11  # of a number in it, at most


@dataclass(frozen=True)
class Codes:
    """Numbers (..., n) in groups of the last axis, packed.

    Attributes:
        packed: (..., n x bits / 8) uint8; the first number of a byte is in its lowest bits.
        grid: Least value and step of each group, (..., 2) in 16 bits.
    """

    packed: Tensor
    grid: Tensor

    @classmethod
    def of(cls, x: Tensor, bits: int) -> Codes:
        """The nearest codes of ``x``; the grid's ends are rounded outwards, so that all fit in."""
        x, most = x.float(), 2**bits - 1
        low, high = x.aminmax(dim=-1, keepdim=True)
        low = (low - ROUNDING * low.abs()).to(GRID).float()
        step = ((high - low) / most * (1 + ROUNDING)).clamp(min=2.0**-24).to(GRID).float()
        codes = ((x - low) / step).round().clamp(0, most).to(torch.uint8)
        parts = grouped(codes, 8 // bits) << _shifts(bits, x.device)
        return cls(parts.sum(-1, dtype=torch.uint8), torch.cat((low, step), -1).to(GRID))

    def first(self, n: int) -> Codes:
        """Those of the first n tokens or groups of (B, K, N, ...)."""
        return Codes(self.packed[:, :, :n], self.grid[:, :, :n])

    def then(self, more: Codes) -> Codes:
        """Those of (B, K, N, ...), and ``more`` behind them."""
        return Codes(torch.cat((self.packed, more.packed), 2), torch.cat((self.grid, more.grid), 2))

    def numbers(self, bits: int) -> Tensor:
        """The codes themselves, (..., n) uint8."""
        parts = self.packed[..., None] >> _shifts(bits, self.packed.device)
        numbers: Tensor = parts.flatten(-2) & 2**bits - 1
        return numbers

    def decoded(self, bits: int) -> Tensor:
        """What they stand for, (..., n) in float32."""
        low, step = self.grid.float().chunk(2, -1)
        decoded: Tensor = self.numbers(bits) * step + low
        return decoded

    def noted(self, bits: int) -> Tensor:
        """Codes, least value and step of each group, (..., n + 2) in float32."""
        return torch.cat((self.numbers(bits).float(), self.grid.float()), -1).cpu()


def grouped(x: Tensor, n: int) -> Tensor:
    """The last axis of ``x`` as groups of n: (..., N) as (..., N / n, n)."""
    return x.reshape(*x.shape[:-1], x.shape[-1] // n, n)


def _shifts(bits: int, device: torch.device) -> Tensor:
    return torch.arange(0, 8, bits, dtype=torch.uint8, device=device)


def channels(d: int, bits: int) -> int:
    """Channels of a group of values: the most up to ``GROUP`` that divide D and fill whole bytes.

    Raises:
        UsageError: None do.
    """
    for n in range(min(d, GROUP), 0, -1):
        if d % n == 0 and n * bits % 8 == 0:
            return n
    raise UsageError(
        f"{d} values of {bits} bits fill no whole bytes, which a head of this model has: choose "
        "more bits, or another --method."
    )
