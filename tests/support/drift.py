"""Whether a long text that ``generate`` writes drifts: its scores against those by chunks.

``python -m tests.support.drift 40000`` has the bundled model write so many tokens.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from core.cache import StreamingKVCache
from core.measure.meters import token_nll
from core.models.loading import load
from tests.support.generating import N_SINK, name_of, options
from tests.support.samples import ids_of


class Scored(LogitsProcessor):
    """Draws each token by itself, and notes its score in nats."""

    def __init__(self) -> None:
        self.nats: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        log = scores.float().log_softmax(-1)
        drawn = log.exp().multinomial(1)
        self.nats.append(-log.gather(-1, drawn)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)


@torch.inference_mode()
def drift(model: Any, ids: Tensor, tokens: int, window: int = 60) -> float:
    """Nats by which the score of any token that ``generate`` draws differs from that by chunks."""
    cache, scored = StreamingKVCache(N_SINK, window, model), Scored()
    made = model.generate(
        ids,
        **{name_of(model): cache},
        **options(tokens, eos_token_id=None),
        logits_processor=LogitsProcessorList([scored]),
    )
    assert cache.seen == ids.shape[1] + tokens - 1
    again, parts = StreamingKVCache(N_SINK, window, model), []
    for start in range(0, made.shape[1] - 1, 256):
        stop = min(start + 256, made.shape[1] - 1)
        parts.append(token_nll(again.read(made[:, start:stop]), made[:, start + 1 : stop + 1]))
    apart = torch.stack(scored.nats, 1) - torch.cat(parts, 1)[:, ids.shape[1] - 1 :]
    return float(apart.abs().max())


def bundled_model() -> tuple[Any, Tensor]:
    """The bundled model, and the beginning of a text."""
    loaded = load("bundled", dtype="float32", device="cpu")
    return loaded.model, ids_of(loaded, 100)[:1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokens", type=int, help="how many to generate")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{asked.tokens:,} tokens: {drift(*bundled_model(), asked.tokens):.1e} nats")
