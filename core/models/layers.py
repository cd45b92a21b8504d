"""What is known of each layer of a model: how far it sees, and what positions do to its keys.

``core.models.anatomy`` finds it out.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from core.errors import UsageError
from core.rope import Rotation

LENGTH = 8  # tokens of the short text that a model is held against
INSTEAD = "choose another model, or --method recompute or dense"


@dataclass(frozen=True)
class Native:
    """How far a layer looks back by its own mask.

    Attributes:
        keys: Keys that a query sees at most, itself included.
        blocks: Whether these are the tokens of a block of that length, which begins anew, and not
            the last ones.
    """

    keys: int
    blocks: bool = False

    @property
    def words(self) -> str:
        """In words."""
        return f"blocks of {self.keys:,}" if self.blocks else f"a window of {self.keys:,}"


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        key_numbers: Numbers that its cache holds of a token's key, K x D, or of a latent one the
            part that is turned.
        value_numbers: Numbers that it holds besides.
        rotation: How keys are turned by positions, None where they are not.
        latent: How the part of a key that the cache holds is turned, where keys and values are made
            of what it holds (MLA, as of transformers 5.24); None where it holds keys.
        native: How far it looks back by itself, None where it sees all that came before.
        grows: Whether queries grow with their position.
        heads: K, heads that keys and values are of.
    """

    key_numbers: int
    value_numbers: int
    rotation: Rotation | None = None
    latent: Rotation | None = None
    native: Native | None = None
    grows: bool = False
    heads: int = 1


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What was found of one model.

    Attributes:
        kind: The model's type, as its configuration names it.
        layers: Its layers, in order; empty where they could not be seen.
        registered: Whether it takes registered attention functions.
        passes: Whether what a forward is given by keyword reaches them.
        capped: Whether its logits have a cap, which torch's own attention would drop.
        limit: Positions must stay below this for the rotary frequencies to hold, if they change.
        refusal: Why its positions can't be moved, None where they can.
        uncached: Why its own cache can't be trusted, None where it can.
        largest_nats: How far the short text was from the model's own scores at most; NaN where
            these are no numbers.
        sizes: Sizes of the queries at 0, 1, ... in each layer that ``grows``, by the number of it.
    """

    kind: str
    layers: tuple[Layer, ...] = ()
    registered: bool = False
    passes: bool = False
    capped: bool = False
    limit: int | None = None
    refusal: str | None = None
    uncached: str | None = None
    largest_nats: float = 0.0
    sizes: dict[int, Tensor] = field(default_factory=dict)

    @property
    def token_numbers(self) -> int:
        """Numbers that the key and the value of a token take in all layers."""
        return sum(layer.key_numbers + layer.value_numbers for layer in self.layers)

    @property
    def layers_in_words(self) -> str:
        """The layers, those alike together."""
        counts = Counter(
            (
                each.native.words if each.native else "all keys",
                each.rotation.words if each.rotation else "no rotary positions",
                ", query grows with position" if each.grows else "",
            )
            for each in self.layers
        )
        return "; ".join(
            f"{count} of {len(self.layers)} layers: {sees}, {turns}{grows}"
            for (sees, turns, grows), count in counts.items()
        )

    @property
    def proof_in_words(self) -> str:
        """What was compared, and how close it was."""
        if self.refusal or math.isnan(self.largest_nats):
            return f"not proved: {self.refusal or 'its own scores are no numbers'}"
        return (
            f"every layer's keys move as said; {LENGTH} tokens, moved and out of order, as by the "
            f"model itself to {self.largest_nats:.1e} nats"
        )

    def check_movable(self) -> None:
        """Raise ``UsageError`` where positions can't be moved."""
        if self.refusal:
            raise UsageError(f"a {self.kind!r} model can't stream: {self.refusal}: {INSTEAD}.")

    def check_cached(self) -> None:
        """Raise ``UsageError`` where the model's own cache can't be trusted."""
        if self.uncached:
            raise UsageError(
                f"a {self.kind!r} model can't be fed in parts: {self.uncached}: "
                "choose another model, or --method recompute."
            )

    def check_room(self, positions: int, way_out: str) -> None:
        """Raise ``UsageError`` where rotary frequencies change within so many positions."""
        if self.limit is not None and positions > self.limit:
            raise UsageError(
                f"{positions:,} positions are needed, but this model's rotary frequencies change "
                f"beyond {self.limit:,}: choose {way_out}."
            )


def attentions(model: Any) -> list[nn.Module]:
    """The attention of each layer, in order: what takes a mask, knows its number and holds no such.

    Raises:
        UsageError: There is not one for each layer.
    """
    found = [m for m in model.modules() if hasattr(m, "layer_idx") and _takes_mask(m)]
    known = set(map(id, found))
    found = [m for m in found if not known & {id(inner) for inner in m.modules() if inner is not m}]
    if len(found) != model.config.get_text_config(decoder=True).num_hidden_layers:
        raise UsageError(
            f"{len(found)} attentions were found in a {model.config.model_type!r} model, which is "
            "not one a layer: choose another model, or --method recompute or dense."
        )
    return sorted(found, key=lambda m: int(m.layer_idx))


def _takes_mask(module: nn.Module) -> bool:
    return "attention_mask" in inspect.signature(module.forward).parameters
