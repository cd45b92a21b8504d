"""The streaming cache in the hands of a program: reset, reordered, in threads, under autocast."""

from __future__ import annotations

from collections.abc import Generator
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
)

from core.attending import streaming_attention
from core.cache import StreamingKVCache
from core.errors import StreamError, UsageError
from core.measure.meters import token_nll
from core.models import anatomy
from core.models.loading import Loaded
from tests.support.samples import EXACT, gap, random_ids, tiny_llama


def test_our_attention_asks_for_its_cache_and_leaves_the_model_as_it_was(
    neox: Loaded, neox_ids: Tensor
) -> None:
    before = neox.model.config._attn_implementation
    with (
        pytest.raises(StreamError, match="streaming_attention\\(model, cache\\)"),
        streaming_attention(neox.model),
    ):
        neox.model(neox_ids[:1, :5], past_key_values=DynamicCache())
    assert neox.model.config._attn_implementation == before != "streaming"


def test_a_forward_without_the_stream_is_refused_where_the_model_serves_one() -> None:
    model, ids = tiny_llama(), random_ids(1, 30)
    want, cache = model(ids).logits, StreamingKVCache(4, 20, model)
    with streaming_attention(model, cache):
        for other in ({}, {"use_cache": False}, {"past_key_values": DynamicCache()}):
            with pytest.raises(UsageError, match="and a forward was given another cache or none"):
                model(ids[:, :1], **other)
        second = StreamingKVCache(4, 40, model)
        assert gap(model(ids, past_key_values=second).logits, want) < 1e-3
        assert gap(cache.read(ids[:, :20]), want[:, :20]) < 1e-3
    assert gap(model(ids).logits, want) == 0


def test_a_reset_cache_streams_as_a_new_one(neox: Loaded, neox_ids: Tensor) -> None:
    cache, scores = StreamingKVCache(4, 30, neox.model), []
    with torch.inference_mode(), streaming_attention(neox.model):
        for _ in range(2):
            cache.reset()
            for start in range(0, 120, 40):
                chunk = neox_ids[:, start : start + 40]
                logits = neox.model(chunk, past_key_values=cache, stream=cache).logits
            cache.rebase()
            scores.append(logits)
    assert torch.equal(scores[0], scores[1])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_a_stream_goes_on_behind_the_inference_mode_that_it_began_in(mode: Any) -> None:
    model, ids = tiny_llama(layers=1), random_ids(1, 60)
    cache, want = StreamingKVCache(4, 20, model), StreamingKVCache(4, 20, model).read(ids)
    with torch.inference_mode():
        cache.read(ids[:, :30])
    with mode():
        parts = [cache.read(part) for part in torch.split(ids[:, 30:], [9, 1, 20], 1)]
    assert gap(torch.cat(parts, 1), want[:, 30:]) < 1e-3
    cache.reset()
    assert gap(cache.read(ids), want) < 1e-3


def test_a_stream_under_autocast_is_as_good_as_dense_there_and_proves_nothing_of_the_model() -> (
    None
):
    model, ids = tiny_llama(), random_ids(1, 120)
    want = token_nll(StreamingKVCache(4, 20, tiny_llama()).read(ids[:, :-1]), ids[:, 1:])
    for size in (1, 30):
        with torch.autocast("cpu", torch.bfloat16):
            cache = StreamingKVCache(4, 20, model)
            got = token_nll(cache.read(ids[:, :60]), ids[:, 1:61])
            own = token_nll(model(ids[:, :20]).logits, ids[:, 1:21])
        allowed = 3 * float((own - want[:, :20]).abs().mean())
        assert 0 < (got - want[:, :60]).abs().mean() < allowed
        parts = [cache.read(part) for part in torch.split(ids[:, 60:-1], size, 1)]  # outside it
        after = token_nll(torch.cat(parts, 1), ids[:, 61:])
        assert (after - want[:, 60:]).abs().mean() < allowed
    assert anatomy.of(model).largest_nats < EXACT


def test_a_model_that_trains_is_looked_at_without_dropout_and_trains_on() -> None:
    model, ids = tiny_llama(), random_ids(1, 60)
    want = StreamingKVCache(4, 20, tiny_llama()).read(ids)
    model.train()
    model.lm_head.eval()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    cache = StreamingKVCache(4, 20, model)
    assert model.training and model.model.layers[0].training and not model.lm_head.training
    now = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{now}_checkpointing_enable")()
    with pytest.raises(UsageError, match=r"checkpointing .* call model.eval\(\)"):
        cache.read(ids)
    model.eval()
    assert gap(cache.read(ids), want) < 1e-3


def test_models_stream_in_threads_of_their_own_and_one_model_in_one_at_a_time() -> None:
    ids, errors = random_ids(1, 60), list[BaseException]()
    sizes = (4, 20), (2, 9)
    models, began = [tiny_llama(layers=1), tiny_llama(layers=1)], Barrier(2)
    wants = [StreamingKVCache(*each, models[0]).read(ids) for each in sizes]

    def stream(model: Any, which: int) -> None:
        try:
            cache = StreamingKVCache(*sizes[which], model)
            with streaming_attention(model, cache):
                began.wait()
                for _ in range(3):
                    cache.reset()
                    parts = [cache.read(part) for part in torch.split(ids, 7, 1)]
                    assert gap(torch.cat(parts, 1), wants[which]) < 1e-3
                began.wait()
        except BaseException as error:
            began.abort()
            errors.append(error)

    def both(*pair: Any) -> None:
        threads = [Thread(target=stream, args=(model, i)) for i, model in enumerate(pair)]
        for act in ("start", "join"):
            for thread in threads:
                getattr(thread, act)()

    both(*models)
    assert not errors
    both(models[0], models[0])
    assert any("serves another stream in another thread" in str(error) for error in errors)
    assert not any(
        isinstance(error, AssertionError | RuntimeError) for error in errors if str(error)
    )
    assert models[0].config._attn_implementation == "sdpa"
    assert gap(StreamingKVCache(*sizes[0], models[0]).read(ids), wants[0]) < 1e-3


def test_two_models_attend_through_ours_at_once_and_either_may_end_first() -> None:
    (first, second), ids = (tiny_llama(layers=1), tiny_llama(layers=1)), random_ids(1, 60)
    want, cache = StreamingKVCache(4, 20, first).read(ids), StreamingKVCache(4, 20, second)
    one, other = streaming_attention(first), streaming_attention(second)
    one.__enter__()
    with other:
        one.__exit__(None, None, None)
        parts = [
            second(part, past_key_values=cache, stream=cache).logits
            for part in torch.split(ids, 7, 1)
        ]
    assert gap(torch.cat(parts, 1), want) < 1e-3


def test_rows_can_be_reordered_for_beam_search(neox: Loaded, neox_ids: Tensor) -> None:
    swapped = torch.tensor([1, 0])
    cache = StreamingKVCache(4, 30, neox.model)
    with torch.inference_mode(), streaming_attention(neox.model):
        neox.model(neox_ids[:, :80], past_key_values=cache, stream=cache)
        cache.reorder_cache(swapped)
        got = neox.model(neox_ids[swapped, 80:81], past_key_values=cache, stream=cache).logits
        whole = StreamingKVCache(4, 30, neox.model)
        want = neox.model(neox_ids[:, :81], past_key_values=whole, stream=whole).logits[:, -1:]
    assert gap(got, want[swapped]) < EXACT


def test_a_reset_cache_takes_other_rows_and_number_formats() -> None:
    model, ids = tiny_llama(layers=1), random_ids(3, 40)
    cache, want = StreamingKVCache(4, 20, model), StreamingKVCache(4, 20, model).read(ids)
    for rows in (1, 3, 2):
        cache.reset()
        assert gap(cache.read(ids[:rows]), want[:rows]) < 1e-3
    model.to(torch.float64)
    cache.reset()
    assert gap(cache.read(ids[:2]), want[:2].double()) < 1e-3
    assert cache.layers[0].keys.dtype == torch.float64


@pytest.mark.parametrize("rows", [1, 3])
def test_other_rows_than_the_streams_are_refused_and_leave_it_as_it_is(rows: int) -> None:
    model, ids = tiny_llama(layers=1), random_ids(3, 40)
    cache, want = StreamingKVCache(4, 20, model), StreamingKVCache(4, 20, model).read(ids)
    cache.read(ids[:2, :30])
    for c in (1, 5):
        with pytest.raises(UsageError, match=f"{rows} rows are given to a stream of 2"):
            cache.read(ids[:rows, 30 : 30 + c])
    assert gap(cache.read(ids[:2, 30:]), want[:2, 30:]) < 1e-3


@pytest.mark.parametrize("shape", [(5,), (1, 0)])
def test_what_is_no_token_for_every_row_is_refused_in_a_line(shape: tuple[int, ...]) -> None:
    cache = StreamingKVCache(4, 20, tiny_llama(layers=1))
    with pytest.raises(UsageError, match="tokens of shape .* can't be read"):
        cache.read(torch.zeros(shape, dtype=torch.int64))


def test_sizes_and_tokens_of_another_kind_are_refused_in_a_line() -> None:
    model, ids = tiny_llama(layers=1), random_ids(1, 10)
    with pytest.raises(UsageError, match="window is 20.0: it must be a whole number"):
        StreamingKVCache(4, 20.0, model)  # type: ignore[arg-type]
    cache = StreamingKVCache(4, 20, model)
    with pytest.raises(UsageError, match="list can't be read"):
        cache.read(ids.tolist())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="keep is -1"):
        cache.read(ids, keep=-1)


def test_forwards_that_keep_gradients_keep_those_of_one_forward_alone() -> None:
    model, ids = tiny_llama(layers=1).requires_grad_(True), random_ids(1, 60)
    cache, parts = StreamingKVCache(4, 20, model), list[Tensor]()
    for token in torch.split(ids, 1, 1):
        parts.append(model(token, past_key_values=cache).logits)
        torch.autograd.backward(parts[-1].sum())  # impossible through the step before
    assert gap(torch.cat(parts, 1).detach(), StreamingKVCache(4, 20, model).read(ids)) < 1e-3


def test_a_forward_in_another_thread_is_refused_amid_a_stream() -> None:
    model, ids, errors = tiny_llama(layers=1), random_ids(1, 30), list[BaseException]()
    want, cache = StreamingKVCache(0, 20, model).read(ids), StreamingKVCache(0, 20, model)

    def dense() -> None:
        try:
            model(ids, use_cache=False)
        except UsageError as error:
            errors.append(error)

    def amid(*_: Any) -> None:
        hook.remove()
        thread = Thread(target=dense)
        thread.start()
        thread.join()

    hook = model.model.norm.register_forward_pre_hook(amid)
    assert gap(cache.read(ids), want) == 0
    assert "serves another stream in another thread" in str(errors[0])


def test_a_model_serves_one_stream_at_a_time_and_is_as_it_was_however_blocks_end() -> None:
    model, ids = tiny_llama(layers=1), random_ids(1, 30)
    want = model(ids).logits

    def served() -> Generator[None]:
        with streaming_attention(model, StreamingKVCache(4, 20, model)):
            yield

    first, second = served(), served()
    next(first)
    with pytest.raises(UsageError, match="another one was to be served"):
        next(second)
    first.close()
    one, other = streaming_attention(model), streaming_attention(model)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    other.__exit__(None, None, None)
    assert model.config._attn_implementation == "sdpa" and "generate" not in vars(model)
    assert gap(model(ids).logits, want) == 0
    next(second := served())
    second.close()


def test_hidden_states_that_the_configuration_asks_for_are_those_of_the_whole_prompt() -> None:
    model, ids = tiny_llama(layers=1), random_ids(1, 1100)
    model.config.output_hidden_states = True
    made = model(ids, past_key_values=StreamingKVCache(4, 20, model), logits_to_keep=1)
    assert made.hidden_states[0].shape[1] == 1100


def test_frequencies_that_a_user_sets_are_kept_and_looked_at_anew() -> None:
    model, ids = tiny_llama(), random_ids(1, 20)
    StreamingKVCache(4, 20, model)
    model.model.rotary_emb.inv_freq /= 4  # as for a longer context
    want = model(ids).logits
    cache = StreamingKVCache(4, 20, model)
    assert gap(cache.read(ids), want) < 1e-3 and gap(model(ids).logits, want) == 0
    assert cache.found is not StreamingKVCache(4, 20, tiny_llama()).found
    other = tiny_llama()
    other.model.rotary_emb.inv_freq /= 4
    more = random_ids(1, 80)
    cache.reset()
    assert gap(cache.read(more), StreamingKVCache(4, 20, other).read(more)) < 1e-3
