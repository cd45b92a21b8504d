"""Telling a turn by its look: whether keys and queries that moved did so as rotary ones do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.models.watching import Refused
from core.rope import Rotation, Turn

# What rounding may do to a key (of its size) and to a token of the short text (nats).
ROUNDING = {torch.bfloat16: (3e-2, 0.4), torch.float16: (4e-3, 0.05)}
EXACT = (1e-5, 1e-3)
PHASE = 4e-7  # radians a position that a model's phases in float32 may be off


def rotation_of(
    model: Any,
    key: Tensor,
    moved: dict[int, Tensor],
    known: list[Tensor],
    rotations: list[Rotation],
) -> Rotation | None:
    """The turn that takes keys (B, K, 1, D) at 0 to those at d; None where they do not move.

    ``rotations`` are those of the layers before, which this one most likely shares.

    Raises:
        Refused: They move otherwise.
    """
    off = rounding(model)[0]
    if all(apart(other, key) <= off / 10 for other in moved.values()):
        return None
    d, device = key.shape[-1], key.device
    dtype = torch.float64 if key.dtype == torch.float64 else torch.float32
    candidates = [
        Rotation(inv_freq, first, pairs, device, dtype)
        for frequencies in known or frequencies_by_sight(key, moved)
        for inv_freq in (frequencies, -frequencies)
        if 2 * len(inv_freq) <= d
        for first in sorted({0, d - 2 * len(inv_freq)})
        for pairs in (False, True)
    ]
    shared = [each for each in rotations if each.first + 2 * len(each.inv_freq) <= d]
    for found in (*shared, *candidates):
        limits = {by: off + PHASE * by for by in moved}
        if all(apart(_by(found, by)(key), moved[by]) <= limits[by] for by in moved):
            if found not in rotations:
                rotations.append(found)
            return found
    raise Refused(
        "its keys move with position, but not as rotary ones do, turned in halves or pairs"
    )


def frequencies_by_sight(key: Tensor, moved: dict[int, Tensor]) -> list[Tensor]:
    """Frequencies of neighbouring pairs and of halves, read off keys (B, K, 1, D) that moved.

    The angle by 1 position is known to a rounding; that by 5, and so on, to as much, and so the
    frequency more and more sharply.
    """
    size = _size(key)
    dims = torch.zeros(key.shape[-1], dtype=torch.bool)
    for other in moved.values():
        dims |= ((other - key).abs().amax((0, 1, 2)) > 1e-5 * size).cpu()
    places = dims.nonzero().flatten()
    if not len(places):
        return []
    first, stop = int(places[0]), int(places[-1]) + 1
    if (stop - first) % 2:
        return []
    found = []
    for pairs in (True, False):
        angles = torch.zeros((stop - first) // 2, dtype=torch.float64)
        for by in sorted(moved):
            a, b = (_complex(each[..., first:stop], pairs) for each in (key, moved[by]))
            turned = (b * a.conj()).sum((0, 1, 2)).cpu().angle()  # (R/2,), modulo 2 pi
            turns = ((angles * by - turned) / (2 * torch.pi)).round()
            angles = (turned + 2 * torch.pi * turns) / by
        found.append(angles)
    return found


def _complex(x: Tensor, pairs: bool) -> Tensor:
    x = x.double()
    a, b = (x[..., 0::2], x[..., 1::2]) if pairs else x.chunk(2, dim=-1)
    return torch.complex(a.contiguous(), b.contiguous())


def check_query(
    model: Any, rotation: Rotation | None, query: Tensor, moved: Tensor, by: int
) -> None:
    """Queries (B, H, 1, D) must move as keys do, or grow besides.

    Raises:
        Refused: They do not.
    """
    turned = _by(rotation, by)(query) if rotation else query
    grown = (moved.double().norm() / query.double().norm()).to(turned.dtype)
    if apart(turned * grown, moved) > rounding(model)[0] + PHASE * by:
        raise Refused("its queries are not turned by positions as its keys are")


def _by(rotation: Rotation, positions: int) -> Turn:
    return rotation.turn(torch.tensor([float(positions)]))


def _size(x: Tensor) -> float:
    return float(x.double().norm(dim=-1).amax())


def apart(a: Tensor, b: Tensor) -> float:
    """How far two vectors are apart at most, of the size of the largest one."""
    return float((a.double() - b.double()).norm(dim=-1).amax()) / max(_size(b), 1e-30)


def rounding(model: Any) -> tuple[float, float]:
    """What it may do to a key, of its size, and to a token, in nats."""
    return ROUNDING.get(model.dtype, EXACT)


def allowed(model: Any, nats: Tensor) -> float:
    """What rounding may do to a token; in half precision it grows with the scores."""
    return rounding(model)[1] * max(1.0, float(nats.max()) / 20)
