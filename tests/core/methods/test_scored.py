"""Keys that leave by score: each method as an obvious loop has it, and what all of them keep to."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from transformers.models.llama import modeling_llama

from core import registry
from core.config import RunConfig
from core.errors import UsageError
from core.methods.base import Method
from core.methods.scored import ScoredLayer
from core.models import anatomy
from core.models.loading import Loaded
from tests.support import families
from tests.support.method_cases import SCORED
from tests.support.samples import EXACT, around, fed_nll, gap, method_of, random_ids, tiny_llama

OPTIONS: dict[str, dict[str, Any]] = {
    "by default": {},
    "with sinks": {"sinks": 4},
    "at absolute positions": {"positions": "absolute"},
}


def scored(name: str, own: dict[str, Any] | None = None, **asked: Any) -> Method:
    return method_of(name, param=tuple((own or {}).items()), **asked)


def expected(method: Method, loaded: Loaded, ids: Tensor) -> Tensor:
    nats: Tensor = registry.imported(method.spec.reference)(loaded.model, ids, method.config)
    return nats


def family(name: str, **other: Any) -> Loaded:
    """A tiny model of a family, some of its configuration changed."""
    named = {"model_type": families.model_type(name)}
    changed = families.FAMILIES | {name: families.FAMILIES[name] | named | other}
    with patch.object(families, "FAMILIES", changed):
        return around(families.build(name))


@pytest.fixture(scope="module")
def llama() -> Loaded:
    """Random, with grouped queries."""
    return around(tiny_llama())


@pytest.mark.parametrize("own", [own for own in OPTIONS if OPTIONS[own]])  # others: test_modes
@pytest.mark.parametrize("name", SCORED)
def test_a_trained_gpt_neox_scores_as_the_obvious_loop_has_it(
    neox: Loaded, neox_ids: Tensor, name: str, own: str
) -> None:
    ids, method = neox_ids[:1, :32], scored(name, OPTIONS[own], window=12)
    assert gap(fed_nll(neox, ids, 1, method), expected(method, neox, ids)) < EXACT


@pytest.mark.parametrize(
    "own", [pytest.param(own, marks=[pytest.mark.slow] if OPTIONS[own] else ()) for own in OPTIONS]
)
@pytest.mark.parametrize("name", SCORED)
@pytest.mark.slow
def test_a_llama_with_grouped_queries_does_and_its_rows_decide_for_themselves(
    llama: Loaded, name: str, own: str
) -> None:
    ids, method = random_ids(2, 40), scored(name, OPTIONS[own], window=12)
    both = fed_nll(llama, ids, 1, method)
    assert gap(both, expected(method, llama, ids)) < EXACT  # which reads rows one by one
    assert gap(both[:1], fed_nll(llama, ids[:1], 1, method)) < EXACT


@pytest.mark.parametrize("recent", [0.0, 0.9])
@pytest.mark.slow
def test_the_share_of_recent_tokens_is_h2os_own(llama: Loaded, recent: float) -> None:
    ids, method = random_ids(1, 70), scored("h2o", {"recent": recent})
    got = fed_nll(llama, ids, 1, method)
    assert gap(got, expected(method, llama, ids)) < EXACT
    assert gap(got, fed_nll(llama, ids, 1, scored("h2o"))) > EXACT


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.slow
def test_of_equal_keys_such_as_a_words_that_comes_again_the_oldest_goes(
    llama: Loaded, name: str
) -> None:
    ids, method = random_ids(1, 6).repeat(1, 12), scored(name)
    assert gap(fed_nll(llama, ids, 1, method), expected(method, llama, ids)) < EXACT


FULL = {"layer_types": [families.FULL] * 2}
KINDS: dict[str, dict[str, Any]] = {
    "gemma2": FULL,  # a cap on logits
    "gpt_oss": FULL,  # learned sinks, and frequencies that YaRN scales
    "smollm3": {"layer_types": [families.FULL] * 4},  # layers without rotary positions
    "ministral3": {},  # queries that grow with position
    "cohere": {},  # neighbours are turned together
    "glm": {},  # half of the dims
    "deepseek_v3": {},  # the last dims, and values of another size
    "mistral": {},  # every layer has a window of its own
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_family_adds_to_its_attention_is_kept(kind: str) -> None:
    loaded, ids = family(kind, **KINDS[kind]), families.tokens(26)
    if any(layer.latent for layer in anatomy.of(loaded.model).layers):
        pytest.skip("this transformers keeps what its keys are made of: such is refused")
    for name in SCORED:
        method = scored(name, n_sink=2, window=10)
        assert gap(fed_nll(loaded, ids, 1, method), expected(method, loaded, ids)) < EXACT


@pytest.mark.parametrize("name", SCORED)
def test_a_query_sees_s_plus_w_keys_and_itself_at_every_step(
    llama: Loaded, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: dict[int, list[int]] = {}
    update = ScoredLayer.update

    def spy(self: ScoredLayer, *args: Any, **kwargs: Any) -> Any:
        keys, values = update(self, *args, **kwargs)
        assert keys.shape[-2] == values.shape[-2]
        returned.setdefault(self.cache.layers.index(self), []).append(keys.shape[-2])
        return keys, values

    monkeypatch.setattr(ScoredLayer, "update", spy)
    method, ids = scored(name), random_ids(1, 60)
    stream = method.start(llama, 1)
    with torch.inference_mode():
        for t in range(60):
            assert stream.held() == min(t, 31)
            stream.feed(ids[:, t : t + 1])
    wanted = [min(t, 31) + 1 for t in range(60)]
    assert returned == {0: wanted, 1: wanted} and method.attended([60]).tolist() == wanted
    keys = 2 * 2 * 31 * 16 * 2 * 4  # layers, heads, keys, dims, and values, in float32
    beside = 2 * 2 * 31 * 4 if name == "h2o" else 0  # a sum for each key
    assert stream.kv_bytes() == keys + beside == method.kv_formula_bytes(llama, 1, [60])
    assert method.config.attended_keys == method_of("streaming").config.attended_keys


@pytest.mark.parametrize("own", OPTIONS)
@pytest.mark.parametrize("name", SCORED)
def test_all_that_layers_hold_between_tokens_counts_as_kv(
    llama: Loaded, name: str, own: str
) -> None:
    method = scored(name, OPTIONS[own])
    stream: Any = method.start(llama, 2)
    with torch.inference_mode():
        stream.feed(random_ids(2, 60))
    layers = stream.cache.layers
    tensors = [x for layer in layers for x in vars(layer).values() if isinstance(x, Tensor)]
    assert stream.kv_bytes() == sum(int(each.nbytes) for each in tensors)
    assert stream.kv_bytes() == method.kv_formula_bytes(llama, 2, [60])


def kept(loaded: Loaded, name: str, **own: Any) -> Tensor:
    """The tokens that each layer's heads keep of 80, (layers, K, n)."""
    stream: Any = scored(name, {"positions": "absolute", **own}).start(loaded, 1)
    with torch.inference_mode():
        stream.feed(random_ids(1, 80))
    return torch.stack([layer.places[0] for layer in stream.cache.layers])


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.slow
def test_sinks_stay_where_asked_for_and_heads_choose_by_themselves_but_in_tova(
    llama: Loaded, name: str
) -> None:
    found, sinked = kept(llama, name), kept(llama, name, sinks=4)
    assert (sinked[..., :4] == torch.arange(4)).all() and not (found[..., :4] < 4).all()
    assert (found.diff(dim=-1) > 0).all()
    alike = [bool((layer == layer[0]).all()) for layer in found]
    assert all(alike) if name == "tova" else not any(alike)
    assert not torch.equal(found[0], found[1])


def test_a_share_is_rounded_down_as_it_is_written() -> None:
    wanted = {(0.29, 100): 29, (0.58, 50): 29, (0.5, 31): 15, (1 / 3, 30): 9, (0.0, 9): 0}
    for (recent, keys), count in wanted.items():
        method: Any = scored("h2o", {"recent": recent}, n_sink=0, window=keys)
        assert method.recent == count


def test_h2o_keeps_as_many_of_the_recent_as_it_says(llama: Loaded) -> None:
    assert (kept(llama, "h2o")[..., -15:] == torch.arange(65, 80)).all()
    assert not (kept(llama, "h2o", recent=0.0)[..., -15:] == torch.arange(65, 80)).all()


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.slow
def test_a_chunk_is_its_tokens_one_by_one_and_that_is_said(llama: Loaded, name: str) -> None:
    ids = random_ids(2, 60)
    method = scored(name, mode="chunked", chunk_size=16)
    assert torch.equal(fed_nll(llama, ids, 16, method), fed_nll(llama, ids, 1, method))
    assert "reads many as it does one by one" in method.notes(llama, 60)[0]
    assert scored(name).notes(llama, 60) == ()


def test_a_model_attends_as_before_afterwards(llama: Loaded) -> None:
    before, ids = llama.model.config._attn_implementation, random_ids(1, 9)
    want = llama.model(ids).logits
    fed_nll(llama, ids, 1, scored("tova"))
    assert llama.model.config._attn_implementation == before
    assert torch.equal(llama.model(ids).logits, want)


@pytest.mark.slow
@pytest.mark.parametrize("own", OPTIONS)
@pytest.mark.parametrize("name", SCORED)
def test_on_another_device_no_operation_takes_tensors_of_the_host(
    llama: Loaded, name: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modeling_llama, "maybe_autocast", lambda **_: nullcontext(), raising=False)
    found = anatomy.of(llama.model)
    meta = torch.device("meta")  # where there are no values to see
    rotation = found.layers[0].rotation
    assert rotation
    there = replace(rotation, inv_freq=rotation.inv_freq.to(meta), device=meta)
    layers = tuple(replace(layer, rotation=there) for layer in found.layers)
    monkeypatch.setattr(anatomy, "of", lambda model: replace(found, layers=layers))
    loaded = around(tiny_llama().to(meta))
    with torch.inference_mode():
        stream = scored(name, OPTIONS[own], window=10, n_sink=0).start(loaded, 2)
        for _ in range(13):
            assert stream.feed(torch.zeros(2, 1, dtype=torch.int64, device=meta)).is_meta


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "gemma3_text": ({}, "some of its layers have a window of their own"),
    "gptj": ({}, "it takes no registered attention functions"),
    "mistral": ({"positions": "absolute"}, "look back only so far.*use positions=cache"),
    "gpt2": ({}, "no rotary positions"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_layers_that_no_score_may_cut_are_refused_in_a_line(kind: str) -> None:
    loaded, (own, words) = family(kind), REFUSED[kind]
    if "registered" in words and anatomy.of(loaded.model).registered:
        pytest.skip("this transformers lets it take attention functions")
    for name in SCORED:
        with pytest.raises(UsageError, match=words) as caught:
            scored(name, own, window=10).start(loaded, 1)
        assert "\n" not in str(caught.value)


def test_options_that_cannot_be_are_refused(llama: Loaded) -> None:
    wrong = {
        ("tova", "sinks", -1): "sinks is -1: it must be 0 or more",
        ("knorm", "positions", "rank"): "positions is 'rank': choose cache or absolute",
        ("h2o", "recent", 1.0): "recent is 1: it must be 0 or more and below 1",
        ("keydiff", "recent", 0.5): "unknown option of 'keydiff' 'recent'",
    }
    for (name, option, value), words in wrong.items():
        with pytest.raises(UsageError, match=words):
            RunConfig(method=name, param=((option, value),))
    with pytest.raises(UsageError, match="sinks is 31 in a cache of 31 keys: choose 30 or less"):
        scored("tova", {"sinks": 31}).start(llama, 1)
    with pytest.raises(UsageError, match="20 sinks and 15 recent tokens are more than the 31"):
        scored("h2o", {"sinks": 20}).start(llama, 1)


def test_frequencies_that_change_with_length_refuse_positions_beyond() -> None:
    loaded = around(tiny_llama({"rope_type": "dynamic", "factor": 2.0}))
    with pytest.raises(UsageError, match="301 positions are needed"):
        scored("knorm", window=296).start(loaded, 1)
    stream: Any = scored("knorm", {"positions": "absolute"}).start(loaded, 1)
    stream.cache.layers[0].seen = 256
    with pytest.raises(UsageError, match="257 positions are needed.*positions=cache"):
        stream.feed(random_ids(1, 1))
