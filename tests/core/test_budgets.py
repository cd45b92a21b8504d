"""So many MiB as the largest window that fits, for every method and kind of model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core import budgets
from core.config import RunConfig
from core.errors import UsageError
from core.measure.meters import MIB
from core.methods.base import method_of
from core.models.loading import Loaded
from tests.support import families
from tests.support.method_cases import need
from tests.support.samples import around

FITTING = (
    *("streaming", "window", "context-shift", "streaming-int"),
    *("tova", "h2o", "keydiff", "knorm", "mit"),
)


def loaded(name: str) -> Loaded:
    return around(families.build(name))


def asked(method: str, mib: float, **more: Any) -> RunConfig:
    return RunConfig(**{"method": method, "budget_mib": mib, "device": "cpu", **more})


@torch.inference_mode()
def held(config: RunConfig, model: Loaded, ids: Tensor) -> int:
    """The most bytes that a stream holds between single tokens, or chunks."""
    stream, most = method_of(config).start(model, len(ids)), 0
    for part in torch.split(ids, config.chunk if config.mode_spec.chunked else 1, dim=1):
        stream.feed(part)
        most = max(most, stream.kv_bytes())
    return most


@pytest.mark.parametrize("method", FITTING)
@pytest.mark.slow
def test_what_is_held_fits_and_one_token_more_would_not(method: str) -> None:
    model, mib = loaded("llama"), 0.04
    found = budgets.settled(asked(method, mib, batch_size=2), model)
    ids = families.tokens(150).expand(2, -1)
    resolved = replace(found, budget_mib=None, evict_every=found.steps_between_evictions())
    assert found.window_size > 4
    assert mib / 2 < held(resolved, model, ids) / MIB <= mib
    assert budgets.bytes_of(found, model, found.window_size + 1) / MIB > mib


@pytest.mark.parametrize("name", ["gemma3_text", "deepseek_v3", "cohere2"])
@pytest.mark.slow
def test_windows_of_the_models_own_and_latents_count_as_they_are(name: str) -> None:
    model, mib = loaded(name), 0.1
    found = budgets.settled(asked("streaming", mib), model)
    ids = families.tokens(found.attended_keys + 30)
    assert mib * 0.9 < held(replace(found, budget_mib=None, evict_every=1), model, ids) / MIB <= mib


def test_fewer_bits_hold_more_keys_in_the_same_memory() -> None:
    model = loaded("llama")
    keys = [
        budgets.settled(asked(method, 0.1, param=param), model).attended_keys
        for method, param in (
            ("streaming", ()),
            *(("streaming-int", (("kv_bits", bits),)) for bits in (8, 4, 2)),
        )
    ]
    assert keys[0] * 2 < keys[1] and keys[1] * 1.3 < keys[2] and keys[2] * 1.2 < keys[3]


@pytest.mark.slow
@pytest.mark.parametrize("every", [5, 7])
@pytest.mark.parametrize("method", ["kvpress:KnormPress", "kvpress-interval", "mit", "streaming"])
def test_what_is_held_just_before_an_eviction_fits_too(method: str, every: int) -> None:
    need(method)
    model = loaded("llama")
    for mib in (0.03, 0.031, 0.033):
        found = budgets.settled(asked(method, mib, evict_every=every), model)
        most = held(replace(found, budget_mib=None), model, families.tokens(120))
        assert most / MIB <= mib < budgets.bytes_of(found, model, found.window_size + 1) / MIB


@pytest.mark.parametrize("method", ["kvpress:KnormPress", "kvpress-interval", "streaming"])
@pytest.mark.slow
def test_what_piles_up_in_chunks_between_evictions_fits_too(method: str) -> None:
    need(method)
    model, mib, how = loaded("llama"), 0.05, {"mode": "chunked", "chunk_size": 8, "evict_every": 5}
    found = budgets.settled(asked(method, mib, **how), model)
    most = held(replace(found, budget_mib=None), model, families.tokens(150))
    assert most / MIB <= mib < budgets.bytes_of(found, model, found.window_size + 1) / MIB


def test_eviction_that_is_put_off_leaves_room_for_what_it_piles_up() -> None:
    model = loaded("llama")
    for method in ("streaming", "mit"):
        one, many = (
            budgets.settled(asked(method, 0.05, evict_every=k), model).window_size for k in (1, 16)
        )
        assert one - many == 15


def test_what_holds_nothing_sees_as_many_keys_as_streaming() -> None:
    model = loaded("llama")
    found = budgets.settled(asked("recompute", 0.05), model)
    assert found.attended_keys == budgets.settled(asked("streaming", 0.05), model).attended_keys


def test_too_little_is_refused_with_what_would_do() -> None:
    model = loaded("llama")
    with pytest.raises(UsageError, match=r"budget_mib is 0.001, but 4 sinks.*window of 1 take"):
        budgets.settled(asked("streaming", 0.001), model)
    try:
        budgets.settled(asked("streaming", 0.001), model)
    except UsageError as error:
        smallest = float(str(error).split("give ")[1].split(" ")[0])
    assert budgets.settled(asked("streaming", smallest), model).window == 1
    with pytest.raises(UsageError, match="'dense' holds more with every token: leave it out"):
        asked("dense", 1)
    with pytest.raises(UsageError, match="budget_mib is -1.0: it must be 0 or more"):
        asked("streaming", -1.0)
    with pytest.raises(UsageError, match="budget_mib is nan: it must be 0 or more"):
        asked("streaming", float("nan"))


def test_a_window_that_is_given_beside_it_must_fit() -> None:
    model = loaded("llama")
    most = budgets.settled(asked("streaming", 0.05), model).window
    assert budgets.settled(asked("streaming", 0.05, window=most), model).window == most
    with pytest.raises(UsageError, match=f"window is 20, but {most} fits in budget_mib 0.05"):
        budgets.settled(asked("streaming", 0.05, window=20), model)
    with pytest.raises(UsageError, match="a window of 2000 take .* or a smaller --window"):
        budgets.settled(asked("streaming", 0.05, window=2000), model)


def test_models_whose_windows_bound_the_budget_are_filled_to_them() -> None:
    model = loaded("mistral")
    found = budgets.settled(asked("streaming", 10.0), model)
    assert found.attended_keys == 24  # the window that every layer of it has


def test_discarding_many_fits_small_budgets_too() -> None:
    model = loaded("llama")
    found = budgets.settled(asked("context-shift", 0.02, param=(("n_discard", 8),)), model)
    assert found.window == budgets.settled(asked("streaming", 0.02), model).window


def test_the_key_counts_it_only_where_it_is_given() -> None:
    plain = RunConfig(window=60)
    assert plain.key != replace(plain, budget_mib=4.0).key
    assert RunConfig(window=60, budget_mib=None).key == plain.key


def test_what_keeps_everything_is_one_configuration_whatever_budget_was_asked() -> None:
    dense = RunConfig(method="dense").fitted(512)
    assert RunConfig(method="dense", n_sink=0, window=12).fitted(512).key == dense.key
    assert RunConfig(method="streaming", window=12).fitted(512).window == 12
