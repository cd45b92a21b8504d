"""TOVA: drop the key that the last query attended to least (Oren et al. 2024, arXiv 2401.06104).

Each layer decides for itself and for all of its heads at once, by the mean of the heads' attention
weights (section 3.2 there). Any token may go, the newest too.

Where it differs: theirs keeps keys at the positions that they came with, which is ``positions`` =
absolute here; and in theirs a prompt is cut once at its end, while here all tokens come one by one.

Cost: attention in plain operations, which give the weights, in place of the model's own kernel.
"""

from __future__ import annotations

from torch import Tensor

from core.methods.scored import Scored, ScoredLayer
from core.registry import METHODS


class Tova(Scored):
    """Least attended by the last query, over all heads of a layer."""

    spec = METHODS["tova"]
    weighs = True

    def score(self, layer: ScoredLayer) -> Tensor:
        """The mean weight, the same for each head."""
        weights = layer.weights
        assert weights is not None
        return weights.mean((1, 2))[:, None].expand(-1, weights.shape[1], -1)
