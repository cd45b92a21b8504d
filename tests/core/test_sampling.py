"""How tokens are chosen: by transformers' own steps, and nothing that can't be is taken."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from core.errors import StreamError, UsageError
from core.sampling import Sampler, Sampling


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0: it must be 1 or more"),
        ({"temperature": -1.0}, "temperature is -1.0: it must be 0 or more"),
        ({"temperature": math.nan}, "temperature is nan: it must be 0 or more"),
        ({"temperature": math.inf}, "temperature is inf: it must be 100 or less"),
        ({"top_k": 0}, "top_k is 0: it must be 1 or more"),
        ({"top_p": 0.0}, "top_p is 0.0: it must be 0.001 or more"),
        ({"top_p": 1.5}, "top_p is 1.5: it must be 1 or less"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0: it must be 0.01 or more"),
    ],
)
def test_what_can_t_be_is_refused_in_one_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Sampling(**values)
    assert str(caught.value) == f"{said}."


def scores() -> torch.Tensor:
    return torch.tensor([[0.0, 3.0, 2.9, 2.0, -1.0]])


def test_temperature_0_takes_the_likeliest_whatever_else_is_asked() -> None:
    sampler = Sampler(Sampling(temperature=0, top_k=3, top_p=0.5), 0, "cpu")
    assert [sampler.choose(scores(), []) for _ in range(5)] == [1] * 5


def test_the_penalty_is_on_what_was_said() -> None:
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=2.0), 0, "cpu")
    assert sampler.choose(scores(), []) == 1
    assert sampler.choose(scores(), [1, 4]) == 2


def test_draws_are_those_of_the_seed_and_of_what_may_be_drawn() -> None:
    def drawn(seed: int, **how: Any) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, **how), seed, "cpu")
        return [sampler.choose(scores(), []) for _ in range(60)]

    assert drawn(0) == drawn(0) != drawn(1)
    assert set(drawn(0, top_p=1.0)) > {1, 2, 3}
    assert set(drawn(0, top_k=2)) == {1, 2}
    assert set(drawn(0, top_p=0.4)) == {1}


def test_scores_that_are_no_numbers_are_told() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(StreamError, match="no numbers"):
            Sampler(Sampling(), 0, "cpu").choose(torch.tensor([[0.0, value]]), [])
    some_may_never_come = torch.tensor([[0.0, -math.inf]])
    assert Sampler(Sampling(), 0, "cpu").choose(some_may_never_come, []) == 0
