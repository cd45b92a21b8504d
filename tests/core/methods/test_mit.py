"""The authors' cache: a token as the naive loop has it, a chunk as their own code has it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from core.errors import UsageError
from core.methods.mit import StartRecentKVCache
from core.models.loading import Loaded
from tests.support.samples import (
    EXACT,
    ROPES,
    around,
    fed_nll,
    gap,
    method_of,
    naive_nll,
    random_ids,
    tiny_llama,
    watched_attention,
    windowed_nll,
)


@pytest.mark.parametrize(("n_sink", "window"), [(4, 12), (0, 16), (1, 1), (7, 3)])
def test_one_token_at_a_time_equals_full_rerotation_on_a_trained_gpt_neox(
    neox: Loaded, neox_ids: Tensor, n_sink: int, window: int
) -> None:
    ids = neox_ids[:, :70]
    want = naive_nll(neox.model, ids, n_sink, window)
    assert gap(fed_nll(neox, ids, 1, method_of("mit", n_sink=n_sink, window=window)), want) < EXACT


@pytest.mark.parametrize("rope", ROPES)
def test_one_token_at_a_time_equals_full_rerotation_on_a_llama_with_grouped_queries(
    neox: Loaded, rope: str
) -> None:
    loaded, ids = replace(neox, model=tiny_llama(ROPES[rope])), random_ids(1, 260)
    want = naive_nll(loaded.model, ids, 4, 12)
    assert gap(fed_nll(loaded, ids, 1, method_of("mit", window=12)), want) < EXACT


@pytest.mark.parametrize("size", [8, 30, 50])
def test_a_chunk_finds_the_recent_keys_that_leave_room_for_it(
    neox: Loaded, neox_ids: Tensor, size: int
) -> None:
    ids = neox_ids[:1, :161]
    held = [max(0, min(start, 31 - min(size, 160 - start))) for start in range(0, 160, size)]
    want = windowed_nll(neox.model, ids, held, size)
    method = method_of("mit", n_sink=0, window=31, mode="chunked", chunk_size=size)
    assert gap(fed_nll(neox, ids, size, method), want) < EXACT


@pytest.mark.parametrize("size", [1, 5, 27, 28, 31, 40, 79])
def test_attended_keys_are_those_that_the_attention_sees(
    neox: Loaded, neox_ids: Tensor, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = method_of("mit", mode="chunked", chunk_size=size)
    counts = watched_attention(monkeypatch)
    fed_nll(neox, neox_ids[:1, :80], size, method)
    feeds = [min(size, 79 - start) for start in range(0, 79, size)]
    assert counts == method.attended(feeds).tolist()


@pytest.mark.parametrize("every", [2, 9])
def test_evicting_every_k_steps_equals_a_loop_that_does(
    neox: Loaded, neox_ids: Tensor, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, method = neox_ids[:1, :70], method_of("mit", window=12, evict_every=every)
    want = naive_nll(neox.model, ids, 4, 12, every)
    counts = watched_attention(monkeypatch)
    assert gap(fed_nll(neox, ids, 1, method), want) < EXACT
    seen = method.attended([1] * 69)
    assert counts == seen.tolist()
    ours = method_of("streaming", window=12, evict_every=every)
    assert ours.attended([1] * 69).tolist() == ours.attended([69]).tolist() == counts


def test_a_chunk_says_how_it_differs_and_a_token_has_nothing_to_say(neox: Loaded) -> None:
    (note,) = method_of("mit", mode="chunked", chunk_size=8).notes(neox, 100)
    assert "finds 23 keys, its first token sees 24 and its last 31" in note and "shows 32" in note
    whole = method_of("mit", mode="chunked", chunk_size=99)
    assert "nothing is evicted" in whole.notes(neox, 100)[0]
    assert "its last 103" in whole.notes(neox, 101)[0]  # 4 keys and a chunk
    assert not method_of("mit").notes(neox, 100)
    assert not method_of("mit", mode="chunked", chunk_size=8).notes(neox, 31)


def test_keys_are_kept_unrotated_and_in_order(neox: Loaded, neox_ids: Tensor) -> None:
    """The keys of the first layer depend on their token only, wherever it was read."""
    cache = StartRecentKVCache(4, 27, neox.model)
    with torch.inference_mode():
        for t in range(50):
            neox.model(neox_ids[:1, t : t + 1], past_key_values=cache)
            cache.evict()
        whole = StartRecentKVCache(4, 500, neox.model)
        neox.model(neox_ids[:1, :50], past_key_values=whole)
    kept = [*range(4), *range(50 - 27, 50)]
    assert gap(cache.layers[0].keys, whole.layers[0].keys[:, :, kept]) < 1e-5
    assert gap(cache.layers[0].values, whole.layers[0].values[:, :, kept]) < 1e-5


def test_a_reset_cache_streams_as_a_new_one(neox: Loaded, neox_ids: Tensor) -> None:
    cache, logits = StartRecentKVCache(4, 27, neox.model), []
    with torch.inference_mode():
        for _ in range(2):
            cache.reset()
            cache.evict_for_space(20)
            logits.append(neox.model(neox_ids[:1, :20], past_key_values=cache).logits)
    assert torch.equal(*logits)


def test_what_cannot_be_placed_is_refused() -> None:
    small = {"hidden_size": 32, "num_attention_heads": 2, "vocab_size": 50}
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50))
    with pytest.raises(UsageError, match="no rotary positions"):
        StartRecentKVCache(4, 8, gpt2)
    config = MistralConfig(
        **small, num_hidden_layers=1, num_key_value_heads=1, intermediate_size=32, sliding_window=48
    )
    with pytest.raises(UsageError, match="window of 48 that every layer"):
        StartRecentKVCache(4, 44, MistralForCausalLM(config))
    model = tiny_llama(ROPES["dynamic"])
    with pytest.raises(UsageError, match="beyond 256"):
        StartRecentKVCache(4, 252, model)
    with pytest.raises(UsageError, match="beyond 256"):
        StartRecentKVCache(4, 100, model).evict_for_space(300)
    with pytest.raises(UsageError, match="window 1 or more"):
        StartRecentKVCache(4, 0, model)


def test_keys_that_wait_for_eviction_count_where_a_model_can_place_only_so_many() -> None:
    model = tiny_llama({"rope_type": "dynamic", "factor": 2.0})
    changing = around(model)
    method_of("mit", window=240).start(changing, 1)
    with pytest.raises(UsageError, match="308 positions are needed"):
        method_of("mit", window=240, evict_every=64).start(changing, 1)
