"""A window of integers: as a loop over lists has it, and as many bytes as are said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaForCausalLM

from core import cache as caches
from core import registry
from core.codes import GROUP, Codes
from core.config import RunConfig
from core.errors import UsageError
from core.methods import streaming_int
from core.methods.base import Method
from core.methods.streaming import CachedStream
from core.methods.streaming_int import StreamingInt
from core.models.loading import Loaded
from core.proof import quantised
from tests.support import families
from tests.support.samples import EXACT, around, fed_nll, gap, method_of, random_ids, tiny_llama

PARTS = ("newest", "key_codes", "key_grid", "value_codes")


def integers(kv_bits: int = 8, **asked: Any) -> StreamingInt:
    method = method_of("streaming-int", param=(("kv_bits", kv_bits),), **asked)
    assert isinstance(method, StreamingInt)
    method.choices = []
    return method


def apart(loaded: Loaded, ids: Tensor, size: int, method: StreamingInt) -> float:
    """How far its scores are from those of the loop that follows its codes."""
    got = fed_nll(loaded, ids, size, method)
    return gap(got, quantised.streaming_int(loaded.model, ids, method.config, method.choices))


def tiny() -> Loaded:
    return around(tiny_llama())


@pytest.mark.parametrize(("kv_bits", "window"), [(8, 27), (4, 40), (2, 32)])
@pytest.mark.parametrize("size", [1, 7, 61])
def test_every_chunk_size_equals_a_loop_over_lists_on_a_trained_gpt_neox(
    neox: Loaded, neox_ids: Tensor, kv_bits: int, window: int, size: int
) -> None:
    assert apart(neox, neox_ids[:1, :62], size, integers(kv_bits, window=window)) < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt_oss", "llama4_text", "exaone4"])
@pytest.mark.parametrize("size", [1, 16])
def test_layers_with_windows_sinks_or_sizes_of_their_own_are_exact(name: str, size: int) -> None:
    loaded = around(families.build(name))
    assert apart(loaded, families.tokens(62), size, integers(4, window=40)) < EXACT


def of_heads(d: int) -> Loaded:
    """A tiny model whose heads have D channels."""
    config = tiny_llama().config
    config.head_dim = d
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return around(model)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize(("d", "kv_bits"), [(36, 2), (100, 4), (100, 2)])
def test_heads_whose_groups_would_end_within_a_byte_have_shorter_ones(
    d: int, kv_bits: int, size: int
) -> None:
    loaded, method, ids = of_heads(d), integers(kv_bits), random_ids(1, 62)
    assert apart(loaded, ids, size, method) < EXACT
    stream = method.start(loaded, 1)
    with torch.inference_mode():
        stream.feed(ids)
    assert stream.kv_bytes() == method.kv_formula_bytes(loaded, 1, [80])


def test_values_that_fill_no_whole_bytes_are_refused_in_a_line() -> None:
    with pytest.raises(UsageError, match="6 values of 2 bits fill no whole bytes.*more bits"):
        integers(2).start(of_heads(6), 1)
    integers(4).start(of_heads(6), 1)


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.slow
def test_a_number_of_every_key_may_be_0(size: int) -> None:
    """As in Gemma 3 270M: what is left of the number that it is turned with is no wrong choice."""
    loaded = tiny()
    for layer in loaded.model.model.layers:
        layer.self_attn.k_proj.weight[3] = 0
    for kv_bits in (8, 4):
        assert apart(loaded, random_ids(1, 62), size, integers(kv_bits, window=40)) < EXACT


@pytest.mark.parametrize("n_sink", [0, 1])
@pytest.mark.slow
def test_no_sinks_and_a_window_shorter_than_a_group_are_exact(n_sink: int) -> None:
    for size in (1, 5):
        assert apart(tiny(), random_ids(2, 50), size, integers(4, n_sink=n_sink, window=3)) < EXACT


@pytest.mark.slow
def test_chunks_hold_the_codes_that_single_tokens_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, but for what rounding of the keys themselves moves, in few numbers."""
    monkeypatch.setattr(caches, "REACH", 16)  # so that the frame moves, at other tokens
    loaded, ids, held = tiny(), random_ids(1, 150), []
    for size in (1, 13):
        stream: Any = integers(4, window=70).start(loaded, 1)
        with torch.inference_mode():
            for part in torch.split(ids, size, dim=1):
                stream.feed(part)
        held.append(stream.cache.layers[0])
    assert stream.cache.base > 0
    for name in ("key_codes", "value_codes"):
        one, other = (getattr(layer, name) for layer in held)
        assert one.any() and float((one != other).float().mean()) < 0.01
    there = (150 - 4) % GROUP  # of the newest group; what stands behind is of another
    assert gap(*(layer.newest[:, :, :there] for layer in held)) < 1e-5


def test_a_frame_that_moves_leaves_every_code_as_it_was(neox: Loaded, neox_ids: Tensor) -> None:
    stream: Any = integers(4, window=70).start(neox, 2)
    with torch.inference_mode():
        stream.feed(neox_ids[:, :110])
        before = {name: getattr(stream.cache.layers[0], name).clone() for name in PARTS}
        stream.cache.rebase()
    assert stream.cache.base > 0
    assert all(torch.equal(getattr(stream.cache.layers[0], n), x) for n, x in before.items())


class _Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The tensors that torch made within it and that are still there, by their storage."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, Tensor):
                self.storages[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
        return out


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
@pytest.mark.parametrize("kv_bits", [8, 4, 2])
@pytest.mark.slow
def test_bytes_said_are_bytes_allocated(name: str, kv_bits: int) -> None:
    loaded = around(families.build(name))
    method, ids = integers(kv_bits, window=70), families.tokens(150)
    method.choices = None
    stream: Any = method.start(loaded, 1)
    with torch.inference_mode(), _Made() as made:
        stream.feed(ids[:, :40])
        first = stream.kv_bytes()
        stream.feed(ids[:, 40:])
    layers = stream.cache.layers
    held = {id(x): x for layer in layers for x in vars(layer).values() if isinstance(x, Tensor)}
    storages = {x.untyped_storage().data_ptr() for x in held.values()}
    assert sum(made.storages[each] for each in storages) == stream.kv_bytes() == first
    assert stream.kv_bytes() == method.kv_formula_bytes(loaded, 1, [150])


def test_a_window_of_few_bits_takes_the_bytes_of_its_codes() -> None:
    """Of K heads, D channels: 5 bits a number with its grid, and the newest group's keys whole."""
    loaded, ids = tiny(), random_ids(1, 10)
    stream: Any = integers(4, window=2048).start(loaded, 1)
    with torch.inference_mode():
        stream.feed(ids)
    numbers = 2 * 2 * 16  # of a token's keys, or values, in 2 layers
    codes = 2048 * numbers + 2048 * numbers  # keys and values
    grids = 2048 * numbers // GROUP + 2048 * numbers // 16  # a group of values has 16 channels
    rest = 4 * 2 * numbers * 4 + GROUP * numbers * 4 + GROUP * (numbers // 2 + numbers // 16 * 4)
    assert stream.kv_bytes() == codes // 2 + 4 * grids + rest


@pytest.mark.parametrize("kv_bits", [8, 4, 2])
def test_a_number_is_the_nearest_of_its_grid_and_comes_back_from_its_byte(kv_bits: int) -> None:
    made = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 5, 32, generator=made) * 0.1 + 8  # whose least value 16 bits tell badly
    codes = Codes.of(x, kv_bits)
    assert codes.packed.dtype == torch.uint8 and codes.packed.shape == (3, 2, 5, 4 * kv_bits)
    step = codes.grid[..., 1:].float()
    assert bool(((codes.decoded(kv_bits) - x).abs() <= 0.5001 * step).all())
    spread = x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)
    assert bool((step <= (spread + 0.02) / (2**kv_bits - 1) * 1.01).all())
    assert torch.equal(Codes.of(torch.zeros(1, 32), kv_bits).decoded(kv_bits), torch.zeros(1, 32))


def test_more_bits_are_closer_to_none_spared(neox: Loaded, neox_ids: Tensor) -> None:
    ids, size = neox_ids[:, :120], 119
    whole = fed_nll(neox, ids, size, method_of("streaming", window=70))
    off = [
        float((fed_nll(neox, ids, size, integers(bits, window=70)) - whole).abs().mean())
        for bits in (8, 4, 2)
    ]
    assert 0 < off[0] < off[1] / 4 < off[2] / 8


@pytest.fixture(scope="module")
def followed(neox: Loaded, neox_ids: Tensor) -> StreamingInt:
    """A method whose codes for 42 tokens the loop follows."""
    method = integers(4, window=20)
    assert apart(neox, neox_ids[:1, :42], 41, method) < EXACT
    return method


@pytest.mark.parametrize("what", [0, 1], ids=["of keys", "of values"])
@pytest.mark.parametrize(("place", "by"), [(0, 1.0), (-1, 0.5), (-2, 0.5)])
def test_a_code_that_is_not_the_nearest_fails_and_so_does_another_grid(
    neox: Loaded, neox_ids: Tensor, followed: StreamingInt, what: int, place: int, by: float
) -> None:
    told = [each.clone() for each in followed.choices or ()]
    told[what][:, :, 0, 0, ..., place] += by
    got = quantised.streaming_int(neox.model, neox_ids[:1, :42], followed.config, told)
    assert got[0, -1].isnan()


@pytest.mark.parametrize("broken", ["place", "whole"])
def test_keys_that_stand_wrong_or_are_whole_too_long_are_found(
    neox: Loaded, neox_ids: Tensor, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = streaming_int.QuantisedKVCache._lay

    def lay(self: Any, kind: Any, t: int, c: int) -> Any:
        laid = real(self, kind, t, c)
        if broken == "place":
            return replace(laid, place=laid.place and kind.turns.turn(laid.tokens - self.base - 1))
        return replace(laid, whole=laid.whole | True)

    monkeypatch.setattr(streaming_int.QuantisedKVCache, "_lay", lay)
    found = apart(neox, neox_ids[:1, :80], 16, integers(4))
    assert not found <= 10 * EXACT  # NaN, where codes that follow are others, is no less wrong


def test_rows_of_a_batch_are_single_rows_and_a_reset_cache_is_new() -> None:
    loaded, ids = tiny(), random_ids(3, 100)
    both, alone = (integers(8, window=40) for _ in range(2))
    together = fed_nll(loaded, ids, 16, both)
    assert gap(together[1:2], fed_nll(loaded, ids[1:2], 16, alone)) < 0.05  # codes may differ
    stream: Any = integers(8).start(loaded, 3)
    with torch.inference_mode():
        first = stream.feed(ids)
        stream.cache.reset()
        assert torch.equal(stream.feed(ids), first)


def test_what_it_does_not_serve_is_refused() -> None:
    with pytest.raises(UsageError, match="kv_bits is 3: it must be 8, 4, 2"):
        RunConfig(method="streaming-int", param=(("kv_bits", 3),))
    with pytest.raises(UsageError, match="evict_every is 2, but 'streaming-int' has a rule"):
        RunConfig(method="streaming-int", evict_every=2)
    with pytest.raises(UsageError, match="engine is 'compiled', but 'streaming-int' has none"):
        RunConfig(method="streaming-int", engine="compiled")
    other = around(families.build("falcon"))
    with pytest.raises(UsageError, match="'falcon' model: it takes no registered attention"):
        integers().start(other, 1)


def test_no_engine_steps_through_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a device would have one: steps write keys, and there are none."""
    stream = integers().start(tiny(), 1)
    assert isinstance(stream, CachedStream) and not stream.cache.static
    forced = CachedStream(tiny(), stream.cache, "cudagraph")
    assert forced.stepper is None


def test_more_bits_are_proved_than_the_default() -> None:
    from core import own_options

    assert own_options.to_prove("streaming-int") == [(("kv_bits", 8),), (("kv_bits", 4),)]
    assert own_options.to_prove("dense") == [()]
    assert [name for name, each in registry.METHODS.items() if each.chooses] == [
        *("streaming-int", "tova", "h2o", "keydiff", "knorm")
    ]
    assert isinstance(method_of("streaming-int"), Method)
