"""transformers' ``generate`` with a streaming cache, against ``cache.read`` one token at a time."""

from __future__ import annotations

import copy
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from core import cache as caches
from core.attending import name_of as attention_of
from core.attending import streaming_attention
from core.cache import StreamingKVCache
from core.errors import StreamError, UsageError
from core.measure.meters import token_nll
from core.models.loading import Loaded
from tests.support import generate_page, generating
from tests.support.generate_cases import CASES, outcome
from tests.support.generating import N_SINK, WINDOW, greedy, name_of, options
from tests.support.samples import EXACT, gap, random_ids, tiny_llama


@pytest.fixture(scope="module")
def model() -> Any:
    return generating.model()


def cache_of(model: Any, **how: Any) -> StreamingKVCache:
    return StreamingKVCache(N_SINK, WINDOW, model, **how)


class Wrapper(torch.nn.Module):
    """A model in another module, as of peft."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, *args: Any, **given: Any) -> Any:
        return self.inner(*args, **given)


DEAR = (
    *("compiled", "compiled module", "very long", "prefill", "new", "read", "turns", "pipeline"),
    *("turns alone", "turns prefill", "assistant", "lookup", "beams", "hybrid", "latent"),
    *("bfloat16", "float16"),
)


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[pytest.mark.slow] if name in DEAR else ()) for name in CASES],
)
@pytest.mark.slow
def test_every_case_works_or_is_refused_in_one_line(case: str, model: Any) -> None:
    words = outcome(case, model)
    assert words.startswith(CASES[case].expected), words
    assert model.config._attn_implementation == "sdpa"
    columns, cells = generate_page.read()
    if generate_page.column() in columns:
        assert cells[CASES[case].words][generate_page.column()] == words  # docs/generate.md


def test_the_page_is_written_anew_and_what_stands_below_its_table_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "generate.md"
    page.write_text(generate_page.PAGE.read_text())
    monkeypatch.setattr(generate_page, "PAGE", page)
    monkeypatch.setattr(generate_page, "CASES", {"batch": CASES["batch"]})
    before, (columns, cells) = page.read_text(), generate_page.read()
    generate_page.write()
    below = before.partition(generate_page.BELOW)[2]
    assert len(below) > 500 and page.read_text().endswith(generate_page.BELOW + below)
    words = CASES["batch"].words
    assert generate_page.read()[0] == sorted({*columns, generate_page.column()}, key=len)
    assert generate_page.read()[1] == {words: {**cells[words], generate_page.column(): "works"}}


def test_the_model_is_as_it_was_and_another_cache_is_not_touched(model: Any) -> None:
    before, ids = model.generate, random_ids(1, 60)
    plain = model.generate(ids, **options(12))
    cache = cache_of(model)
    with streaming_attention(model, cache):
        model.generate(ids, **options(12))
        assert model.config._attn_implementation == attention_of(model.config)
    assert model.generate == before and "generate" not in vars(model)
    assert torch.equal(model.generate(ids, **options(12)), plain)
    assert cache.seen == 71 and cache.told == 0 and not cache.within


def test_a_failed_forward_leaves_the_model_as_it_was(model: Any) -> None:
    cache, ids = cache_of(model), random_ids(1, 60)
    with pytest.raises(UsageError, match="hides tokens"):
        model(ids, attention_mask=torch.zeros_like(ids), **{name_of(model): cache})
    with pytest.raises(IndexError):
        model(ids + 1000, **{name_of(model): cache})
    assert model.config._attn_implementation == "sdpa" and not cache.within
    assert torch.equal(
        model.generate(ids, **{name_of(model): cache}, **options(10)),
        torch.cat((ids, greedy(model, ids, 10)), 1),
    )


def test_a_forward_broken_off_amid_the_layers_is_noticed(model: Any) -> None:
    cache, ids = cache_of(model), random_ids(1, 10)
    cache.read(ids)
    cache.layers[0].seen += 1
    with pytest.raises(StreamError, match="broken off"):
        cache.read(ids)
    cache.reset()
    cache.read(ids)


def test_a_cache_of_another_model_is_refused(model: Any) -> None:
    other = tiny_llama()
    cache_of(other).read(random_ids(1, 5))
    with pytest.raises(UsageError, match="made for another model"):
        other(random_ids(1, 5), **{name_of(model): cache_of(model)})


def test_a_prompt_that_was_read_before_is_not_read_twice(model: Any) -> None:
    ids, cache = random_ids(2, 60), cache_of(model)
    cache.read(ids)
    with streaming_attention(model, cache):
        made = model.generate(ids, **options(20))
    assert cache.seen == 79
    assert torch.equal(made[:, 60:], greedy(model, ids, 20))


def test_another_cache_or_none_is_refused_within_the_context(model: Any) -> None:
    for other in ({name_of(model): DynamicCache()}, {"use_cache": False}):
        with (
            streaming_attention(model, cache_of(model)),
            pytest.raises(UsageError, match="serves a StreamingKVCache"),
        ):
            model.generate(random_ids(1, 5), **other, **options(3))


def test_a_copy_of_a_model_streams_by_itself(model: Any) -> None:
    other, ids = copy.deepcopy(model), random_ids(1, 60)
    cache = cache_of(other)
    assert len(other._forward_pre_hooks) == len(other._forward_hooks) == 1
    made = other.generate(ids, **{name_of(other): cache}, **options(20))
    assert torch.equal(made[:, 60:], greedy(model, ids, 20))


@pytest.mark.parametrize("wrap", [lambda each: torch.compile(each, backend="eager"), Wrapper])
def test_a_cache_may_be_made_for_what_wraps_a_model(wrap: Any) -> None:
    model, ids = tiny_llama(layers=1), random_ids(1, 60)
    model.generation_config.eos_token_id = None
    wrapped = wrap(model)
    made = wrapped.generate(ids, **{name_of(model): cache_of(wrapped)}, **options(6))
    assert torch.equal(made[:, 60:], greedy(model, ids, 6))


def test_a_history_that_differs_later_is_refused(model: Any) -> None:
    cache, ids = cache_of(model), random_ids(1, 60)
    with streaming_attention(model, cache):
        made = model.generate(ids, **options(10))
        other = torch.cat((made, ids), 1)
        other[0, 55] += 1
        with pytest.raises(UsageError, match="begins as the stream of 69 tokens did"):
            model.generate(other, **options(10))


def test_a_turn_of_a_stream_that_was_not_heard_is_what_is_new_or_refused(model: Any) -> None:
    ids, made = random_ids(1, 90), options(1)
    embedded = model.get_input_embeddings()(ids)
    cache = cache_of(model)
    with streaming_attention(model, cache):
        model.generate(inputs_embeds=embedded[:, :40], **made)
        for turn in ({"inputs": ids[:, 40:80]}, {"inputs_embeds": embedded[:, 40:80]}):
            with pytest.raises(UsageError, match="these 40 tokens are the whole history or only"):
                model.generate(**turn, **made)
        model.generate(ids[:, 40:50], **made)
        model.generate(inputs_embeds=embedded[:, 50:60], **made)
        assert cache.seen == 60
    got = cache.read(ids[:, 60:])
    assert gap(got, cache_of(model).read(ids)[:, 60:]) < 1e-3


def test_a_forward_that_failed_does_not_make_a_turn_pass_for_the_whole_history(model: Any) -> None:
    ids, cache = random_ids(1, 60), cache_of(model)
    with streaming_attention(model, cache):
        model.generate(ids[:, :20], **options(1))
        with pytest.raises(IndexError):
            cache.read(torch.tensor([[97]]))
        model.generate(ids[:, 20:], **options(1))
        assert cache.seen == 60
        model.generate(ids, **options(1))  # the whole history
        assert cache.seen == 60


def test_crop_takes_back_what_evicted_nothing_and_no_more(model: Any) -> None:
    ids = random_ids(1, 80)
    cache = cache_of(model)
    cache.read(ids[:, :24])
    cache.crop(12)
    assert cache.seen == 12
    got = cache.read(ids[:, 12:60])
    fresh = cache_of(model)
    assert gap(got, fresh.read(ids[:, :60])[:, 12:]) < 1e-3
    with pytest.raises(UsageError, match="30 of 60 tokens can't be taken back"):
        cache.crop(30)
    cache.crop(-1)  # the one slot more than a query sees
    assert cache.seen == 59
    assert gap(cache.read(ids[:, 59:]), fresh_after(model, ids, 59)) < 1e-3


def fresh_after(model: Any, ids: Tensor, start: int) -> Tensor:
    return cache_of(model).read(ids)[:, start:]


@pytest.mark.parametrize("every", [1, 7])
def test_drafts_are_taken_back_from_a_full_cache(model: Any, every: int) -> None:
    ids = random_ids(1, 200)
    cache = cache_of(model, evict_every=every)
    cache.read(ids[:, :90])
    cache.drafts = True
    for start in range(90, 180, 3):
        wrong = torch.cat((ids[:, start : start + 3], (ids[:, start : start + 6] + 5) % 97), 1)
        cache.read(wrong)
        cache.crop(start + 3 - cache.seen)
    got = cache.read(ids[:, 180:])
    want = cache_of(model, evict_every=every).read(ids)[:, 180:]
    assert gap(got.log_softmax(-1), want.log_softmax(-1)) < 1e-3


@pytest.mark.parametrize("drafts", [False, True])
@pytest.mark.parametrize("sizes", [(0, 1, 1), (4, 10, 1), (2, 5, 4), (0, 3, 7)])
@pytest.mark.slow
def test_whatever_is_taken_back_in_turns_leaves_a_stream_as_if_it_had_not_come(
    drafts: bool, sizes: tuple[int, int, int]
) -> None:
    draw, model, taken = random.Random(4), tiny_llama(layers=1), 0
    for _ in range(12):
        cache = StreamingKVCache(*sizes[:2], model, sizes[2])
        cache.drafts, said = drafts, random_ids(1, 0)
        with streaming_attention(model, cache):
            for at in range(6):
                new = (random_ids(1, 9)[:, : draw.randint(1, 9)] + 7 * at) % 97
                for part in torch.split(new, draw.choice((1, 9)), 1):
                    cache.read(part)
                said = torch.cat((said, new), 1)
                for _ in range(draw.randint(0, 3)):
                    with suppress(UsageError):
                        cache.crop(-draw.randint(1, 3))
                        taken += 1
                    said = said[:, : cache.seen]
            new = random_ids(1, 4)
            got = cache.read(new)
        fresh = StreamingKVCache(*sizes[:2], model, sizes[2])
        with streaming_attention(model, fresh):
            want = fresh.read(torch.cat((said, new), 1))[:, -4:]
        assert gap(got.log_softmax(-1), want.log_softmax(-1)) < 1e-3
    assert taken > 9


def test_a_frame_that_was_moved_goes_back_with_what_is_taken_back(model: Any) -> None:
    ids, cache = random_ids(1, 60), cache_of(model)
    cache.read(ids[:, :25])
    cache.rebase()
    assert cache.base == 1
    cache.crop(22)
    assert gap(cache.read(ids[:, 22:]), cache_of(model).read(ids)[:, 22:]) < 1e-3


def test_more_tokens_than_there_were_are_all_taken_back(model: Any) -> None:
    cache = cache_of(model)
    cache.read(random_ids(1, 20))
    cache.crop(-30)
    assert cache.seen == 0


def test_a_copy_goes_on_by_itself_and_shares_the_model(model: Any) -> None:
    cache, ids = cache_of(model), random_ids(1, 90)
    cache.read(ids[:, :80])
    for make in (copy.deepcopy, copy.copy):
        other = make(cache)
        assert other.model is model and other.kinds is cache.kinds
        other.read((ids.repeat(1, 5) + 1) % 97)  # its frame moves
    want = cache_of(model).read(ids)[:, 80:]
    assert gap(cache.read(ids[:, 80:]), want) < 1e-3


class Scored(LogitsProcessor):
    """Draws each token by itself, and notes its score in nats."""

    def __init__(self) -> None:
        self.nats: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        log = scores.float().log_softmax(-1)
        drawn = log.exp().multinomial(1)
        self.nats.append(-log.gather(-1, drawn)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)


def test_a_long_generation_does_not_drift(
    neox: Loaded, neox_ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "REACH", 1)  # its frame moves as often as in 40,000 tokens
    torch.manual_seed(0)
    scored, cache = Scored(), StreamingKVCache(N_SINK, 27, neox.model)
    made = neox.model.generate(
        neox_ids[:1, :50],
        **{name_of(neox.model): cache},
        **options(320, eos_token_id=None),
        logits_processor=LogitsProcessorList([scored]),
    )
    assert cache.seen == 369
    again = StreamingKVCache(N_SINK, 27, neox.model)
    parts = [again.read(part) for part in made[:, :-1].split(256, dim=1)]
    want = token_nll(torch.cat(parts, 1), made[:, 1:])[:, 49:]
    assert gap(torch.stack(scored.nats, 1), want) < EXACT
