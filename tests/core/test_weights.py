"""Weights laid out for one token at a time: the same numbers and products, and put back."""

from __future__ import annotations

import platform
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from core import weights
from core.config import RunConfig
from core.measure import bench, floors
from core.models import shapes
from core.models.loading import Loaded
from core.weights import by_columns, in_16_bits
from tests.support.evaluated import evaluate
from tests.support.samples import ids_of, random_ids, thinned, tiny_llama

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_kernel = pytest.mark.skipif(
    weights.compiler() is None or platform.machine() != "x86_64",
    reason="weights.c was tried on x86-64 only, and takes a C++ compiler",
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


@contextmanager
def laid_out(model: Any, narrow: bool) -> Iterator[None]:
    with by_columns(model), ExitStack() as more:
        if narrow:
            assert more.enter_context(in_16_bits(model))
        yield


KINDS = (weights._Shared, weights._Narrow)


def fast(model: Any) -> list[str]:
    return [type(m).__name__ for m in model.modules() if type(m) in KINDS]


@pytest.mark.parametrize("narrow", LAYOUTS)
def test_weights_keep_their_values_and_are_put_back_whatever_happens(narrow: bool) -> None:
    model = tiny_neox()
    before = {name: (weight, weight.clone()) for name, weight in model.named_parameters()}
    head = model.get_output_embeddings()
    with pytest.raises(RuntimeError, match="stop"), laid_out(model, narrow):
        assert head.weight.stride() == (1, head.weight.shape[0])
        assert not narrow or (head.kept.dtype == HALF and head.kept.is_contiguous())
        for weight, lies in weights.stored_weights(model).items():
            assert torch.equal(lies.float(), weight)
        for name, weight in model.named_parameters():
            assert weight is before[name][0] and torch.equal(weight, before[name][1])
        raise RuntimeError("stop")
    for name, weight in model.named_parameters():
        assert weight is before[name][0] and torch.equal(weight, before[name][1])
        assert weight.is_contiguous()
    assert not fast(model)
    assert not any({"parts", "kept"} & set(vars(module)) for module in model.modules())


@pytest.mark.parametrize("narrow", LAYOUTS)
def test_a_tied_head_still_embeds(narrow: bool) -> None:
    model = rounded_llama(HALF)
    model.lm_head.weight = embedding = model.model.embed_tokens.weight
    ids = random_ids(1, 5)
    want = model(ids).logits
    with laid_out(model, narrow):
        assert float((model(ids).logits - want).abs().max()) < 1e-4
    assert model.lm_head.weight is model.model.embed_tokens.weight is embedding


@pytest.mark.parametrize("rows", [1, 3, 20])
@pytest.mark.parametrize("threads", [4, 5])  # which divides no weight into equal parts
@pytest.mark.parametrize("narrow", LAYOUTS)
@pytest.mark.slow
def test_a_model_says_the_same(
    rows: int, narrow: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model, ids = tiny_neox(), random_ids(rows, 1)
    want = model(ids).logits
    with laid_out(model, narrow):
        # the head and four of each of the two layers, or only those that are tall
        assert fast(model) == (["_Narrow"] * 9 if narrow else ["_Shared"] * 5)
        assert float((model(ids).logits - want).abs().max()) < 1e-5


@needs_kernel
@pytest.mark.parametrize("dtype", [HALF, BRAIN])
@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 97, 64), (2, 3, 48), (3, 4, 16), (5, 1, 32), (8, 3, 1024)]
)
def test_a_product_in_16_bits_is_that_of_the_same_numbers_in_float32(
    dtype: torch.dtype, m: int, n: int, k: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(k, m, generator=generator).t(), torch.randn(n, k, generator=generator)
    w[0, :8] = torch.tensor([0.0, -0.0, 6e-8, -6e-8, 65504, 2**-14, 2**-24, -1])  # subnormal, most
    kept = w.to(dtype)
    got = weights._widen(x, kept)
    want, size = x.double() @ kept.double().t(), x.abs().double() @ kept.double().abs().t()
    assert got.dtype == torch.float32 and got.shape == (m, n)
    assert float(((got - want).abs() / size).max()) < 1e-6
    alone = torch.zeros(1, k)
    for at in (2, 6):  # a subnormal number by itself is not taken for zero
        alone.zero_()[0, at] = 1
        assert weights._widen(alone, kept)[0, 0] == kept[0, at].float() != 0


def test_only_weights_that_are_exact_in_16_bits_are_kept_in_them() -> None:
    exact = torch.tensor([1.0, 0.5, -3.140625, 2.0**-20] * 4)[None]
    kept = weights._narrowed(exact.half().float())
    assert kept is not None and kept.dtype == HALF
    wide = torch.tensor([1e30, -1e-30, 3.0, 1.0] * 4)[None].bfloat16().float()  # beyond float16
    kept = weights._narrowed(wide)
    assert kept is not None and kept.dtype == BRAIN and torch.equal(kept.float(), wide)
    for lost in (torch.full((1, 16), 0.1), torch.full((1, 16), torch.nan), torch.ones(1, 17)):
        assert weights._narrowed(lost) is None
    with in_16_bits(tiny_llama()) as any_kept:
        assert not any_kept


@needs_kernel
def test_layers_that_share_a_weight_or_derive_from_a_linear_one_work_as_before() -> None:
    class Own(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight.t()

    model = tiny_neox()
    head = model.get_output_embeddings()
    other = model.other = Own(64, 512, bias=False)
    other.weight = head.weight
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    with laid_out(model, narrow=True):
        assert type(other) is Own and torch.allclose(other(x), head(x), atol=1e-6)
        assert head(torch.empty(0, 64)).shape == (0, 512)
        x = x.to(head.weight.dtype)  # as some models' code and adapters do
        assert head(x).dtype == torch.float32


@needs_kernel
def test_the_floor_counts_the_bytes_as_they_lie() -> None:
    model = tiny_neox()
    wide = floors.decode_work(model, keys=0)
    with in_16_bits(model):
        narrow = floors.decode_work(model, keys=0)
    assert narrow.flops == wide.flops and 0.5 < narrow.read_bytes / wide.read_bytes < 0.55


@pytest.mark.slow
@needs_kernel
@pytest.mark.usefixtures("traced")
def test_steps_of_few_rows_read_16_bits_and_say_so() -> None:
    loaded = shapes.build("tiny", dtype="float32", device="cpu")
    thinned(loaded.model)
    least: dict[tuple[str, int], float] = {}
    for kind, batch, said in (
        *(
            ("as-shipped", 1, ()),
            ("eager", 1, (weights.NARROW,)),
            ("compiled", 1, (weights.NARROW,)),
        ),
        ("eager", 9, ()),
    ):
        config = RunConfig(n_sink=4, window=27, engine=kind, batch_size=batch, device="cpu")
        arm = bench.decode_arm(loaded, config)
        assert arm.notes == said and arm.config.engine == kind
        with arm.within():
            assert ("_Narrow" in fast(loaded.model)) is bool(said)
        least[kind, batch] = arm.work.read_bytes
    assert least["compiled", 1] == least["eager", 1] < 0.6 * least["as-shipped", 1]


@needs_kernel
@pytest.mark.usefixtures("traced")
def test_steps_that_fill_a_cache_are_those_of_an_eager_run(thin: Loaded) -> None:
    short = evaluate(thin, [ids_of(thin, 20)[0]], engine="compiled")
    assert short.engine == "eager" and weights.NARROW in short.notes
    whole = evaluate(thin, [ids_of(thin, 90)[0]], engine="compiled")
    assert whole.engine == "compiled" and whole.notes.count(weights.NARROW) == 1


@needs_kernel
def test_where_there_is_a_compiler_the_kernel_is_made() -> None:
    assert weights.kernel(HALF, 1) and weights.kernel(BRAIN, 8)


def test_without_a_kernel_nothing_is_kept_in_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "kernel", lambda *asked: None)
    with in_16_bits(tiny_neox()) as any_kept:
        assert not any_kept


def test_a_compiler_that_fails_makes_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in ("false", "/no/such/compiler", None):
        weights.kernel.cache_clear()
        monkeypatch.setattr(weights, "compiler", lambda found=found: found)
        assert not weights.kernel(HALF, 1)
    weights.kernel.cache_clear()


def test_the_compiler_is_the_one_that_torch_takes() -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        assert weights.compiler() is None
    with config.patch({"cpp.cxx": (None, "sh")}):
        assert str(weights.compiler()).endswith("/sh")
