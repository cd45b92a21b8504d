"""What each layer of a model keeps of a stream: S sinks and W, or a window or blocks of its own.

Knows nothing of keys, of attention or of how they are stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from core.errors import UsageError
from core.models.layers import Anatomy
from core.rope import Rotation


@dataclass(frozen=True)
class Kind:
    """What one layer keeps; layers of equal kinds share masks and turns.

    Attributes:
        n_sink: S, sinks.
        window: W, tokens before the query that it sees.
        every: k, tokens between evictions.
        rotation: How its keys are turned; None where they are not.
        latent: How the part of a key that it holds is turned, where keys and values are made of
            what it holds; that part is then what is called keys here, and the other values.
        block: Length of the blocks beyond whose beginning it never looks back, if it has any.
        own: Whether this is the layer's own window, which S and W do not change.
        phase: The number of a token after which evictions are due; the others are k apart.
    """

    n_sink: int
    window: int
    every: int = 1
    rotation: Rotation | None = None
    latent: Rotation | None = None
    block: int | None = None
    own: bool = False
    phase: int = 0

    @property
    def turns(self) -> Rotation | None:
        """How what it holds is turned."""
        return self.latent or self.rotation

    @property
    def ring(self) -> int:
        """Slots of the window's ring, one of which the token at hand is written to: W + k."""
        return self.window + self.every

    @property
    def slots(self) -> int:
        """Keys that it holds at most: S + W + k."""
        return self.n_sink + self.ring

    def cut(self, t: Any) -> Any:
        """The number of the token before which the cache that t finds was last cut; t if k is 1."""
        first = self.phase + 1
        return (t - first) // self.every * self.every + first

    def first_seen(self, t: Any) -> Any:
        """The number of the first token that t sees beside the sinks; may be below 0."""
        if self.block is not None:
            return t // self.block * self.block
        return self.cut(t) - self.window

    def held(self, seen: int) -> int:
        """Keys that wait for the token number ``seen``."""
        return seen - max(0, int(self.first_seen(seen)) - self.n_sink)


def kinds_of(
    found: Anatomy, n_sink: int, window: int, every: int = 1, phase: int = 0
) -> tuple[Kind, ...]:
    """What each layer of a model keeps.

    Raises:
        UsageError: The model's positions can't be moved, or every layer has a window of its own
            that these sizes outgrow.
    """
    found.check_movable()
    natives = [layer.native for layer in found.layers if layer.native]
    all_own = len(natives) == len(found.layers)
    if all_own:
        smallest = min(native.keys for native in natives)
        if n_sink + window + every > smallest or any(native.blocks for native in natives):
            raise UsageError(
                f"{n_sink + window + every} attended keys outgrow the window of {smallest} that "
                "every layer of this model has: choose --n-sink and --window so that their sum is "
                f"below {smallest}."
            )
    kinds = []
    for layer in found.layers:
        native, turns = layer.native, (layer.rotation, layer.latent)
        if native is None or all_own:
            kinds.append(Kind(n_sink, window, every, *turns, phase=phase))
        else:
            block = native.keys if native.blocks else None
            kinds.append(Kind(0, native.keys - 1, 1, *turns, block, own=True))
    return tuple(kinds)


def in_words(kinds: Sequence[Kind]) -> str:
    """What the layers keep, those alike together."""
    counts = Counter(
        (
            f"{kind.n_sink} sinks and {kind.window:,} before the query"
            if not kind.own
            else f"a window of their own of {kind.slots:,}"
            if kind.block is None
            else f"blocks of their own of {kind.block:,}",
            kind.rotation.words if kind.rotation else "no rotary positions",
        )
        for kind in kinds
    )
    return "; ".join(
        f"{count} of {len(kinds)} layers: {keeps}, {turns}"
        for (keeps, turns), count in counts.items()
    )


def slots_seen(kind: Kind, slot: Tensor, t: Any) -> Tensor:
    """Which slots (N,) hold a token that t sees, once t is in its slot: (N,) bool."""
    token = t - (t - slot) % kind.ring  # slot S + r holds the latest one that is r past S
    seen: Tensor = (token >= kind.first_seen(t)) | (slot < kind.n_sink)
    return seen
