"""The streaming cache against the naive token loop, and against what must not change."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.llama import modeling_llama

from core import attention, engine
from core import cache as caches
from core.attending import streaming_attention
from core.cache import StreamingKVCache
from core.errors import UsageError
from core.measure.meters import token_nll
from core.models import anatomy, shapes
from core.models.layers import Anatomy
from core.models.loading import Loaded
from core.proof.verify import in_half
from tests.support.samples import EXACT, ROPES, gap, ids_of, naive_nll, random_ids, tiny_llama

LENGTH, MIXED = 70, [1, 30, 3, 1, 1, 40]  # tokens of a text, and of chunks in turn


@torch.inference_mode()
def stream_nll(
    model: Any,
    ids: Tensor,
    n_sink: int,
    window: int,
    chunks: int | list[int],
    rebase_every: int = 0,
    evict_every: int = 1,
) -> Tensor:
    """Nats of ids[:, 1:], fed in chunks of one size or of several in turn."""
    cache = StreamingKVCache(n_sink, window, model, evict_every)
    sizes = [chunks] if isinstance(chunks, int) else chunks
    parts, start, turn, last = [], 0, 0, ids.shape[1] - 1
    with streaming_attention(model, cache):
        while start < last:
            stop = min(start + sizes[turn % len(sizes)], last)
            cache.make_room(stop - start)
            if rebase_every and turn % rebase_every == 0:
                cache.rebase()
            logits = model(ids[:, start:stop], past_key_values=cache).logits
            parts.append(token_nll(logits, ids[:, start + 1 : stop + 1]))
            start, turn = stop, turn + 1
    return torch.cat(parts, dim=1)


@torch.inference_mode()
def dense_nll(model: Any, ids: Tensor) -> Tensor:
    return token_nll(model(ids[:, :-1]).logits, ids[:, 1:])


@pytest.mark.parametrize(("n_sink", "window"), [(4, 12), (0, 16), (1, 1), (7, 3)])
def test_decode_equals_full_rerotation_on_a_trained_gpt_neox(
    neox: Loaded, neox_ids: Tensor, n_sink: int, window: int
) -> None:
    ids = neox_ids[:, :LENGTH]
    want = naive_nll(neox.model, ids, n_sink, window)
    assert gap(stream_nll(neox.model, ids, n_sink, window, 1), want) < EXACT


@pytest.mark.parametrize("chunk", [1, 7, 12, 13, LENGTH - 1, MIXED], ids=str)
def test_chunked_equals_full_rerotation_for_every_chunk_size(
    neox: Loaded, neox_ids: Tensor, chunk: int | list[int]
) -> None:
    ids = neox_ids[:, :LENGTH]
    want = naive_nll(neox.model, ids, 4, 12)
    assert gap(stream_nll(neox.model, ids, 4, 12, chunk), want) < EXACT


def _one_call(parts: list[attention.Part], extra: attention.Extra) -> Tensor:
    return attention._in_one(parts, extra.scale)


@pytest.mark.parametrize("n_sink", [0, 4])
@pytest.mark.parametrize("chunk", [7, LENGTH - 1], ids=str)
def test_the_one_call_of_other_devices_equals_full_rerotation(
    neox: Loaded, neox_ids: Tensor, n_sink: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_in_parts", _one_call)
    for model, ids in ((neox.model, neox_ids[:, :LENGTH]), (tiny_llama(), random_ids(2, LENGTH))):
        want = naive_nll(model, ids, n_sink, 16 - n_sink)
        assert gap(stream_nll(model, ids, n_sink, 16 - n_sink, chunk), want) < EXACT


@pytest.mark.parametrize("chunk", [1, 9])
def test_attention_may_come_with_the_layout_of_other_kernels(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = tiny_llama(), random_ids(2, 120)  # of grouped queries
    want, plain = naive_nll(model, ids, 4, 27), scaled_dot_product_attention

    def transposed(*args: Any, **kwargs: Any) -> Tensor:  # as the memory-efficient one of CUDA
        return plain(*args, **kwargs).transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", transposed)
    monkeypatch.setattr(attention, "_in_parts", _one_call)
    assert gap(stream_nll(model, ids, 4, 27, chunk), want) < EXACT


def _on_meta(found: Anatomy) -> Anatomy:
    meta = torch.device("meta")
    moved = []
    for layer in found.layers:
        assert layer.rotation is not None
        rotation = replace(layer.rotation, inv_freq=layer.rotation.inv_freq.to(meta), device=meta)
        moved.append(replace(layer, rotation=rotation))
    return replace(found, layers=tuple(moved))


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("kind", ["neox", "llama"])
@pytest.mark.slow
def test_on_another_device_no_operation_takes_tensors_of_the_host(
    kind: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code in (modeling_gpt_neox, modeling_llama):  # torch has no autocast for such a device
        monkeypatch.setattr(code, "maybe_autocast", lambda **_: nullcontext(), raising=False)
    shape = shapes.SHAPES["tiny"] if kind == "neox" else tiny_llama().config.to_dict()
    made = AutoConfig.for_model(**shape)
    found = anatomy.of(AutoModelForCausalLM.from_config(made))  # elsewhere there are no values
    monkeypatch.setattr(anatomy, "of", lambda model: _on_meta(found))
    with torch.inference_mode(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made).half()
        cache = StreamingKVCache(4, 20, model, every)
        ids = torch.zeros(2, 16, dtype=torch.int64)
        seen, base = torch.zeros(2, 1, dtype=torch.int64)
    with torch.inference_mode(), streaming_attention(model):
        for c in (3, 16, 16, 1, 1, 7, 1):
            cache.make_room(c)
            logits = model(ids[:, :c], past_key_values=cache, stream=cache).logits
            assert token_nll(logits, ids[:, :c]).is_meta
        cache.rebase()
        assert engine.advance(model, cache, seen, base, ids[:, :1]).is_meta


@pytest.mark.parametrize("every", [2, 9, 20])
@pytest.mark.parametrize("chunk", [1, 7, LENGTH - 1, MIXED], ids=str)
def test_evicting_every_k_tokens_equals_a_loop_that_does(
    neox: Loaded, neox_ids: Tensor, every: int, chunk: int | list[int]
) -> None:
    ids = neox_ids[:1, :LENGTH]
    want = naive_nll(neox.model, ids, 4, 12, every)
    got = stream_nll(neox.model, ids, 4, 12, chunk, rebase_every=3, evict_every=every)
    assert gap(got, want) < EXACT


@pytest.mark.slow
def test_evicting_every_k_tokens_is_exact_with_grouped_queries_and_no_sinks() -> None:
    model, ids = tiny_llama(), random_ids(2, 150)
    want = naive_nll(model, ids, 0, 40, 9)
    for chunk in (1, 25):
        assert gap(stream_nll(model, ids, 0, 40, chunk, evict_every=9), want) < EXACT


def test_both_forms_equal_full_rerotation_on_a_pretrained_llama_type(smollm2: Loaded) -> None:
    ids = ids_of(smollm2, 14)[:1]
    want = naive_nll(smollm2.model, ids, 3, 5)
    for chunk in (1, 5, 13):
        assert gap(stream_nll(smollm2.model, ids, 3, 5, chunk), want) < EXACT, chunk


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("chunk", [1, 25])
@pytest.mark.slow
def test_scaled_rotary_positions_are_exact(rope: str, chunk: int) -> None:
    model, ids = tiny_llama(ROPES[rope]), random_ids(1, 260)  # beyond its 256 positions
    want = naive_nll(model, ids, 4, 12)
    # Random and sharp, this model makes four times as much of a rounding as a trained one does.
    assert gap(stream_nll(model, ids, 4, 12, chunk), want) < 2 * EXACT


def test_rotary_frequencies_that_change_with_length_refuse_what_does_not_fit() -> None:
    model = tiny_llama(ROPES["dynamic"])
    with pytest.raises(UsageError, match="beyond 256"):
        StreamingKVCache(4, 252, model)
    with pytest.raises(UsageError, match="smaller --window or --chunk-size"):
        stream_nll(model, random_ids(1, 300), 4, 200, 100)


def test_batch_rows_equal_single_rows(neox: Loaded, neox_ids: Tensor) -> None:
    ids = neox_ids[:, :70]
    for chunk in (1, 33):
        both = stream_nll(neox.model, ids, 4, 27, chunk)
        alone = [stream_nll(neox.model, row[None], 4, 27, chunk) for row in ids]
        assert gap(both, torch.cat(alone)) < EXACT


def test_a_stream_within_the_budget_equals_dense(neox: Loaded, neox_ids: Tensor) -> None:
    ids = neox_ids[:, :33]  # 32 queries, S + W + 1 = 32
    for chunk in (1, 10, 32):
        assert gap(stream_nll(neox.model, ids, 4, 27, chunk), dense_nll(neox.model, ids)) < EXACT


def test_no_sinks_and_a_window_over_everything_equals_dense(neox: Loaded, neox_ids: Tensor) -> None:
    ids = neox_ids[:, :300]
    assert gap(stream_nll(neox.model, ids, 0, 300, 37), dense_nll(neox.model, ids)) < EXACT


@pytest.mark.parametrize("chunk", [1, 16])
def test_moving_the_frame_back_changes_nothing(
    neox: Loaded, neox_ids: Tensor, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = neox_ids[:, :LENGTH]
    still = naive_nll(neox.model, ids, 4, 12)
    assert gap(stream_nll(neox.model, ids, 4, 12, chunk, rebase_every=3), still) < EXACT
    monkeypatch.setattr(caches, "REACH", 9)
    assert gap(stream_nll(neox.model, ids, 4, 12, chunk), still) < EXACT


def test_no_query_sees_a_later_token(neox: Loaded, neox_ids: Tensor) -> None:
    ids, changed = neox_ids[:1, :80].clone(), neox_ids[:1, :80].clone()
    changed[:, 60:] = 7
    for chunk in (1, 25):
        before = stream_nll(neox.model, ids, 4, 27, chunk)[:, :59]
        assert torch.equal(before, stream_nll(neox.model, changed, 4, 27, chunk)[:, :59])


def test_an_evicted_token_is_gone_and_a_sink_is_not() -> None:
    model, ids = tiny_llama(layers=1), random_ids(1, 60)  # one layer: no way round the cache
    changed = {at: ids.clone().index_fill_(1, torch.tensor([at]), 5) for at in (2, 10)}
    for chunk in (1, 17):
        nll = stream_nll(model, ids, 4, 20, chunk)
        evicted = stream_nll(model, changed[10], 4, 20, chunk)
        assert gap(evicted[:, 10 + 20], nll[:, 10 + 20]) > 1e-3  # the last query that sees token 10
        assert gap(evicted[:, 10 + 20 + 1 :], nll[:, 10 + 20 + 1 :]) < 1e-5
        assert gap(stream_nll(model, changed[2], 4, 20, chunk)[:, 50:], nll[:, 50:]) > 1e-3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_costs_streaming_no_more_than_dense(
    trained: Loaded, neox_ids: Tensor, dtype: str
) -> None:
    ids = neox_ids[:, :120]
    dense, ours = dense_nll(trained.model, ids), stream_nll(trained.model, ids, 4, 27, 30)
    half = in_half(trained.model, dtype)
    dense_error = float((dense_nll(half, ids) - dense).abs().mean())
    for chunk, moved in ((1, 0), (30, 0), (1, 30), (30, 1)):
        nll = stream_nll(half, ids, 4, 27, chunk, rebase_every=moved)
        assert float((nll - ours).abs().mean()) < 1.3 * dense_error, (chunk, moved)


def test_turning_keys_step_by_step_drifts_in_half_precision_and_ours_does_not(neox: Loaded) -> None:
    rotary = anatomy.of(neox.model).layers[0].rotation
    assert rotary is not None
    key = torch.randn(1, 1, 4, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    once, step = rotary.turn(torch.tensor([256.0])), rotary.turn(torch.tensor([1.0]))
    want, walked = once(key.float()), key
    for _ in range(256):
        walked = step(walked)
    size = float(want[..., :16].norm())
    assert float((walked.float() - want)[..., :16].norm()) / size > 0.05
    assert float((once(key).float() - want)[..., :16].norm()) / size < 0.005


def test_memory_is_what_the_formula_says_and_does_not_grow(neox: Loaded, neox_ids: Tensor) -> None:
    cache = StreamingKVCache(4, 60, neox.model)
    sizes = []
    with streaming_attention(neox.model), torch.inference_mode():
        for start in range(0, 300, 50):
            neox.model(neox_ids[:, start : start + 50], past_key_values=cache, stream=cache)
            held = [t for x in cache.layers for t in (x.keys, x.values, x.sinks)]
            sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in held))
    config = neox.model.config
    heads, dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    assert set(sizes) == {config.num_hidden_layers * 2 * heads * dim * 4 * (2 * 65 + 4)}


@pytest.mark.parametrize("decode", ["own attention", "streaming attention"])
def test_generate_with_the_cache_equals_a_loop(neox: Loaded, neox_ids: Tensor, decode: str) -> None:
    prompt = neox_ids[:1, :20]
    cache = StreamingKVCache(4, 30, neox.model)
    made = neox.model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        past_key_values=cache,
        max_new_tokens=60,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    if decode == "own attention":
        nll = stream_nll(neox.model, made, 4, 30, 1)
    else:
        nll = stream_nll(neox.model, made, 4, 30, 11)
    assert made.shape == (1, 80)
    with torch.inference_mode(), streaming_attention(neox.model):
        again = StreamingKVCache(4, 30, neox.model)
        logits = neox.model(made, past_key_values=again, stream=again).logits
    assert torch.equal(logits[:, 19:-1].argmax(-1), made[:, 20:])
    assert gap(nll, token_nll(logits[:, :-1], made[:, 1:])) < EXACT


@pytest.mark.parametrize("every", [1, 8])
def test_a_chunk_that_outgrows_the_cache_takes_our_attention_by_itself(
    neox: Loaded, neox_ids: Tensor, every: int
) -> None:
    ids, own = neox_ids[:1, :60], neox.model.config._attn_implementation
    cache, parts = StreamingKVCache(4, 30, neox.model, every), []
    with torch.inference_mode():
        for start, stop in ((0, 20), (20, 50), (50, 51), (51, 59)):
            logits = neox.model(ids[:, start:stop], past_key_values=cache).logits
            parts.append(token_nll(logits, ids[:, start + 1 : stop + 1]))
            assert neox.model.config._attn_implementation == own
    assert gap(torch.cat(parts, 1), naive_nll(neox.model, ids, 4, 30, every)) < EXACT


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}


def test_models_whose_positions_cannot_be_moved_are_refused() -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50))
    with pytest.raises(UsageError, match="'gpt2' model can't stream: it has no rotary positions"):
        StreamingKVCache(4, 8, gpt2)


def test_a_native_sliding_window_is_fine_until_the_budget_outgrows_it() -> None:
    config = MistralConfig(
        **SMALL,
        num_key_value_heads=1,
        intermediate_size=32,
        sliding_window=48,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval()
    with pytest.raises(UsageError, match="window of 48 that every layer"):
        StreamingKVCache(4, 44, model)
    ids = random_ids(1, 150) % 50
    want = naive_nll(model, ids, 4, 40)
    for chunk in (1, 30):
        assert gap(stream_nll(model, ids, 4, 40, chunk), want) < EXACT


@pytest.mark.parametrize(("n_sink", "window"), [(-1, 8), (4, 0), (4, -3)])
def test_impossible_sizes_are_refused(neox: Loaded, n_sink: int, window: int) -> None:
    with pytest.raises(UsageError, match="window and evict_every 1 or more"):
        StreamingKVCache(n_sink, window, neox.model)
