"""A probe says what the model's own attention maps say, before and after eviction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core import attention, probe, runner, sinks
from core.config import RunConfig
from core.errors import UsageError
from core.models.loading import Loaded
from core.tokens import TokenDocument, TokenStream
from tests.support.families import build, tokens
from tests.support.samples import ROPES, around, tiny_llama
from tests.support.talking import tokenizer

WITHIN = 1e-5
SINK, ELSE = 5, 9  # ids of a planted model


def maps(model: Any, ids: Tensor) -> Tensor:
    """What transformers itself says, (L, B, H, T, T)."""
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        return torch.stack(model(ids, output_attentions=True).attentions).double()


@pytest.mark.parametrize(
    "family", ["llama", "gpt_neox", "gemma2", "gemma3_text", "gpt_oss", "ministral3"]
)
@pytest.mark.slow
def test_means_are_those_of_the_models_own_attention_maps(family: str) -> None:
    model, ids = build(family), torch.cat([tokens(200), tokens(200, seed=1)])
    looked = probe.look(model, ids, start=64)
    shares, token = maps(model, ids), torch.arange(200)
    late = shares[..., 64:, :].sum(-2) / (200 - token.clamp(min=64))
    assert (looked.late - late).abs().max() < WITHIN
    behind = token[:, None] - token >= sinks.FAR
    far = (shares * behind).sum(-2)[..., : 200 - sinks.FAR] / behind.sum(0)[: 200 - sinks.FAR]
    assert (looked.far[..., : 200 - sinks.FAR] - far).abs().max() < WITHIN
    assert looked.far[..., 200 - sinks.FAR :].isnan().all()
    assert looked.late.shape == late.shape and float(late.max()) > 0.02


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.slow
def test_after_eviction_each_query_is_as_over_what_is_kept(family: str) -> None:
    """A first layer's inputs do not depend on what was seen, so that maps of kept tokens do."""
    model, ids, s, w = build(family), tokens(150), 3, 20
    looked = probe.look(model, ids, sizes=(s, w), start=s + w + 1)
    want = torch.zeros_like(looked.late[0])
    for t in range(s + w + 1, 150):
        kept = [*range(s), *range(t - w, t + 1)]
        want[..., kept] += maps(model, ids[:, kept])[0, :, :, -1]
    want /= 150 - torch.arange(150).clamp(min=s + w + 1)
    assert (looked.late[0] - want).abs().max() < WITHIN
    np.testing.assert_allclose(looked.first(s)[0], want[0, :, :s].sum(-1), atol=WITHIN)


@pytest.mark.parametrize("length", [probe.BLOCK, probe.BLOCK + 1, 2 * probe.BLOCK + 1])
def test_every_query_is_counted_however_the_text_is_cut(length: int) -> None:
    looked = probe.look(build("llama"), tokens(length))
    everything = looked.late * (length - torch.arange(length))
    assert torch.allclose(everything.sum(-1), torch.tensor(float(length)).double(), atol=1e-3)


def test_frequencies_that_change_with_length_stay_as_they_are() -> None:
    model = tiny_llama(ROPES["dynamic"])
    length = probe.longest(around(model))
    ids, want = tokens(length), maps(tiny_llama(ROPES["dynamic"]), tokens(length))
    assert 100 < length < 256
    late = probe.look(model, ids).late * (length - torch.arange(length))
    assert (late - want.sum(-2)).abs().max() < length * WITHIN


def test_no_more_than_a_block_of_queries_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real, held = attention.weights, list[torch.Size]()

    def spy(parts: Any, extra: Any) -> Tensor:
        shares = real(parts, extra)
        held.append(shares.shape)
        return shares

    model, length = build("llama"), 250
    probe.look(model, tokens(10))  # which proves the model first, by forwards of its own
    monkeypatch.setattr(probe, "weights", spy)
    monkeypatch.setattr(probe, "BLOCK", 20)
    probe.look(model, tokens(length))
    groups = 2  # heads that share keys, whose queries stand in a row
    assert len(held) == 2 * -(-length // 20) and all(b == 1 for b, *_ in held)
    assert max(rows for _, _, rows, _ in held) <= groups * 21


def planted() -> Loaded:
    """A model whose heads attend to tokens ``SINK`` at any distance, and hardly to others."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config).eval().requires_grad_(False)
    embedding, attention = model.model.embed_tokens.weight, model.model.layers[0].self_attn
    embedding[:, 1], embedding[SINK, 0] = 1, 1
    for part, given in ((attention.q_proj, 1), (attention.k_proj, 0)):
        part.weight[7::16, given] = 2  # of the pair that turns least
    return Loaded(model, tokenizer(None), "planted", None, "", 1024, 0)


def stream(*rows: list[int]) -> TokenStream:
    documents = tuple(TokenDocument(str(n), torch.tensor(row)) for n, row in enumerate(rows))
    return TokenStream(documents, sha256="", bos="none")


def config(**asked: Any) -> RunConfig:
    given = {"model": "planted", "n_sink": 2, "window": 28, "chunk_size": 64}
    return RunConfig(**{**given, "mode": "chunked", "device": "cpu", "evict_every": 1, **asked})


def test_a_sink_is_found_wherever_it_stands() -> None:
    row = [ELSE] * 300
    row[100] = SINK
    found = probe.probe(planted(), stream(row), config())
    (sink,) = found.sinks
    assert (sink.position, sink.heads) == (100, 1.0) and sink.mass > 0.9
    assert sink.text == planted().tokenizer.decode([SINK])
    assert found.sink_rate == 0 and found.before.max() < 0.1


@pytest.mark.slow
def test_the_sink_rate_is_the_share_of_heads_over_texts_of_64_tokens() -> None:
    text, other = [SINK] + [ELSE] * 63, [ELSE] * 64
    found = probe.probe(planted(), stream(text + other * 3, text), config())
    assert found.pieces == 5 and found.sink_rate == pytest.approx(2 / 5)
    half = [SINK, *[ELSE] * 31] * 2  # two sinks share what queries from 32 on give: 3/4 on average
    for threshold, rate in ((0.7, 1 / 5), (0.8, 0)):
        halved = probe.probe(planted(), stream(other * 3, half, other), config(), threshold)
        assert halved.sink_rate == pytest.approx(rate)
    assert found.before.shape == found.after.shape == (1, 4)
    assert found.before.min() > 0.9 and found.after.min() > 0.9


def test_every_text_of_the_sink_rate_begins_as_a_document_does() -> None:
    documents = stream([1, *range(2, 200)], [1, *range(300, 400)])
    pieces = [piece.tolist() for piece in probe._pieces(documents, [1])]
    assert [piece[:2] for piece in pieces] == [[1, 2], [1, 65], [1, 128], [1, 300]]
    assert {len(piece) for piece in pieces} == {64} and pieces[2][-1] == 190
    assert [piece[0] for piece in map(list, probe._pieces(documents, []))] == [1, 65, 129, 1]


def test_the_smallest_s_suffices_that_no_larger_one_betters_by_a_hundredth() -> None:
    assert sinks.suffices({0: 17.90, 1: 12.12, 2: 12.12, 4: 12.12, 8: 12.12}) == 1  # Falcon-7B
    assert sinks.suffices({0: 3359.95, 1: 11.88, 2: 10.51, 4: 9.59, 8: 9.54}) == 4  # Llama-2-7B
    assert sinks.suffices({0: 27.87, 1: 18.49, 2: 18.05, 4: 18.05}) == 2  # 160M
    assert sinks.suffices({0: 10.0, 1: 10.05, 2: 9.95}) == 0
    assert sinks.suffices({0: 10.0, 1: 8.0, 2: 9.0}) == 1


def test_perplexities_are_those_of_runs_and_the_bundled_model_has_no_sinks(trained: Loaded) -> None:
    asked = RunConfig(
        model="bundled", dataset="bundled-narrative", mode="chunked", window=60, max_tokens=400
    )
    prepared = runner.prepare(asked, trained, runner.read_text(asked, trained))
    found = probe.probe(trained, prepared.tokens, prepared.config)
    assert list(found.perplexities) == list(sinks.SINKS)
    assert found.perplexities[4] == runner.execute(prepared, lambda *_: None).ppl
    assert found.sink_rate == 0 and found.suffices == 0
    assert found.before.shape == (4, 4) and found.pieces == 6


def test_what_proves_nothing_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="90 tokens hardly fill a cache of 31 keys") as caught:
        probe.probe(planted(), stream([ELSE] * 90), config())
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="can't stream"):
        probe.longest(around(build("gpt2")))
