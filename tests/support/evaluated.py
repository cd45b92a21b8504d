"""A mode run on documents of token ids, without a text, a configuration file or a database."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core import registry
from core.config import RunConfig
from core.models.loading import Loaded
from core.modes.base import Task
from core.result import RunResult
from core.tokens import TokenDocument, TokenStream
from tests.support.method_cases import N_SINK, WINDOW


def evaluate(
    loaded: Loaded,
    documents: Sequence[Tensor | TokenDocument],
    choices: list[Tensor] | None = None,
    **asked: Any,
) -> RunResult:
    """The result of S = 4 and W = 15 in chunks of 16, unless asked otherwise.

    ``choices`` fills up with those of the method, where it is given.
    """
    seen: list[tuple[int, float]] = []
    config = RunConfig(
        **{"n_sink": N_SINK, "window": WINDOW, "device": "cpu", "chunk_size": 16, **asked}
    )
    stream = TokenStream(
        tuple(
            each if isinstance(each, TokenDocument) else TokenDocument(f"document {i}", each)
            for i, each in enumerate(documents)
        ),
        sha256="",
        bos="none",
        notes=(),
    )
    method = registry.load("method", config.method)(config)
    if choices is not None:
        method.choices = choices
    task = Task(loaded, stream, method, config, lambda tokens, nats: seen.append((tokens, nats)))
    with torch.inference_mode():
        result: RunResult = registry.load("mode", config.mode)(task)
    assert seen[-1][0] == result.scored_tokens
    assert math.isclose(seen[-1][1] / seen[-1][0], result.nll_nats, rel_tol=1e-9)
    return result
