"""KeyDiff: drop the key most like the others (Park et al. 2025, arXiv 2504.15364).

Each KV head compares its keys with their mean direction, by cosine, and drops the most similar one,
so that keys stay that differ. No attention weight and no query is looked at, so the model attends
by its own kernel. Any token may go, the newest too.

Where it differs: keys are compared as they would be at position 0, since in a cache whose keys move
there is no other position that all of them share; the paper compares them as they lie in its cache.
It decides by blocks of a prompt, here after every token.

Cost: the cosines of S + W keys a head and token, of the order of attention itself; with
``positions`` = absolute also a turn of each key back to position 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from core.methods.scored import Scored, ScoredLayer
from core.registry import METHODS


class KeyDiff(Scored):
    """Most like the mean direction, in each KV head."""

    spec = METHODS["keydiff"]

    def score(self, layer: ScoredLayer) -> Tensor:
        """How little a key is like the mean direction of all."""
        keys = layer.bare_keys
        keys = keys.to(torch.promote_types(keys.dtype, torch.float32))
        anchor = normalize(keys, dim=-1).mean(-2, keepdim=True)  # (B, K, 1, D)
        return -cosine_similarity(keys, anchor, dim=-1)
