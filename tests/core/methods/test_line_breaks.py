"""Line breaks take the place of the first S tokens where they are read, never where predicted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core import tokens
from core.config import RunConfig
from core.errors import UsageError
from core.methods.base import method_of
from core.models import loading, shapes
from core.models.loading import Loaded


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return loading.load("bundled", dtype="float32", device="cpu")


@torch.inference_mode()
def logits(loaded: Loaded, method: str, ids: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    stream = method_of(RunConfig(method=method, n_sink=4, window=12)).start(loaded, len(ids))
    return torch.cat([stream.feed(part) for part in torch.split(ids, sizes, dim=1)], dim=1)


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [3, 7, 30]])
@pytest.mark.slow
def test_it_is_streaming_over_line_breaks_and_the_rest_of_the_text(
    loaded: Loaded, sizes: list[int]
) -> None:
    text = tokens.encode(
        loaded.tokenizer, "A cache keeps what was read first, and what was last. " * 9
    )
    ids = torch.tensor([text[:40], text[5:45]])
    read = ids.clone()
    read[:, :4] = tokens.encode(loaded.tokenizer, "\n")[-1]
    got = logits(loaded, "line-breaks", ids, sizes)
    torch.testing.assert_close(got, logits(loaded, "streaming", read, sizes))
    assert not torch.allclose(got, logits(loaded, "streaming", ids, sizes), atol=1e-3)


def test_a_model_without_a_tokenizer_is_refused_in_one_line(loaded: Loaded) -> None:
    shape = shapes.build("tiny", dtype="float32", device="cpu")
    with pytest.raises(UsageError, match="random:tiny has no tokenizer"):
        method_of(RunConfig(method="line-breaks", window=12)).start(shape, 1)
    with pytest.raises(UsageError, match="no tokenizer"):
        method_of(RunConfig(method="line-breaks", window=12)).start(
            replace(loaded, tokenizer=None), 1
        )
