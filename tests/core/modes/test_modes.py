"""Every mode with every method: the scores, and what is said of time and memory."""

from __future__ import annotations

import math
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core import registry
from core.config import RunConfig
from core.errors import UsageError
from core.models.loading import Loaded
from tests.support.evaluated import evaluate
from tests.support.method_cases import BUDGET, CASES, FOLLOWED, N_SINK, WINDOW, need
from tests.support.samples import EXACT

LENGTHS = (40, 32, 2)  # of a cache of 20


@pytest.fixture(scope="module")
def documents(neox_ids: Tensor) -> list[Tensor]:
    return [neox_ids[i % 2, 40 * i : 40 * i + length] for i, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def references(neox: Loaded, documents: list[Tensor]) -> dict[str, Tensor]:
    scored = {
        case: torch.cat([case(neox.model, ids) for ids in documents])
        for case in set(CASES.values())  # several methods share one
    }
    return {name: scored[case] for name, case in CASES.items()}


def claimed() -> list[tuple[str, str, int]]:
    """Methods, modes whose every token has a reference, and documents in step."""
    found = [("streaming", "decode-loop", 3), ("streaming", "chunked", 1)]
    for name in CASES:
        other = "chunked" if registry.METHODS[name].exact_chunks else "decode-loop"
        found += [(name, "decode-loop", 1), (name, other, 3)]
    return found


@pytest.mark.parametrize(("method", "mode", "batch_size"), claimed())
def test_every_method_scores_as_its_reference_in_every_exact_mode(
    neox: Loaded,
    documents: list[Tensor],
    references: dict[str, Tensor],
    method: str,
    mode: str,
    batch_size: int,
) -> None:
    need(method)
    result = evaluate(neox, documents, method=method, mode=mode, batch_size=batch_size)
    want = references[method]
    assert float((torch.from_numpy(result.nll) - want).abs().max()) < EXACT
    assert result.scored_tokens == sum(LENGTHS) - len(LENGTHS)
    assert result.ppl == pytest.approx(float(want.double().mean().exp()), rel=1e-5)
    cuts = torch.tensor(LENGTHS) - 1
    for document, part in zip(result.documents, torch.split(want, cuts.tolist()), strict=True):
        assert document.nll_nats == pytest.approx(float(part.double().sum()), rel=1e-5)


@pytest.mark.parametrize("mode", ["decode-loop", "chunked"])
@pytest.mark.parametrize("method", FOLLOWED)
def test_a_method_of_many_choices_scores_as_its_reference_that_follows_them(
    neox: Loaded, documents: list[Tensor], method: str, mode: str
) -> None:
    config = RunConfig(method=method, n_sink=N_SINK, window=WINDOW, device="cpu")
    loop = registry.imported(config.spec.reference)
    for ids in documents[1:]:
        choices: list[Tensor] = []
        result = evaluate(neox, [ids], choices, method=method, mode=mode)
        want = loop(neox.model, ids[None], config, choices)[0]
        assert float((torch.from_numpy(result.nll) - want).abs().max()) < EXACT


@pytest.mark.parametrize("method", CASES)
def test_a_sample_of_steps_scores_every_token_and_says_that_its_total_is_an_estimate(
    neox: Loaded, documents: list[Tensor], references: dict[str, Tensor], method: str
) -> None:
    need(method)
    result = evaluate(neox, documents, method=method, timed_tokens=20)
    assert float((torch.from_numpy(result.nll) - references[method]).abs().max()) < EXACT
    assert len(result.latency_ms) - result.warmup_tokens == 20
    assert result.total_is_estimate
    steps = sum(LENGTHS) - len(LENGTHS)
    assert result.total_s == pytest.approx(result.ms_per_token * steps / 1000)


def test_a_decode_loop_times_every_step_and_quotes_those_with_a_full_cache(
    neox: Loaded, documents: list[Tensor]
) -> None:
    result = evaluate(neox, documents)
    steps = sum(LENGTHS) - len(LENGTHS)
    assert len(result.latency_ms) == steps
    full = sum(max(0, length - 1 - BUDGET) for length in LENGTHS)
    assert result.warmup_tokens == steps - full
    assert result.ms_per_token_p50 is not None and result.ms_per_token_p99 is not None
    assert result.ms_per_token_p50 <= result.ms_per_token_p99
    assert result.total_s == pytest.approx(float(result.latency_ms.sum()) / 1000, rel=1e-5)
    assert not result.total_is_estimate


def test_a_text_too_short_to_fill_the_cache_says_so(neox: Loaded, documents: list[Tensor]) -> None:
    assert "filling cache" in evaluate(neox, documents, window=400).notes[-1]
    result = evaluate(neox, documents, window=400, timed_tokens=20)
    assert "too short to fill the cache" in result.notes[-1]
    with pytest.raises(UsageError, match="timed_tokens is 900"):
        evaluate(neox, documents, timed_tokens=900)


def test_chunks_have_a_throughput_and_no_latency(neox: Loaded, documents: list[Tensor]) -> None:
    result = evaluate(neox, documents, mode="chunked")
    assert result.ms_per_token_p50 is None and result.warmup_tokens == 0
    assert len(result.latency_ms) == sum(-(-(length - 1) // 16) for length in LENGTHS)
    assert result.ms_per_token == pytest.approx(1000 * result.elapsed_s / result.scored_tokens)


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that tensors made within it held at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage.data_ptr() not in self.held:
                self.held[storage.data_ptr()] = storage.nbytes()
                weakref.finalize(storage, self.held.pop, storage.data_ptr(), None)
        self.peak = max(self.peak, sum(self.held.values()))
        return out


@pytest.mark.parametrize(
    ("mode", "short", "long"), [("chunked", 400, 2000), ("decode-loop", 60, 160)]
)
def test_memory_is_bounded_by_chunk_and_window_whatever_the_length_of_the_stream(
    thin: Loaded, mode: str, short: int, long: int
) -> None:
    peaks = []
    for length in (short, long):
        with _Held() as held:
            evaluate(thin, [torch.arange(length) % 4000], mode=mode, chunk_size=32)
        peaks.append(held.peak)
    its_id_twice_and_its_score = 2 * 8 + 4  # bytes; the keys of a token would be 2,048
    window = thin.trained_length // 2
    known_by = 8 * 3 * window  # ids by which a cache knows its stream's history: two windows
    assert peaks[1] - peaks[0] <= its_id_twice_and_its_score * (long - short) + known_by
    assert peaks[0] > 4 * 4096 * (32 if mode == "chunked" else 1)  # the logits are among them


def test_a_long_run_tells_whether_its_time_grows(thin: Loaded, neox_ids: Tensor) -> None:
    for mode, size in (("decode-loop", 1), ("chunked", 2)):
        result = evaluate(thin, [neox_ids[0, :301]], mode=mode, chunk_size=size)
        steps = result.latency_ms[: 300 // size]
        tenth = (len(steps) - 1) // 10
        late, early = steps[9 * tenth : 10 * tenth], steps[tenth : 2 * tenth]
        assert result.time_growth == pytest.approx(np.median(late) / np.median(early))
    assert evaluate(thin, [neox_ids[0, :90]]).time_growth is None
    assert evaluate(thin, [neox_ids[0, :301]], timed_tokens=150).time_growth is None


def test_attended_keys_are_those_that_the_cache_returns(
    neox: Loaded, documents: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.cache import StreamingLayer

    seen: list[int] = []
    update = StreamingLayer.update

    def spy(self: StreamingLayer, *args: Any, **kwargs: Any) -> Any:
        keys, values = update(self, *args, **kwargs)
        if self is self.cache.layers[0]:
            seen.append(keys.shape[-2])
        return keys, values

    monkeypatch.setattr(StreamingLayer, "update", spy)
    result = evaluate(neox, documents)
    assert (min(seen), max(seen)) == (result.attended_keys_min, result.attended_keys_max)
    assert sum(seen) / len(seen) == pytest.approx(result.attended_keys_mean)
    assert result.attended_keys_max == BUDGET


@pytest.mark.parametrize("method", registry.METHODS)
def test_memory_held_is_what_the_formula_says(
    neox: Loaded, documents: list[Tensor], method: str
) -> None:
    need(method)
    for mode in registry.MODES:
        result = evaluate(neox, documents[:1], method=method, mode=mode)
        assert result.kv_mib == pytest.approx(result.kv_formula_mib)
        assert result.peak_mem_mib > 50


def test_dense_past_the_trained_length_says_so(neox: Loaded, neox_ids: Tensor) -> None:
    short = replace(neox, trained_length=100)
    result = evaluate(short, [neox_ids[0, :150]], method="dense", mode="chunked")
    assert result.attended_keys_max == 149
    assert "dense ran 49 tokens past the trained length of 100" in result.notes[0]


@pytest.mark.parametrize("method", ["streaming", "window", "mit", "recompute"])
def test_every_method_says_where_its_positions_leave_the_training(
    thin: Loaded, neox_ids: Tensor, method: str
) -> None:
    ids, said = [neox_ids[0, :40]], f"{method} ran 12 tokens past the trained length"
    for length, words in ((N_SINK + WINDOW + 1 - 12, [said]), (N_SINK + WINDOW + 1, [])):
        short = replace(thin, trained_length=length)
        notes = evaluate(short, ids, method=method).notes
        assert [note.split(" of ")[0] for note in notes if "past the" in note] == words


def test_equal_budgets_unless_asked_otherwise() -> None:
    streaming = RunConfig(n_sink=4, window=124)
    window = RunConfig(n_sink=4, window=124, method="window")
    assert (window.n_sink, window.window) == (0, 128)
    assert window.attended_keys == streaming.attended_keys == 129
    assert RunConfig(n_sink=0, window=124, method="window").window == 124


@pytest.mark.parametrize(("rows", "chunk"), [(1, 256), (4, 256), (8, 128), (16, 64), (500, 64)])
def test_more_rows_in_step_take_shorter_chunks(rows: int, chunk: int) -> None:
    config = RunConfig(batch_size=rows, mode="chunked")
    assert config.fitted(2048).chunk_size == chunk
    assert replace(config, chunk_size=7).fitted(2048).chunk_size == 7
    timed = RunConfig(batch_size=rows, timed_tokens=9)
    assert timed.fitted(2048).chunk_size == chunk
    assert replace(timed, timed_tokens=None, chunk_size=7).fitted(2048).chunk_size == 256


def test_room_for_a_chunk_is_made_as_for_a_document_alone(neox: Loaded, neox_ids: Tensor) -> None:
    documents = [neox_ids[0, :78], neox_ids[0, 8:78], neox_ids[1, :70]]
    asked: dict[str, Any] = {"method": "mit", "mode": "chunked", "chunk_size": 10}
    alone = [evaluate(neox, [each], **asked).nll for each in documents]
    together = evaluate(neox, documents, batch_size=3, **asked)
    assert abs(together.nll - np.concatenate(alone)).max() < EXACT
    said = "2 at most, where others read 3"
    assert any(said in note for note in together.notes)
    assert together.kv_mib == 2 * evaluate(neox, documents, batch_size=1, **asked).kv_mib
    alike = evaluate(neox, documents[1:], batch_size=2, **asked)
    assert not any("at most, where others" in note for note in alike.notes)


def test_word_and_byte_figures_come_from_the_same_scores(
    neox: Loaded, documents: list[Tensor]
) -> None:
    result = evaluate(neox, documents[:1], mode="chunked")
    text = neox.tokenizer.decode(documents[0][1:])
    nats = float(result.nll.astype("float64").sum())
    assert result.word_ppl == pytest.approx(math.exp(nats / len(text.split())))
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / len(text.encode()))
    assert result.byte_ppl == pytest.approx(2**result.bits_per_byte)
