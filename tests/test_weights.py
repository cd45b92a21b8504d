"""Weights laid out for one token at a time: the same numbers and products, and put back."""

from __future__ import annotations

import platform
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core import floors, shapes, weights
from core.weights import reading_fast
from tests.samples import method_of, random_ids, tiny_llama

needs_kernel = pytest.mark.skipif(
    weights.kernel() is None, reason="weights.c can't be compiled on this machine"
)
LAYOUTS = [False, pytest.param(True, marks=needs_kernel)]
HALF, BRAIN = torch.float16, torch.bfloat16


def tiny_neox() -> Any:
    return shapes.build("tiny", dtype="float32", device="cpu").model


def rounded_llama(dtype: torch.dtype) -> Any:
    model = tiny_llama()
    for weight in model.parameters():
        weight.copy_(weight.to(dtype))
    return model


def fast(model: Any) -> list[weights._Fast]:
    return [module for module in model.modules() if isinstance(module, weights._Fast)]


@pytest.mark.parametrize("narrow", LAYOUTS)
def test_weights_keep_their_values_and_are_put_back_whatever_happens(narrow: bool) -> None:
    model = tiny_neox()
    before = {name: (weight, weight.clone()) for name, weight in model.named_parameters()}
    head = model.get_output_embeddings().weight
    with pytest.raises(RuntimeError, match="stop"), reading_fast(model, narrow):
        assert head.dtype == HALF if narrow else head.stride() == (1, head.shape[0])
        for name, weight in model.named_parameters():
            assert weight is before[name][0] and torch.equal(weight.float(), before[name][1])
        raise RuntimeError("stop")
    for name, weight in model.named_parameters():
        assert weight is before[name][0] and torch.equal(weight, before[name][1])
        assert weight.is_contiguous() and weight.dtype == torch.float32
    assert not fast(model) and not any("parts" in vars(module) for module in model.modules())


@pytest.mark.parametrize("narrow", LAYOUTS)
def test_a_tied_head_still_embeds(narrow: bool) -> None:
    model = rounded_llama(HALF)
    model.lm_head.weight = embedding = model.model.embed_tokens.weight
    ids = random_ids(1, 5)
    want = model(ids).logits
    with reading_fast(model, narrow):
        assert model.lm_head.weight.dtype == (HALF if narrow else torch.float32)
        assert model.model.embed_tokens.weight is embedding and embedding.dtype == torch.float32
        assert float((model(ids).logits - want).abs().max()) < 1e-4
    assert model.lm_head.weight is model.model.embed_tokens.weight is embedding


@pytest.mark.parametrize("rows", [1, 3, 20])
@pytest.mark.parametrize("narrow", LAYOUTS)
def test_a_model_says_the_same(rows: int, narrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    model, ids = tiny_neox(), random_ids(rows, 1)
    want = model(ids).logits
    with reading_fast(model, narrow):
        # the head and four of each of the two layers, or only those that are tall
        assert len(fast(model)) == (9 if narrow else 5)
        assert float((model(ids).logits - want).abs().max()) < 1e-5


@needs_kernel
@pytest.mark.parametrize("dtype", [HALF, BRAIN])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 97, 64), (3, 4, 16), (8, 3, 1024)])
def test_a_product_in_16_bits_is_that_of_the_same_numbers_in_float32(
    dtype: torch.dtype, m: int, n: int, k: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(rows, k, generator=generator) for rows in (m, n))
    w[0, :8] = torch.tensor([0.0, -0.0, 6e-8, -6e-8, 65504, 2**-14, 2**-24, -1])  # subnormal, most
    kept = w.to(dtype)
    got = weights._product(x, kept, 1)
    want = x.double() @ kept.double().t()
    assert got.dtype == torch.float32 and got.shape == (m, n)
    assert float(((got - want).abs() / (x.abs().double() @ kept.double().abs().t())).max()) < 1e-6
    alone = torch.zeros(1, k)
    for at in (2, 6):  # a subnormal number by itself is not taken for zero
        alone.zero_()[0, at] = 1
        assert weights._product(alone, kept, 1)[0, 0] == kept[0, at].float() != 0


def test_only_weights_that_are_exact_in_16_bits_are_kept_in_them() -> None:
    exact = torch.tensor([1.0, 0.5, -3.140625, 2.0**-20] * 4)[None]
    kept = weights._narrowed(exact.half().float())
    assert kept is not None and kept.dtype == HALF
    wide = torch.tensor([1e30, -1e-30, 3.0, 1.0] * 4)[None].bfloat16().float()  # beyond float16
    kept = weights._narrowed(wide)
    assert kept is not None and kept.dtype == BRAIN and torch.equal(kept.float(), wide)
    for lost in (torch.full((1, 16), 0.1), torch.full((1, 16), torch.nan), torch.ones(1, 17)):
        assert weights._narrowed(lost) is None


def test_a_run_says_how_its_weights_were_read() -> None:
    loaded: Any = SimpleNamespace(model=rounded_llama(BRAIN), trained_length=256)
    said = {
        kind: method_of("streaming", engine=kind).notes(loaded, 99)
        for kind in ("eager", "compiled")
    }
    assert said["eager"] == (weights.FAST,)
    narrow = (weights.NARROW,) if weights.kernel() else ()
    assert said["compiled"] == (weights.FAST, *narrow)
    loaded.model = tiny_llama()  # as wide as float32
    assert method_of("streaming", engine="compiled").notes(loaded, 99) == (weights.FAST,)


def test_without_a_kernel_columns_are_shared_out_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "kernel", lambda: None)
    model = tiny_neox()
    with reading_fast(model, narrow=True):
        assert all(weight.dtype == torch.float32 for weight in model.parameters())
        assert not model.get_output_embeddings().weight.is_contiguous()


@needs_kernel
def test_a_stream_is_read_in_16_bits_where_it_is_compiled_and_of_few_rows() -> None:
    loaded: Any = SimpleNamespace(model=tiny_neox(), trained_length=256)
    for kind, batch, want in (("eager", 1, False), ("compiled", 1, True), ("compiled", 9, False)):
        method = method_of("streaming", engine=kind, batch_size=batch)
        with method.start(loaded, batch).decoding():
            found = loaded.model.get_output_embeddings().weight.dtype == HALF
        assert found is want is (weights.NARROW in method.notes(loaded, 99))


@needs_kernel
def test_a_layer_that_is_given_another_format_does_not_reach_the_kernel() -> None:
    model = tiny_neox()
    with reading_fast(model, narrow=True):
        got = model.embed_out(torch.ones(1, 64, dtype=HALF))
    assert got.dtype == HALF and bool(got.isfinite().all())


def test_a_compiler_that_fails_makes_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in ("false", "/no/such/compiler", None):
        weights.kernel.cache_clear()
        monkeypatch.setattr(weights, "compiler", lambda found=found: found)
        assert weights.kernel() is None
    weights.kernel.cache_clear()


@pytest.mark.skipif(weights.compiler() is None, reason="there is no C++ compiler")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="tried on this processor only")
def test_where_there_is_a_compiler_the_kernel_is_made() -> None:
    assert weights.kernel() is not None


@needs_kernel
def test_the_floor_counts_the_bytes_as_they_lie() -> None:
    model = tiny_neox()
    wide = floors.decode_work(model, keys=0)
    with reading_fast(model, narrow=True):
        narrow = floors.decode_work(model, keys=0)
    assert narrow.flops == wide.flops and 0.5 < narrow.read_bytes / wide.read_bytes < 0.55
