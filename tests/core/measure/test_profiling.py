"""What a step takes is what its own tensors hold at one moment, whatever was there before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.measure.profiling import taken_mib


def test_memory_is_the_most_that_was_held_at_once() -> None:
    given = torch.ones(512, 512)  # 1 MiB, which is nobody's step

    def step() -> Tensor:
        first = given + 1
        second = given @ first
        del first
        return second * 2

    assert taken_mib(step, "cpu") == pytest.approx(2, abs=0.001)
    assert taken_mib(lambda: given.sum(), "cpu") < 0.001


def test_what_is_freed_meanwhile_does_not_count_against_a_step() -> None:
    class Ring:
        def __init__(self) -> None:
            self.itself, self.held = self, torch.ones(1024, 1024)

    for _ in range(20):
        Ring()
    assert taken_mib(lambda: torch.ones(512, 512), "cpu") == pytest.approx(1, abs=0.001)
