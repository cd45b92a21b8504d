"""What is not proved of a layer is refused, whatever family it is of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.hunyuan_v1_dense.modeling_hunyuan_v1_dense import HunYuanDenseV1Attention
from transformers.models.llama import modeling_llama

from core import registry, rope
from core.cache import StreamingKVCache
from core.errors import UsageError
from core.kinds import kinds_of
from core.methods.mit import StartRecentKVCache
from core.models import anatomy, turning
from core.models.loading import Loaded
from core.rope import Rotation
from tests.support import families
from tests.support.method_cases import need
from tests.support.samples import around, method_of, random_ids, tiny_llama

Wrong = Callable[..., Any]
REAL = modeling_llama.apply_rotary_pos_emb


def keys_grow(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any) -> Any:
    q, k = REAL(q, k, cos, sin)
    return q, k * (2 - cos.mean(-1)[:, None, :, None])


def keys_turn_the_other_way(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any) -> Any:
    return REAL(q, k, cos, sin)[0], REAL(q, k, cos, -sin)[1]


def queries_stay(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any) -> Any:
    return q, REAL(q, k, cos, sin)[1]


def pairs_are_shuffled(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any) -> Any:
    order = [0, 3, 1, 2, *range(4, q.shape[-1])]
    return tuple(x[..., order] for x in REAL(q[..., order], k[..., order], cos, sin))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (keys_grow, "its keys move with position, but not as rotary ones"),
        (keys_turn_the_other_way, "its queries are not turned by positions as its keys are"),
        (queries_stay, "its queries are not turned by positions as its keys are"),
        (pairs_are_shuffled, "its keys move with position, but not as rotary ones"),
    ],
)
def test_a_rotation_that_is_not_ours_to_make_is_refused(
    rule: Wrong, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", rule)
    model = tiny_llama()
    for cache in (StreamingKVCache, StartRecentKVCache):
        with pytest.raises(UsageError, match=f"'llama' model can't stream: {said}"):
            cache(4, 20, model)


def test_one_layer_of_another_rule_is_enough_to_be_refused() -> None:
    model = tiny_llama(layers=3)
    odd = model.model.layers[2].self_attn
    real = odd.forward

    def forward(*args: Any, position_embeddings: Any, **rest: Any) -> Any:
        cos, sin = position_embeddings
        return real(*args, position_embeddings=(cos * 1.5, sin), **rest)

    odd.forward = forward
    with pytest.raises(UsageError, match="not as rotary ones"):
        StreamingKVCache(4, 20, model)


def test_a_layer_without_rotary_positions_is_seen_and_not_turned() -> None:
    found = anatomy.of(families.build("smollm3"))
    assert [layer.rotation is None for layer in found.layers].count(True) >= 1
    assert any(layer.rotation for layer in found.layers)


def test_a_mask_or_a_bias_of_its_own_is_refused() -> None:
    model = tiny_llama()
    layer = model.model.layers[0].self_attn
    real = layer.forward

    def forward(*args: Any, attention_mask: Any = None, **rest: Any) -> Any:
        changed = None if attention_mask is None else attention_mask.clone()
        return real(*args, attention_mask=changed, **rest)

    layer.forward = forward
    with pytest.raises(UsageError, match="a mask of its own"):
        StreamingKVCache(4, 20, model)


def test_positions_that_enter_with_the_tokens_are_seen_in_the_values() -> None:
    with pytest.raises(UsageError, match="it has no rotary positions"):
        StreamingKVCache(4, 20, families.build("gpt2"))
    model = tiny_llama()
    embed = model.model.embed_tokens
    real, table = embed.forward, torch.randn(5000, 64, generator=torch.Generator().manual_seed(0))
    watched: list[int] = []

    def forward(ids: Tensor) -> Tensor:  # a table of learned positions, and rotary ones besides
        first = watched[0] if watched else 0
        embedded: Tensor = real(ids) + table[first : first + ids.shape[1]]
        return embedded

    def note(module: Any, args: Any, kwargs: Any) -> None:
        cache = kwargs.get("past_key_values", kwargs.get("cache"))
        watched[:] = [0 if cache is None else int(cache.get_seq_length()) % 5000]

    embed.forward = forward
    model.register_forward_pre_hook(note, with_kwargs=True)
    with pytest.raises(UsageError, match="values change with position"):
        StreamingKVCache(4, 20, model)


def test_weights_on_turned_keys_are_refused_unless_they_are_all_one() -> None:
    model = families.build("hunyuan_v1_dense")
    assert anatomy.of(model).refusal is None
    other = families.build("hunyuan_v1_dense")
    for module in other.modules():
        if isinstance(module, HunYuanDenseV1Attention):
            module.key_layernorm.weight.copy_(torch.linspace(0.5, 2, 16))
    assert "not as rotary ones" in str(anatomy.of(other).refusal)


@pytest.mark.parametrize("name", ["bloom", "mpt", "falcon_alibi"])
def test_positions_that_enter_by_a_bias_are_refused(name: str) -> None:
    assert anatomy.of(families.build(name)).refusal


@pytest.mark.parametrize("name", ["mamba", "qwen3_next", "falcon_h1", "gpt2", "bloom"])
def test_what_cannot_stream_is_refused_from_its_configuration_alone(name: str) -> None:
    config = families.build(name).config
    with pytest.raises(UsageError, match=r"can't stream: .*: choose another model"):
        anatomy.check_config(config)


@pytest.mark.parametrize("name", ["llama", "gptj", "gemma3_text", "deepseek_v3", "falcon"])
def test_what_may_stream_passes_by_its_configuration(name: str) -> None:
    anatomy.check_config(families.build(name).config)


def test_a_cap_on_logits_is_kept_by_every_method() -> None:
    model = families.build("gemma2")
    # 5.2 takes sdpa, which would drop it in silence; newer versions attend eagerly by themselves.
    assert model.config._attn_implementation in ("sdpa", "eager")
    anatomy.of(model)
    assert model.config._attn_implementation == "eager"


def test_own_windows_and_blocks_are_seen_from_the_masks() -> None:
    found = anatomy.of(families.build("gemma3_text"))
    assert {layer.native.keys if layer.native else None for layer in found.layers} == {24, None}
    blocks = [layer.native for layer in anatomy.of(families.build("llama4_text")).layers]
    assert {each.keys for each in blocks if each} == {32}
    assert all(each.blocks for each in blocks if each)


def test_a_hybrid_keeps_its_own_windows_whatever_the_budget() -> None:
    found = anatomy.of(families.build("gemma3_text"))
    for window in (8, 100):
        kinds = kinds_of(found, 4, window)
        own = [kind for kind in kinds if kind.own]
        assert own and all((kind.n_sink, kind.window) == (0, 23) for kind in own)
        assert {kind.window for kind in kinds if not kind.own} == {window}


def test_frequencies_can_be_read_off_the_keys_where_no_module_holds_them() -> None:
    model = tiny_llama()
    rotation = anatomy.of(model).layers[0].rotation
    assert rotation is not None
    key = torch.randn(16, 2, 1, 16, generator=torch.Generator().manual_seed(0))
    moved = {by: rotation.turn(torch.tensor([float(by)]))(key) for by in (1, 5, 255)}
    halves = turning.frequencies_by_sight(key, moved)[1]
    assert torch.allclose(halves, rotation.inv_freq, atol=1e-8)


def test_neighbours_and_last_dims_turn_as_a_complex_number_does() -> None:
    x = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    freq = torch.tensor([0.7, 0.1], dtype=torch.float64)
    turn = Rotation(freq, 8, True, x.device, torch.float64).turn(torch.tensor([2.0]))
    z = torch.view_as_complex(x[..., 8:].reshape(2, 3, 2, 2).contiguous())
    want = torch.view_as_real(z * torch.exp(2j * freq)).flatten(-2)
    assert torch.allclose(turn(x)[..., 8:], want) and torch.equal(turn(x)[..., :8], x[..., :8])


DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}
METHODS = tuple(registry.METHODS)


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    """The logits of each method on a model that nothing else has used."""
    return {name: _logits(tiny_llama(DYNAMIC, layers=1), name) for name in METHODS if _runs(name)}


def _runs(name: str) -> bool:
    try:
        need(name)
    except pytest.skip.Exception:
        return False
    return True


def _logits(model: Any, name: str) -> Tensor:
    """After a chunk and single tokens, of which a cache of S = 4 and W = 20 evicts some."""
    loaded = Loaded(model, lambda text, **_: {"input_ids": [7]}, "", None, "", 256, 0)
    anatomy.of(model)
    ids = random_ids(1, 28)
    with torch.inference_mode():
        stream = method_of(name, window=20).start(loaded, 1)
        fed = [
            stream.feed(part)[:, -1:] for part in (ids[:, :20], *torch.split(ids[:, 20:], 1, dim=1))
        ]
    return torch.cat(fed, dim=1)


@pytest.mark.slow
@pytest.mark.parametrize("first", METHODS)
def test_no_method_changes_what_comes_after_it(first: str, alone: dict[str, Tensor]) -> None:
    """Each comes right after ``first``, and ``first`` right after it: of all pairs, a half here."""
    need(first)
    model = tiny_llama(DYNAMIC, layers=1)
    for second in METHODS[METHODS.index(first) :]:
        for name in (first, second):
            if name in alone:
                assert torch.equal(_logits(model, name), alone[name]), (first, second)
    assert torch.equal(_logits(model, first), alone[first])


@pytest.mark.parametrize("name", METHODS)
def test_a_forward_beyond_the_trained_length_changes_no_method(
    name: str, alone: dict[str, Tensor]
) -> None:
    need(name)
    model = tiny_llama(DYNAMIC, layers=1)
    anatomy.of(model)
    with torch.inference_mode():
        model(random_ids(1, 500))
    assert torch.equal(_logits(model, name), alone[name])


def test_a_forward_beyond_the_trained_length_does_change_a_model_that_is_not_put_back() -> None:
    model = tiny_llama(DYNAMIC)
    before = model.model.rotary_emb.inv_freq.clone()
    rope.restore(model)
    with torch.inference_mode():
        model(random_ids(1, 500))
    assert not torch.equal(model.model.rotary_emb.inv_freq, before)
    rope.restore(model)
    assert torch.equal(model.model.rotary_emb.inv_freq, before)


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_methods_refuse_a_length_at_which_frequencies_change(rope_type: str) -> None:
    rule = DYNAMIC
    if rope_type == "longrope":
        factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "factor": 2.0}
        rule = {"rope_type": "longrope", "original_max_position_embeddings": 128, **factors}
    loaded = around(tiny_llama(rule))
    most = 256 if rope_type == "dynamic" else 128
    method_of("dense").check(loaded, most)
    with pytest.raises(UsageError, match=f"change beyond {most}"):
        method_of("dense").check(loaded, most + 1)
    for name in ("recompute", "streaming", "mit"):
        with pytest.raises(UsageError, match=f"change beyond {most}"):
            method_of(name, window=most).start(loaded, 1)


def test_a_model_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    looks: list[nn.Module] = []
    real = anatomy._look

    def look(each: Any) -> Any:
        looks.append(each)
        return real(each)

    monkeypatch.setattr(anatomy, "_look", look)
    for _ in range(3):
        StreamingKVCache(4, 20, model)
    assert looks == [model]


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_a_compiled_model_is_looked_at_without_its_compiler(whole: bool) -> None:
    model, graphs = tiny_llama(), 0

    def backend(graph: Any, _: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    if whole:
        model.compile(backend=backend)
    else:
        model.forward = torch.compile(model.forward, backend=backend)
    cache = StreamingKVCache(4, 20, model)
    assert graphs == 0 and not anatomy.of(model).refusal
    cache.read(random_ids(1, 5))
    assert graphs > 0


def test_what_was_seen_is_told_in_words(neox: Loaded) -> None:
    found = anatomy.of(neox.model)
    assert found.layers_in_words == "2 of 2 layers: all keys, 16 dims in halves from dim 0"
    assert "as by the model itself to" in found.proof_in_words
