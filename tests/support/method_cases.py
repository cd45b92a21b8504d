"""One table of methods, each with a slow and obvious reference, which every mode runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from core import registry
from core.config import RunConfig
from core.errors import UsageError
from core.methods import press
from core.registry import METHODS
from tests.support.samples import naive_nll

N_SINK, WINDOW = 4, 15
BUDGET = N_SINK + WINDOW + 1


def streaming(model: Any, ids: Tensor) -> Tensor:
    return naive_nll(model, ids[None], N_SINK, WINDOW)[0]


def interval(model: Any, ids: Tensor) -> Tensor:
    return naive_nll(
        model, ids[None], N_SINK, WINDOW, METHODS["kvpress-interval"].evict_every or 1
    )[0]


def window(model: Any, ids: Tensor) -> Tensor:
    return naive_nll(model, ids[None], 0, N_SINK + WINDOW)[0]


@torch.inference_mode()
def recompute(model: Any, ids: Tensor) -> Tensor:
    """Each token predicted from a forward over the tokens before it, BUDGET of them at most."""
    scores = []
    for t in range(len(ids) - 1):
        logits = model(ids[None, max(0, t + 1 - BUDGET) : t + 1]).logits[0, -1]
        scores.append(-logits.float().log_softmax(-1)[ids[t + 1]])
    return torch.stack(scores)


@torch.inference_mode()
def dense(model: Any, ids: Tensor) -> Tensor:
    logits = model(ids[None, :-1]).logits[0].float()
    scores: Tensor = -logits.log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
    return scores


def by_its_reference(name: str) -> Callable[[Any, Tensor], Tensor]:
    config = RunConfig(method=name, n_sink=N_SINK, window=WINDOW, device="cpu")

    def case(model: Any, ids: Tensor) -> Tensor:
        nats: Tensor = registry.imported(config.spec.reference)(model, ids[None], config)[0]
        return nats

    return case


SCORED = ("tova", "h2o", "keydiff", "knorm")  # that keep what scores best
CASES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "streaming": streaming,
    "window": window,
    **{name: by_its_reference(name) for name in ("context-shift", *SCORED)},
    "mit": streaming,
    "kvpress": streaming,
    "kvpress-interval": interval,
    "kvpress-prefill": dense,  # in the decode loop its prompt is a token, which can't be cut
    "recompute": recompute,
    "dense": dense,
}


FOLLOWED = ("streaming-int",)  # whose choices are so many that the reference must be told them


def need(method: str) -> None:
    """Skip where ``method`` can't run: kvpress is optional and wants transformers below 5.3."""
    if method.startswith("kvpress"):
        try:
            press.load()
        except UsageError as error:
            pytest.skip(str(error))
