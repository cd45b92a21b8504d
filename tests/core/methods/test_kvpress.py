"""The package kvpress: exact as the paper means it, and how it fails as shipped."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from core import registry
from core.config import RunConfig
from core.errors import UsageError
from core.methods import press
from core.methods.press import PressStream
from core.models.loading import Loaded
from core.proof.reference import dense_nll
from core.proof.verify import in_half
from tests.support.method_cases import need
from tests.support.samples import (
    EXACT,
    ROPES,
    fed_nll,
    gap,
    method_of,
    naive_nll,
    random_ids,
    tiny_llama,
    watched_attention,
    windowed_nll,
)

FOUR = ("kvpress", "kvpress-interval", "kvpress-stock", "kvpress-prefill")


@pytest.fixture
def kvpress() -> Any:
    need("kvpress")
    return press.load()


@pytest.mark.parametrize(("n_sink", "window"), [(4, 12), (0, 16), (7, 3)])
def test_one_token_at_a_time_equals_full_rerotation_on_a_trained_gpt_neox(
    kvpress: Any, neox: Loaded, neox_ids: Tensor, n_sink: int, window: int
) -> None:
    ids = neox_ids[:, :70]
    want = naive_nll(neox.model, ids, n_sink, window)
    method = method_of("kvpress", n_sink=n_sink, window=window)
    assert gap(fed_nll(neox, ids, 1, method), want) < EXACT


@pytest.mark.parametrize("rope", ["default", "yarn", "llama3"])
def test_one_token_at_a_time_equals_full_rerotation_on_a_llama_with_grouped_queries(
    kvpress: Any, neox: Loaded, rope: str
) -> None:
    loaded, ids = replace(neox, model=tiny_llama(ROPES[rope])), random_ids(1, 260)
    want = naive_nll(loaded.model, ids, 4, 12)
    assert gap(fed_nll(loaded, ids, 1, method_of("kvpress", window=12)), want) < EXACT


@pytest.mark.parametrize("every", [1, 2, 9, 20])
def test_an_interval_lets_keys_pile_up(
    kvpress: Any, neox: Loaded, neox_ids: Tensor, every: int
) -> None:
    ids = neox_ids[:1, :70]
    method = method_of("kvpress-interval", window=12, evict_every=every)
    want = naive_nll(neox.model, ids, 4, 12, every)
    assert gap(fed_nll(neox, ids, 1, method), want) < EXACT
    seen = method.attended([1] * 69)
    assert (int(seen[21:].min()), int(seen.max())) == (17, 16 + every)


@pytest.mark.parametrize("size", [8, 50])
def test_a_chunk_sees_what_the_step_before_it_has_left(
    kvpress: Any, neox: Loaded, neox_ids: Tensor, size: int
) -> None:
    ids = neox_ids[:1, :121]
    held = [min(start, 31) for start in range(0, 120, size)]
    method = method_of("kvpress", n_sink=0, window=31, mode="chunked", chunk_size=size)
    got = fed_nll(neox, ids, size, method)
    assert gap(got, windowed_nll(neox.model, ids, held, size)) < EXACT
    assert f"{31 + size} at most" in method.notes(neox, 121)[-1]


@pytest.mark.parametrize("size", [1, 8, 31, 40, 79])
@pytest.mark.parametrize("name", FOUR)
def test_attended_keys_are_those_that_the_attention_sees(
    kvpress: Any,
    neox: Loaded,
    neox_ids: Tensor,
    name: str,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every = {"evict_every": 5} if name == "kvpress-interval" else {}
    method = method_of(name, mode="chunked", chunk_size=size, **every)
    counts = watched_attention(monkeypatch)
    fed_nll(neox, neox_ids[:1, :80], size, method)
    feeds = [min(size, 79 - start) for start in range(0, 79, size)]
    assert counts == method.attended(feeds).tolist()
    words = [note for note in method.notes(neox, 80) if "at most" in note]
    if words:
        assert max(counts) <= int(words[0].split(" at most")[0].split()[-1])


def kept_tokens(loaded: Loaded, ids: Tensor, name: str) -> list[set[int]]:
    """The tokens that each head of the first layer has kept, known by their values."""
    stream = method_of(name).start(loaded, 1)
    assert isinstance(stream, PressStream)
    with torch.inference_mode():
        whole = transformers.DynamicCache()
        loaded.model(ids, past_key_values=whole)
        for t in range(ids.shape[1]):
            stream.feed(ids[:, t : t + 1])
    values, every = stream.cache.layers[0].values[0], whole.layers[0].values[0]
    near = torch.cdist(values, every).argmin(-1)  # (K, n)
    return [set(head) for head in near.tolist()]


def test_the_stock_press_loses_its_sinks_and_the_exact_one_does_not(
    kvpress: Any, neox: Loaded, neox_ids: Tensor
) -> None:
    first = {int(token): place for place, token in reversed(list(enumerate(neox_ids[0, :120])))}
    ids = neox_ids[:1, sorted(first.values())][:, :60]  # each token once, so that values tell
    total = ids.shape[1]
    right = set(range(4)) | set(range(total - 27, total))
    assert all(kept == right for kept in kept_tokens(neox, ids, "kvpress"))
    assert all(not set(range(4)) <= kept for kept in kept_tokens(neox, ids, "kvpress-stock"))


def test_the_stock_press_scores_worse(kvpress: Any, trained: Loaded, neox_ids: Tensor) -> None:
    ids = neox_ids[:, :120]
    exact = fed_nll(trained, ids, 1, method_of("kvpress"))
    stock = fed_nll(trained, ids, 1, method_of("kvpress-stock"))
    assert gap(stock[:, :32], exact[:, :32]) < EXACT  # nothing was evicted yet
    assert float((stock - exact)[:, 40:].mean()) > 0.05
    assert gap(stock, exact) > 0.5


def test_the_stock_press_queries_at_the_length_of_the_cache_or_of_the_stream() -> None:
    assert method_of("kvpress-stock").positions == "mixed"
    assert method_of("kvpress-stock", mode="kvpress-official").positions == "absolute"


def test_a_prompt_is_cut_once_and_nothing_is_evicted_later(
    kvpress: Any, neox: Loaded, neox_ids: Tensor
) -> None:
    stream = method_of("kvpress-prefill", window=46).start(neox, 1)
    with torch.inference_mode():
        stream.feed(neox_ids[:1, :100], keep=1)
        assert stream.held() == 50
        for t in range(100, 160):
            stream.feed(neox_ids[:1, t : t + 1])
    assert stream.held() == 110


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision_step_by_step_rotation_drifts_and_mit_and_ours_do_not(
    kvpress: Any, trained: Loaded, neox_ids: Tensor, dtype: str
) -> None:
    ids, half = neox_ids[:1, :200], replace(trained, model=in_half(trained.model, dtype))
    want = fed_nll(trained, ids, 50, method_of(window=60))
    dense = [dense_nll(each.model, ids) for each in (trained, half)]
    rounding = float((dense[1] - dense[0]).abs().mean())

    def error(name: str) -> float:
        method = method_of(name, window=60, dtype=dtype)
        return float((fed_nll(half, ids, 1, method) - want).abs().mean()) / rounding

    assert error("streaming") < 1.2 and error("mit") < 1.2
    assert error("kvpress") > 1.3


def test_notes_name_the_package_the_press_and_what_it_is_not(
    kvpress: Any, neox: Loaded, neox_ids: Tensor
) -> None:
    def said(name: str, **asked: Any) -> str:
        return " ".join(method_of(name, **asked).notes(neox, 200))

    assert "kvpress 0.5" in said("kvpress") and "KeyRerotationPress" in said("kvpress")
    assert "drift" not in said("kvpress") and "drift" in said("kvpress", dtype="bfloat16")
    assert "up to 63 keys beyond the budget" in said("kvpress-interval")
    assert "as shipped" in said("kvpress-stock") and "loses the sinks" in said("kvpress-stock")
    assert "not streaming" in said("kvpress-prefill") and "dense" in said("kvpress-prefill")
    assert "cut to 31" in said("kvpress-prefill", mode="chunked")


def test_a_press_leaves_the_model_and_transformers_as_they_were(
    kvpress: Any, neox: Loaded, neox_ids: Tensor
) -> None:
    ids, modules = neox_ids[:1, :40], [name for name, _ in neox.model.named_modules()]
    before = dict(ALL_ATTENTION_FUNCTIONS)
    others = ("streaming", "mit", "recompute", "dense")
    scores = [fed_nll(neox, ids, 1, method_of(name)) for name in others]
    hooks = [list(module._forward_hooks) for module in neox.model.modules()]
    for name in FOUR:
        fed_nll(neox, ids, 1, method_of(name))
    assert all(ALL_ATTENTION_FUNCTIONS[name] is function for name, function in before.items())
    assert [name for name, _ in neox.model.named_modules()] == modules
    assert [list(module._forward_hooks) for module in neox.model.modules()] == hooks
    again = [fed_nll(neox, ids, 1, method_of(name)) for name in others]
    assert all(torch.equal(a, b) for a, b in zip(scores, again, strict=True))


def test_importing_the_package_patches_transformers_and_ours_does_not(kvpress: Any) -> None:
    code = """
import sys, warnings
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as table
before, filters = dict(table), list(warnings.filters)
from core import registry
from core.methods import kvpress, press
assert "kvpress" not in sys.modules
press.load()
assert "kvpress" in sys.modules and warnings.filters == filters
assert set(table) == set(before) and all(table[name] is before[name] for name in before)
sys.modules["kvpress"].patch_attention_functions()
assert all(table[name] is not before[name] for name in before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_the_package_one_line_says_what_to_install(
    neox: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("core.methods.press.transformers.__version__", "5.2.0")
    monkeypatch.setattr(press, "import_module", absent)
    for name in FOUR:
        method = registry.load("method", name)(RunConfig(method=name, window=27))
        with pytest.raises(UsageError, match=r"not installed: pip install 'streamcli\[kvpress\]'"):
            method.start(neox, 1)
    monkeypatch.setattr(press, "import_module", lambda name: import_module("no_such_part"))
    with pytest.raises(UsageError, match="can't be imported.*no_such_part"):
        press.load()


def test_a_newer_transformers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.methods.press.transformers.__version__", "5.3.0")
    with pytest.raises(UsageError, match="below 5.3, and 5.3.0 is installed"):
        press.load()


def test_models_whose_positions_cannot_be_moved_are_refused(kvpress: Any, neox: Loaded) -> None:
    config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50)
    loaded = replace(neox, model=transformers.GPT2LMHeadModel(config))
    with pytest.raises(UsageError, match="no rotary positions"):
        method_of("kvpress").start(loaded, 1)


def test_methods_with_a_rule_of_their_own_do_not_evict_lazily() -> None:
    assert RunConfig(method="kvpress-interval").steps_between_evictions() == 64
    assert RunConfig(method="kvpress-interval", evict_every=3).steps_between_evictions() == 3
    assert RunConfig(method="streaming", evict_every=1).steps_between_evictions() == 1
    assert RunConfig(method="streaming", evict_every=2).steps_between_evictions() == 2
    for method in ("kvpress", "kvpress-stock", "recompute", "dense"):
        with pytest.raises(UsageError, match="evict_every is 2.*kvpress-interval"):
            RunConfig(method=method, evict_every=2)
    with pytest.raises(UsageError, match="evict_every is 2, but 'mit' evicts before every chunk"):
        RunConfig(method="mit", mode="chunked", evict_every=2)
    with pytest.raises(UsageError, match="evict_every is 0"):
        RunConfig(method="kvpress-interval", evict_every=0)
