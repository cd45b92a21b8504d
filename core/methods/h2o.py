"""H2O: keep heavy hitters and recent tokens (Zhang et al. 2023, arXiv 2306.14048).

A key's score is the attention that all queries since paid to it, added up. Each KV head drops the
lowest but one of the most recent, which are half of the budget unless ``recent`` says otherwise
(section 4 there, algorithm 1, and the halves of its experiments).

Where it differs: with grouped queries, which the paper does not have, the query heads of a group
share their keys and their scores are added; keys are at positions in the cache unless ``positions``
is absolute; and all tokens come one by one, where theirs reads a prompt at once.

Cost: attention in plain operations, which give the weights, in place of the model's own kernel, and
one number more for each key, which counts as KV.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from torch import Tensor, inf

from core.errors import UsageError
from core.methods import scored
from core.methods.base import Stream
from core.methods.scored import Scored, ScoredLayer
from core.models.loading import Loaded
from core.registry import METHODS


@dataclass(frozen=True)
class Parameters(scored.Parameters):
    """Options that it has.

    Attributes:
        recent: Share of the S + W keys that are the most recent ones, rounded down.

    Raises:
        ValueError: One is out of range.
    """

    recent: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.recent < 1:
            raise ValueError(f"recent is {self.recent:g}: it must be 0 or more and below 1")


class H2O(Scored):
    """Least attended by all queries, but for the recent ones, in each KV head."""

    spec = METHODS["h2o"]
    weighs = sums = True
    parameters: Parameters

    @property
    def recent(self) -> int:
        """Tokens that stay since they are the most recent."""
        share = Decimal(str(self.parameters.recent))  # 0.29 of 100 is 29, and in floats less
        return int(share * (self.config.attended_keys - 1))

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache.

        Raises:
            UsageError: As its parent, or sinks and recent tokens are all of it.
        """
        budget, sinks = self.config.attended_keys - 1, self.parameters.sinks
        if sinks + self.recent > budget:
            raise UsageError(
                f"{sinks} sinks and {self.recent} recent tokens are more than the {budget} keys of "
                "the cache: choose fewer sinks, a smaller recent, or a larger --window."
            )
        return super().start(loaded, batch)

    def score(self, layer: ScoredLayer) -> Tensor:
        """The sum of weights over a group's heads and all queries so far."""
        assert layer.weights is not None
        layer.total = scored.added(layer.total, layer.weights.sum(2))
        worth = layer.total.clone()
        worth[..., layer.held - self.recent :] = inf
        return worth
