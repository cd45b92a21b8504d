"""K-norm: drop the longest key (Devoto et al. 2024, arXiv 2406.11430).

Keys with a small L2 norm tend to be the ones that get much attention, so each KV head drops the key
with the largest. Turning a key by its position leaves its norm as it is. No attention weight and no
query is looked at, so the model attends by its own kernel. Any token may go, the newest too.

Where it differs: the paper leaves the first layers whole, in which norm and attention do not go
together; here every layer keeps S + W keys, since that is the budget of all methods.

Cost: the norms of S + W keys a head and token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.methods.scored import Scored, ScoredLayer
from core.registry import METHODS


class KNorm(Scored):
    """Longest, in each KV head."""

    spec = METHODS["knorm"]

    def score(self, layer: ScoredLayer) -> Tensor:
        """How short a key is."""
        wide = torch.promote_types(layer.keys.dtype, torch.float32)
        length: Tensor = torch.linalg.vector_norm(layer.keys, dim=-1, dtype=wide)
        return -length
