"""Half of a full cache at a time, as a loop over lists has it; one at a time is streaming."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core import cache as caches
from core.config import RunConfig
from core.engine import Engine
from core.errors import UsageError
from core.methods.base import Method
from core.models import anatomy
from core.models.loading import Loaded
from core.proof import reference
from tests.support import families
from tests.support.samples import EXACT, around, fed_nll, gap, method_of, random_ids, tiny_llama

SIZES = [(4, 27, 0), (0, 31, 5), (2, 3, 2), (4, 27, 27)]


def shifting(n_discard: int = 0, **asked: Any) -> Method:
    return method_of("context-shift", param=(("n_discard", n_discard),), **asked)


@pytest.mark.parametrize(("n_sink", "window", "n_discard"), SIZES)
def test_every_chunk_size_equals_a_loop_over_lists_on_a_trained_gpt_neox(
    neox: Loaded, neox_ids: Tensor, n_sink: int, window: int, n_discard: int
) -> None:
    ids, method = neox_ids[:, :62], shifting(n_discard, n_sink=n_sink, window=window)
    want = reference.context_shift(neox.model, ids, method.config)
    for size in (1, 7, 61):
        assert gap(fed_nll(neox, ids, size, method), want) < EXACT, size


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
@pytest.mark.slow
def test_grouped_queries_and_layers_with_a_window_of_their_own_are_exact(name: str) -> None:
    loaded = around(families.build(name))
    ids, method = families.tokens(80), shifting()
    want = reference.context_shift(loaded.model, ids, method.config)
    for size in (1, 16):
        assert gap(fed_nll(loaded, ids, size, method), want) < EXACT


def test_one_at_a_time_is_streaming_bit_for_bit(neox: Loaded, neox_ids: Tensor) -> None:
    ids = neox_ids[:, :60]
    assert torch.equal(
        fed_nll(neox, ids, 1, shifting(1)), fed_nll(neox, ids, 1, method_of("streaming"))
    )
    assert shifting(1).eviction == method_of("streaming").eviction
    assert shifting(1).notes(neox, 100) == ()


@pytest.mark.slow
def test_the_frame_may_move_under_a_static_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "REACH", 16)
    loaded = around(tiny_llama())
    ids, method = random_ids(2, 160), shifting()
    plain = fed_nll(loaded, ids, 1, method)
    real = method.start

    def stepped(*args: Any) -> Any:
        stream: Any = real(*args)
        stream.stepper = Engine(stream.model, stream.cache, "eager")
        return stream

    monkeypatch.setattr(method, "start", stepped)
    assert gap(fed_nll(loaded, ids, 1, method), plain) < EXACT


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_a_compiled_step_knows_how_many_are_dropped() -> None:
    """Caches of one shape whose evictions differ, in one process."""
    from torch._dynamo.utils import counters

    loaded, ids = around(tiny_llama(layers=1)), random_ids(1, 60)
    counters.clear()
    for n_discard in (0, 3):
        plain, compiled = (
            fed_nll(loaded, ids, 1, shifting(n_discard, engine=kind))
            for kind in ("eager", "compiled")
        )
        assert gap(compiled, plain) < EXACT
    assert counters["stats"]["unique_graphs"] == 2


def test_keys_held_and_seen_go_from_half_of_the_budget_to_all_of_it(
    neox: Loaded, neox_ids: Tensor
) -> None:
    method = shifting()
    stream, held = method.start(neox, 1), []
    with torch.inference_mode():
        for t in range(120):
            held.append(stream.held())
            stream.feed(neox_ids[:1, t : t + 1])
    seen = [each + 1 for each in held]
    assert seen == method.attended([1] * 120).tolist() == method.attended([120]).tolist()
    assert seen[31] == 32 == max(seen) and seen[32] == 32 + 1 - 14 == min(seen[32:])
    assert method.eviction == "every-14"
    assert "a query sees 19 to 32" in method.notes(neox, 120)[0]


def test_what_cannot_be_dropped_is_refused(neox: Loaded) -> None:
    with pytest.raises(UsageError, match="28 keys that are no sinks.*choose 27 or less"):
        shifting(28).start(neox, 1)
    with pytest.raises(UsageError, match="n_discard is -1: it must be 0, for half, or more"):
        RunConfig(method="context-shift", param=(("n_discard", -1),))
    other = replace(neox, model=families.build("gptj"))
    if anatomy.of(other.model).registered:
        pytest.skip("this transformers lets it take attention functions")
    with pytest.raises(UsageError, match="a 'gptj' model does not: use --method streaming"):
        shifting().start(other, 1)
    assert shifting(1).start(other, 1).held() == 0
