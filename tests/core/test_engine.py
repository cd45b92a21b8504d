"""A decode step of static shapes: the same scores by every engine, and nothing that grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count, islice
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core import cache as caches
from core import engine
from core.attending import streaming_attention
from core.cache import StreamingKVCache
from core.config import RunConfig
from core.engine import Engine
from core.errors import StreamError, UsageError
from core.measure.meters import Clock, token_nll
from core.methods.base import Method
from core.methods.streaming import CachedStream
from core.models import shapes, softmax
from core.models.loading import Loaded
from core.weights import by_columns, in_16_bits
from tests.support.evaluated import evaluate
from tests.support.samples import EXACT, around, ids_of, method_of, random_ids, thinned, tiny_llama


def tiny_neox() -> Any:
    model = shapes.build("tiny", dtype="float32", device="cpu").model
    for weight in model.parameters():
        weight.mul_(4)  # so that its attention tells keys apart
    return model


MODELS: dict[str, Callable[[], Any]] = {"neox": tiny_neox, "llama": tiny_llama}


@torch.inference_mode()
def streamed(model: Any, ids: Tensor, kind: str | None, every: int = 1) -> Tensor:
    """Nats of ids[:, 1:] one token at a time, through an engine once the cache is full."""
    cache, parts = StreamingKVCache(4, 27, model, every), []
    stepper = Engine(model, cache, kind) if kind else None
    for t in range(ids.shape[1] - 1):
        cache.make_room(1)
        token = ids[:, t : t + 1]
        if stepper and stepper.ready:
            logits = stepper(token)
        else:
            with streaming_attention(model):
                logits = model(token, past_key_values=cache, stream=cache).logits
        parts.append(token_nll(logits, ids[:, t + 1 : t + 2]))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_the_static_step_equals_the_cache_on_every_token_though_the_frame_moves(
    name: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "REACH", 16)
    model, ids = MODELS[name](), random_ids(2, 160)
    gap = (streamed(model, ids, "eager", every) - streamed(model, ids, None, every)).abs()
    assert float(gap.max()) < EXACT


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("name", "threads", "narrow", "off_by_one"),
    [("neox", 2, True, False), ("llama", 1, False, True)],
)  # every way to lay weights out is held against others, without a compiler, in test_weights
def test_the_compiled_step_is_compiled_once_and_equals_the_eager_one_on_every_token(
    name: str, threads: int, narrow: bool, off_by_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)  # shared out or not
    monkeypatch.setattr(caches, "REACH", 16)
    model, ids = thinned(MODELS[name]()), random_ids(1, 120)
    if off_by_one:
        softmax.set_off_by_one(model)
    counters.clear()
    with by_columns(model), in_16_bits(model) if narrow else nullcontext():
        got = [streamed(model, ids[:, :length], "compiled") for length in (120, 60)]
        want = streamed(model, ids, None)
    for each in got:
        assert float((each - want[:, : each.shape[1]]).abs().max()) < EXACT
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.usefixtures("traced")
def test_a_compiled_run_is_the_eager_one_but_for_its_times(
    thin: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks, made = count(), Engine._made

    def slowly(self: Engine, ids: Tensor) -> Any:
        list(islice(ticks, 1000))
        return made(self, ids)

    monkeypatch.setattr(Clock, "_now", lambda _: float(next(ticks)))  # a look takes a second
    monkeypatch.setattr(Engine, "_made", slowly)
    documents = [ids_of(thin, 140)[0], ids_of(thin, 90)[1]]
    eager = evaluate(thin, documents, engine="eager")
    compiled = evaluate(thin, documents, engine="compiled")
    assert abs(eager.nll - compiled.nll).max() < EXACT
    assert (eager.engine, eager.compile_s) == ("eager", 0)
    assert compiled.engine == "compiled" and compiled.compile_s > 0
    assert compiled.kv_mib == compiled.kv_formula_mib == eager.kv_mib
    assert compiled.compile_s > 1000 and set(compiled.latency_ms) == {1000}, "none of it in a step"


@pytest.mark.usefixtures("traced")
def test_a_step_is_made_where_it_is_timed_though_a_chunk_of_one_token_comes_before(
    thin: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # so that layouts differ
    asked: dict[str, Any] = {"timed_tokens": 20, "chunk_size": 19}  # 19 and 1 fill a cache of 4+15
    eager, compiled = (
        evaluate(thin, [ids_of(thin, 90)[0]], engine=kind, **asked)
        for kind in ("eager", "compiled")
    )
    assert compiled.engine == "compiled" and compiled.compile_s > 0
    assert abs(eager.nll - compiled.nll).max() < EXACT
    assert compiled.prefill_s < compiled.compile_s


def test_an_engine_that_nobody_asked_for_gives_way_and_another_is_an_error(
    neox: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def broken(model: Any) -> Any:
        tried.append(model)
        raise RuntimeError("a compiler that fails")

    ids = [ids_of(neox, 90)[0], ids_of(neox, 80)[0]]
    eager = evaluate(neox, ids, engine="eager")
    monkeypatch.setattr(engine, "_compiled", broken)
    with pytest.raises(StreamError, match="use --engine eager"):
        evaluate(neox, ids, engine="compiled")
    monkeypatch.setattr(Method, "may_be_eager", True)
    tried.clear()
    result = evaluate(neox, ids, engine="compiled")
    assert (result.engine, result.nll.tolist()) == ("eager", eager.nll.tolist())
    (said,) = [note for note in result.notes if "engine" in note]
    assert said.startswith("engine auto is eager here: no compiled step") and "fails" in said
    assert len(tried) == 1  # and not at each document


def test_between_steps_only_the_first_is_prepared_so_that_moving_the_frame_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caches, "REACH", 16)
    model, ids = tiny_llama(), random_ids(1, 120)
    cache = StreamingKVCache(4, 27, model)
    stream = CachedStream(cast(Loaded, SimpleNamespace(model=model)), cache)
    stream.stepper = Engine(model, cache, "eager")
    moved: list[str] = []
    with torch.inference_mode():
        stream.feed(ids[:, :50])
        for t in range(50, 119):
            for name in ("warm", "feed"):
                before = cache.base
                getattr(stream, name)(ids[:, t : t + 1])
                moved += [name] * (cache.base != before)
    assert moved.count("feed") >= 3 and moved.count("warm") <= 1


def test_a_cache_that_evicts_lazily_is_full_k_less_1_tokens_later() -> None:
    for every in (1, 9):
        method, model = method_of("streaming", evict_every=every), tiny_llama()
        loaded = cast(Loaded, SimpleNamespace(model=model))
        stream = method.start(loaded, 1)
        assert isinstance(stream, CachedStream)
        stepper, ready = Engine(model, stream.cache, "eager"), []
        with torch.inference_mode():
            for tokens in (method.full_after(loaded) - 2, 1):
                stream.feed(random_ids(1, tokens))
                ready.append(stepper.ready)
        assert ready == [False, True]


def test_a_text_too_short_for_a_static_step_is_recorded_as_eager(neox: Loaded) -> None:
    result = evaluate(neox, [ids_of(neox, 20)[0]], engine="compiled")
    assert (result.engine, result.compile_s) == ("eager", 0)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the tensors that are made, by operation and shape."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "_local_scalar_dense" not in str(func), "the host waits for the device"
        out = func(*args, **(kwargs or {}))
        shape = tuple(out.shape) if isinstance(out, Tensor) else None
        self.made[(str(func), shape)] += 1
        return out


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.slow
def test_a_step_asks_nothing_of_the_host_and_makes_the_same_tensors_for_ever(every: int) -> None:
    model, ids = tiny_llama(), random_ids(1, 400)
    cache = StreamingKVCache(4, 27, model, every)
    with torch.inference_mode(), streaming_attention(model):
        model(ids[:, :50], past_key_values=cache, stream=cache)
        stepper, seen = Engine(model, cache, "eager"), []
        places = [layer.keys.data_ptr() for layer in cache.layers]
        for t in range(50, 150):
            token = ids[:, t : t + 1]
            stepper.warm(token)
            with _Watch() as watch:
                stepper(token)
            seen.append(watch.made)
    assert all(each == seen[1] for each in seen[1:])
    assert places == [layer.keys.data_ptr() for layer in cache.layers]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"engine": "compiled", "method": "mit"}, "'mit' has none such"),
        ({"engine": "compiled", "mode": "chunked"}, "'chunked' has none such"),
        ({"engine": "fast"}, "unknown engine 'fast'"),
    ],
)
def test_an_engine_that_can_not_be_is_refused_at_once(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        RunConfig(**asked)


def test_a_model_or_machine_that_an_engine_can_not_run_on_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_llama()
    loaded = around(model)
    with pytest.raises(UsageError, match="needs a CUDA device"):
        method_of("streaming", engine="cudagraph").start(loaded, 1)
    monkeypatch.setattr(engine, "compiler", lambda: None)
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler"):
        method_of("streaming", engine="compiled").start(loaded, 1)
    monkeypatch.setattr(engine, "OLDEST", "99.1")
    with pytest.raises(UsageError, match="needs PyTorch 99.1 or newer, and this is 2"):
        method_of("streaming", engine="compiled").start(loaded, 1)
    moving = tiny_llama({"rope_type": "dynamic", "factor": 2.0})
    with pytest.raises(UsageError, match="may change with length"):
        Engine(moving, StreamingKVCache(4, 27, moving), "compiled")


def test_a_step_that_can_not_be_compiled_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(model: Any) -> Any:
        raise RuntimeError("no room left " + "x y " * 99 + "\nfor anything")

    monkeypatch.setattr(engine, "_compiled", broken)
    monkeypatch.setattr(engine, "compiler", lambda: "g++")
    with pytest.raises(StreamError, match="no room left[xy .]{,200}.: use --engine eager"):
        streamed(tiny_llama(), random_ids(1, 60), "compiled")


def test_auto_compiles_only_where_that_pays_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "compiler", lambda: "g++")
    model = tiny_llama()
    assert engine.choose("auto", model, 500) == "eager"
    assert engine.choose("auto", model, 10_000_000) == "compiled"
    assert engine.choose("eager", model, 10_000_000) == "eager"
    moving = tiny_llama({"rope_type": "dynamic", "factor": 2.0})
    assert engine.choose("auto", moving, 10_000_000) == "eager"
    monkeypatch.setattr(engine, "OLDEST", "99.1")
    assert engine.choose("auto", model, 10_000_000) == "eager"
