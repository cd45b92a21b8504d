"""What a step must move and compute, by hand."""

from __future__ import annotations

import pytest
import torch

from core.measure import floors
from core.measure.floors import Machine, Work
from core.models import anatomy, shapes
from tests.support import families


def test_a_decode_step_reads_weights_once_and_every_key_and_value_once() -> None:
    model = shapes.build("tiny", dtype="float32", device="cpu").model
    layers, hidden, heads, vocabulary = 2, 64, 4, 512
    layer = 4 * hidden * hidden + 4 * hidden + 8 * hidden * hidden + 5 * hidden + 4 * hidden
    weights = layers * layer + 2 * hidden + vocabulary * hidden
    got = floors.decode_work(model, keys=100, batch=3)
    assert got.read_bytes == 4 * (weights + 3 * 2 * layers * hidden * 100)
    assert got.flops == 3 * (2 * weights + 4 * layers * heads * (hidden // heads) * 100)


def test_a_tied_head_is_read_and_grouped_keys_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, hidden, inner, grouped, vocabulary = 3, 576, 1536, 3 * 64, 512
    small = {"num_hidden_layers": layers, "vocab_size": vocabulary}
    monkeypatch.setitem(shapes.SHAPES, "small", shapes.SHAPES["smollm2-135m"] | small)
    model = shapes.build("small", dtype="bfloat16", device="cpu").model
    layer = 2 * hidden * hidden + 2 * hidden * grouped + 3 * hidden * inner + 2 * hidden
    without, one = (floors.decode_work(model, keys=keys).read_bytes for keys in (0, 1))
    assert without == 2 * (layers * layer + hidden + vocabulary * hidden)
    assert one - without == 2 * 2 * layers * grouped


def test_the_floor_is_the_slower_of_reading_and_computing() -> None:
    machine = Machine("cpu", torch.float32, reads=[1e9], products=[1e10])
    assert machine.floor_ms(Work(read_bytes=1e6, flops=1e6)) == 1.0
    assert machine.floor_ms(Work(read_bytes=1e6, flops=1e8)) == 10.0


def test_a_floor_is_at_the_median_of_the_rates_of_all_rounds() -> None:
    machine = Machine("cpu", torch.float32, reads=[1e9, 9e9, 2e9], products=[1e10, 1e10, 5e9])
    assert (machine.bytes_per_s, machine.flops_per_s) == (2e9, 1e10)


def test_rates_are_measured_once_a_round(little: None, monkeypatch: pytest.MonkeyPatch) -> None:
    took = iter([4.0, 2, 8, 4, 4, 8, 4, 2, 8, 4, 1, 8])
    monkeypatch.setattr(Machine, "_time", lambda self, act: act() is not None and next(took))
    machine = Machine("cpu", torch.float32)
    machine.measure(1)  # three ways to read, and a product
    machine.measure(2)  # twice each
    assert machine.reads == [2**20 / 2, 2**20 / 2]
    assert machine.products == [2 * 64**3 / 4, 2 * 64**3 / 1]


def test_a_layer_with_a_window_of_its_own_shows_no_more_than_that() -> None:
    model = families.build("gemma3_text").eval()  # one layer with a window of 24, one that sees all
    config, layers = model.config, anatomy.of(model).layers
    assert [layer.native.keys if layer.native else None for layer in layers] == [24, None]
    numbers = layers[0].key_numbers + layers[0].value_numbers
    pair = 4 * config.num_attention_heads * config.head_dim
    none, some = (floors.decode_work(model, keys) for keys in (0, 65))
    assert some.read_bytes - none.read_bytes == 4 * numbers * (24 + 65)
    assert some.flops - none.flops == pair * (24 + 65)
    few, many = (floors.recompute_work(model, keys) for keys in (24, 65))
    head = 2 * model.get_output_embeddings().weight.numel()
    linear = (few.flops - pair * 24 * 24 - head) / 24
    triangle = 65 * 65 / 2 + 24 * (65 - 24 / 2)
    assert many.flops == pytest.approx(linear * 65 + head + pair * triangle)
    assert floors.prompt_work(model, 65, 65 * 66 // 2).flops == pytest.approx(
        linear * 65 + head + pair * (65 * 66 // 2 + 65 * 24)
    )


@pytest.mark.parametrize("family", ["mixtral", "granitemoe", "dbrx", "deepseek_v3"])
def test_of_routed_experts_those_count_that_a_token_takes(family: str) -> None:
    """Two of four: each layer's router, shared experts and all else count whole."""
    model = families.build(family).eval()
    embedding = model.get_input_embeddings().weight
    tied = model.get_output_embeddings().weight is embedding
    whole = sum(each.numel() for each in model.parameters()) - (0 if tied else embedding.numel())
    of_experts = {
        "mixtral": ("experts.",),
        "granitemoe": ("block_sparse_moe.input_linear", "block_sparse_moe.output_linear"),
        "dbrx": ("experts.mlp.",),
        "deepseek_v3": (".experts.",),
    }[family]
    routed = sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if any(each in name for each in of_experts)
    )
    assert routed > 0
    assert floors.decode_work(model, keys=0).read_bytes == 4 * (whole - routed / 2)
    assert floors.decode_work(model, keys=0).flops == 2 * (whole - routed / 2)


def test_a_mixture_may_say_of_each_layer_how_many_experts_it_has_and_takes() -> None:
    model = families.build("mixtral").eval()
    want, config = floors.decode_work(model, keys=0), model.config
    config.num_local_experts, config.num_experts_per_tok = [4, 4], [2, 2]  # as Hunyuan-A13B's does
    assert floors.decode_work(model, keys=0) == want
