"""The pipeline that kvpress times: what is scored in it, and what the compression really was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core import registry, runner
from core.config import RunConfig
from core.errors import UsageError
from core.models.loading import Loaded
from core.result import RunResult
from tests.support.evaluated import evaluate
from tests.support.method_cases import BUDGET, CASES, need
from tests.support.samples import EXACT, watched_attention

CONTEXT, SCORED = 60, 40
KEPT = {"dense": CONTEXT, "kvpress-stock": CONTEXT, "recompute": 0, "context-shift": 12}


@pytest.fixture
def ids(neox_ids: Tensor) -> Tensor:
    return neox_ids[0, : CONTEXT + SCORED + 1]


def official(loaded: Loaded, *documents: Tensor, **asked: Any) -> RunResult:
    return evaluate(loaded, list(documents), **{"mode": "kvpress-official", **asked})


@pytest.mark.parametrize("method", registry.METHODS)
def test_every_method_runs_and_tells_what_it_compressed(
    neox: Loaded, ids: Tensor, method: str
) -> None:
    need(method)
    result = official(neox, ids, method=method, context_tokens=CONTEXT)
    assert result.scored_tokens == len(result.latency_ms) == SCORED
    assert (result.keys_before, result.keys_after) == (CONTEXT, KEPT.get(method, BUDGET - 1))
    said = " ".join(result.notes)
    assert (f"all {CONTEXT} keys of the context stayed" in said) == (result.keys_after == CONTEXT)
    assert (f"of the context's {CONTEXT} keys {result.keys_after} were left" in said) == (
        0 < (result.keys_after or 0) < CONTEXT
    )
    assert result.total_s == pytest.approx(
        result.prefill_s + float(result.latency_ms.sum()) / 1000, rel=1e-5
    )
    assert result.ms_per_token_p50 is not None and result.prefill_s > 0


@pytest.mark.parametrize("method", ["streaming", "window", "recompute", "dense"])
def test_the_continuation_scores_as_the_same_tokens_of_the_whole_stream(
    neox: Loaded, ids: Tensor, method: str
) -> None:
    want = CASES[method](neox.model, ids)[CONTEXT:]
    result = official(neox, ids, method=method, context_tokens=CONTEXT)
    assert float((torch.from_numpy(result.nll) - want).abs().max()) < EXACT


@pytest.mark.parametrize("method", ["mit", "kvpress", "kvpress-interval", "kvpress-prefill"])
def test_a_context_that_fits_leaves_nothing_to_compress(
    neox: Loaded, ids: Tensor, method: str
) -> None:
    need(method)
    result = official(neox, ids[:30], method=method, context_tokens=15)
    want = CASES["dense" if method == "kvpress-prefill" else method](neox.model, ids[:30])[15:]
    if method == "kvpress-interval":
        want = CASES["dense"](neox.model, ids[:30])[15:]  # it evicts after 64 steps
    assert float((torch.from_numpy(result.nll) - want).abs().max()) < EXACT
    assert result.keys_before == result.keys_after == 15


def test_cut_contexts_agree_between_the_two_that_attend_to_them_in_full(
    neox: Loaded, ids: Tensor
) -> None:
    need("kvpress")
    mit, pressed = (official(neox, ids, method=method) for method in ("mit", "kvpress"))
    assert abs(mit.nll - pressed.nll).max() < EXACT
    assert "mit's context attends to all of itself, up to 75 keys" in " ".join(mit.notes)


@pytest.mark.parametrize(
    ("method", "least", "most"),
    [
        ("mit", BUDGET, BUDGET),
        ("kvpress", BUDGET, BUDGET),
        ("kvpress-interval", BUDGET, BUDGET + 4),
        ("kvpress-stock", BUDGET, CONTEXT + 1),
        ("kvpress-prefill", BUDGET, BUDGET - 1 + SCORED),
        ("dense", CONTEXT + 1, CONTEXT + SCORED),
    ],
)
def test_attended_keys_are_those_of_the_scored_tokens(
    neox: Loaded,
    ids: Tensor,
    method: str,
    least: int,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need(method)
    counts = watched_attention(monkeypatch)
    every = {"evict_every": 5} if method == "kvpress-interval" else {}
    result = official(neox, ids, method=method, context_tokens=CONTEXT, **every)
    scored = counts[CONTEXT:]
    assert (min(scored), max(scored)) == (least, most)
    assert (result.attended_keys_min, result.attended_keys_max) == (least, most)
    assert result.attended_keys_mean == pytest.approx(sum(scored) / len(scored))


def test_a_context_is_three_quarters_of_each_document_and_short_ones_are_left_out(
    neox: Loaded, ids: Tensor
) -> None:
    result = official(neox, ids[:101], ids[:2], ids[50:80])
    assert [document.scored_tokens for document in result.documents] == [25, 7]
    assert (result.keys_before, result.keys_after) == (75, BUDGET - 1)
    assert "1 document was left out" in result.notes[-1]
    text = neox.tokenizer.decode(ids[76:101])
    assert result.documents[0].utf8_bytes == len(text.encode())
    with pytest.raises(UsageError, match="context_tokens is 100 and 2 more.*longest document has"):
        official(neox, ids, context_tokens=100)


def test_its_options_are_for_this_mode_only() -> None:
    with pytest.raises(UsageError, match="context_tokens is for mode 'kvpress-official'"):
        RunConfig(context_tokens=10)
    with pytest.raises(UsageError, match="context_tokens is 0"):
        RunConfig(mode="kvpress-official", context_tokens=0)
    with pytest.raises(UsageError, match="timed_tokens is for mode 'decode-loop'"):
        RunConfig(mode="kvpress-official", timed_tokens=10)
    with pytest.raises(UsageError, match="one context at a time"):
        RunConfig(mode="kvpress-official", batch_size=2)


def test_a_stored_configuration_says_when_it_evicts(neox: Loaded) -> None:
    base = RunConfig(dataset="bundled-narrative", max_tokens=50, device="cpu", source="bundled")
    text = runner.read_text(base, neox)
    for method, every in (("streaming", 1), ("kvpress-interval", 64)):
        need(method)
        asked = replace(base, method=method)
        assert runner.prepare(asked, neox, text).config.evict_every == every
