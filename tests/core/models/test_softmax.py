"""A softmax that is off by one, under every method, is one with a 1 more in its sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from core.config import RunConfig
from core.errors import UsageError
from core.models import anatomy, softmax
from core.models.loading import Loaded
from core.proof.reference import streaming_nll
from core.proof.verify import verify
from tests.support import families
from tests.support.method_cases import BUDGET, N_SINK, WINDOW, dense, need, recompute
from tests.support.samples import (
    EXACT,
    around,
    fed_nll,
    gap,
    method_of,
    random_ids,
    read,
    refusal,
    thinned,
    tiny_llama,
)


def llama(heads: int) -> Any:
    """``tiny_llama`` with so many heads of keys."""
    config = tiny_llama().config
    config.num_key_value_heads = heads
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval().requires_grad_(False)


MODELS: dict[str, Callable[[], Any]] = {
    "gpt_neox": lambda: families.build("gpt_neox"),
    "llama": lambda: llama(4),
    "llama, grouped queries": lambda: llama(2),
}
OFF = "off-by-one"
IDS = random_ids(2, 2 * BUDGET + 5)


def off_by_one(model: Any) -> Loaded:
    softmax.set_off_by_one(model)
    wordless = SimpleNamespace(decode=lambda ids, **how: "")
    return Loaded(model, wordless, "", None, "", 256, 0)


@contextmanager
def one_more(model: Any) -> Iterator[Any]:
    """``model`` with transformers' own eager attention, in whose softmax 1 is added to the sum."""

    def with_one(x: Tensor, dim: int = -1, **kwargs: Any) -> Tensor:
        shares = x.double().exp()
        return (shares / (1 + shares.sum(dim, keepdim=True))).to(kwargs.get("dtype") or x.dtype)

    model.set_attn_implementation("eager")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "softmax", with_one)
        yield model


def streaming(model: Any, ids: Tensor) -> Tensor:
    return streaming_nll(model, ids[None], N_SINK, WINDOW)[0]


def window(model: Any, ids: Tensor) -> Tensor:
    return streaming_nll(model, ids[None], 0, N_SINK + WINDOW)[0]


CASES = {
    "streaming": streaming,
    "window": window,
    "mit": streaming,
    "kvpress": streaming,
    "recompute": recompute,
    "dense": dense,
}


@cache
def wanted(name: str, case: Callable[[Any, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Nats of ``IDS`` with one more in the sum, and without."""
    with one_more(MODELS[name]()) as plain:
        want = torch.stack([case(plain, row) for row in IDS])
    return want, torch.stack([case(MODELS[name](), row) for row in IDS])


@pytest.mark.slow
@pytest.mark.parametrize("method", CASES)
@pytest.mark.parametrize("name", MODELS)
def test_every_method_equals_eager_attention_with_one_more_in_its_sum(
    name: str, method: str
) -> None:
    need(method)
    want, without = wanted(name, CASES[method])
    assert gap(want, without) > 100 * EXACT
    loaded = off_by_one(MODELS[name]())
    asked = method_of(method, n_sink=N_SINK, window=WINDOW)
    for size in (1, 7, IDS.shape[1]) if asked.spec.exact_chunks else (1,):
        assert gap(fed_nll(loaded, IDS, size, asked), want) < EXACT, size


@pytest.mark.usefixtures("traced")  # test_engine holds compiled code against the eager step
@pytest.mark.parametrize("name", ["gpt_neox", "llama, grouped queries"])
@pytest.mark.slow
def test_a_compiled_step_has_it_too(name: str) -> None:
    with one_more(thinned(MODELS[name]())) as plain:
        want = torch.stack([streaming(plain, row) for row in IDS])
    method = method_of("streaming", n_sink=N_SINK, window=WINDOW, engine="compiled")
    assert gap(fed_nll(off_by_one(thinned(MODELS[name]())), IDS, 1, method), want) < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma2", "gemma3_text"])
def test_verify_proves_it_with_caps_windows_and_scores(name: str) -> None:
    """By loops in which it is written out, and that are handed what the methods chose."""
    loaded, ids = off_by_one(families.build(name)), families.tokens(44)[0]
    config = RunConfig(n_sink=4, window=12, chunk_size=16, device="cpu", softmax_type=OFF)
    names = [
        "streaming",
        "streaming-int",
        "context-shift",
        "tova",
        "h2o",
        "keydiff",
        "knorm",
        "mit",
    ]
    found = list(
        verify(loaded, ids, config, [*names, "recompute", "dense"], ("decode-loop", "chunked"))
    )
    run = [each for each in found if each.claimed]
    assert len(run) > 15 and all(each.passed for each in run), run
    with one_more(families.build(name)) as plain:
        want = dense(plain, ids[:20])
    assert gap(fed_nll(loaded, ids[None, :20], 1, method_of("dense"))[0], want) < EXACT


def test_a_model_with_learned_sinks_and_one_that_takes_none_are_refused_without_weights() -> None:
    whys = {
        "gpt_oss": "has learned sinks of its own in the softmax",
        "falcon": "does not take registered attention functions",
    }
    for name, why in whys.items():
        with pytest.raises(UsageError, match=f"softmax_type is 'off-by-one', but .* {why}") as told:
            softmax.check_config(families.config(name))
        assert "\n" not in str(told.value)


@pytest.mark.slow
def test_learned_sinks_of_0_are_a_softmax_that_is_off_by_one() -> None:
    """What a model of gpt-oss's kind has learned is in the sum as the 1 is."""
    model, ids = families.build("gpt_oss"), families.tokens(60)
    for name, weight in model.named_parameters():
        if name.endswith("sinks"):
            weight.zero_()
    loaded = around(model)
    want = streaming_nll(model, ids, N_SINK, WINDOW)
    for size in (1, 16):
        asked = method_of(n_sink=N_SINK, window=WINDOW)
        assert gap(fed_nll(loaded, ids, size, asked), want) < EXACT, size


def test_a_press_that_weighs_by_itself_is_refused_before_a_model_is_named() -> None:
    with pytest.raises(UsageError, match="'kvpress:SnapKVPress' weighs keys by a plain softmax"):
        RunConfig(method="kvpress:SnapKVPress", softmax_type=OFF)
    assert RunConfig(method="kvpress:StreamingLLMPress", softmax_type=OFF).softmax_type == OFF


def test_the_models_own_softmax_is_the_configuration_that_older_records_have() -> None:
    config = RunConfig(window=60)
    assert config == RunConfig(window=60, softmax_type="own")
    assert replace(config, softmax_type=OFF).key != config.key
    with pytest.raises(UsageError, match="unknown softmax_type 'zero': choose one of own, off-by"):
        RunConfig(softmax_type="zero")


def test_a_loaded_model_has_it_and_a_folder_with_sinks_is_refused(tmp_path: Path) -> None:
    assert anatomy.of(read("bundled", softmax_type=OFF).model).refusal is None
    families.config("gpt_oss").save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "learned sinks of its own" in refusal(tmp_path, softmax_type=OFF)
