"""A stream in turns: its tokens are those of transformers' ``generate``, its keys stay S + W."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from core import registry
from core.attending import cache_name, streaming_attention
from core.cache import StreamingKVCache
from core.config import RunConfig
from core.conversation import Conversation
from core.dialogue import form
from core.errors import UsageError
from core.models.loading import Loaded
from core.sampling import Sampling
from tests.support.generating import N_SINK, WINDOW, greedy
from tests.support.samples import random_ids
from tests.support.talking import TEMPLATE, talker

GREEDY: dict[str, Any] = {"temperature": 0.0}


def never() -> bool:
    return False


def after(asks: int) -> Callable[[], bool]:
    """Says so once it was asked so often."""
    left = iter([False] * asks)
    return lambda: next(left, True)


def stream(
    loaded: Loaded, talks: bool = False, system: str | None = None, **asked: Any
) -> Conversation:
    sizes = {"n_sink": N_SINK, "window": WINDOW, "device": "cpu"}
    named = {name: asked.pop(name) for name in list(asked) if name in RunConfig.names()}
    config = RunConfig(**{**sizes, **named})
    return Conversation(loaded, config, Sampling(**asked), form(loaded, system) if talks else None)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return talker()


@pytest.fixture(scope="module")
def deaf() -> Loaded:
    """A model that never ends a turn by itself."""
    found = talker()
    with torch.no_grad():
        found.model.lm_head.weight[96] = 0.0
    return found


@pytest.mark.slow
def test_greedy_text_is_that_of_the_cache_by_hand(deaf: Loaded) -> None:
    ids, shown = random_ids(1, 60) % 96, list[str]()
    turn = stream(deaf, max_new_tokens=90, **GREEDY).go_on(ids[0].tolist(), shown.append, never)
    want = greedy(deaf.model, ids, 90)[0]
    assert turn.text == "".join(shown) == deaf.tokenizer.decode(want.tolist())
    assert (turn.tokens_in, turn.tokens_out, turn.stream_tokens) == (60, 90, 149)
    assert (turn.keys_held, turn.stop_reason) == (N_SINK + WINDOW, "max_new_tokens")
    assert len(shown) == 90 and turn.seconds > 0 and turn.tokens_per_s > 0


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 1.3, "top_k": 20, "top_p": 1.0},
        {"temperature": 0.0, "repetition_penalty": 1.4},
        {"temperature": 1.0, "top_k": 9, "top_p": 0.8, "repetition_penalty": 1.2},
    ],
    ids=str,
)
@pytest.mark.slow
def test_tokens_are_those_of_transformers_generate(deaf: Loaded, how: dict[str, Any]) -> None:
    ids, model, tokens = random_ids(1, 12) % 96, deaf.model, 12
    cache = StreamingKVCache(N_SINK, WINDOW, model)
    torch.manual_seed(5)
    given = {**how, "top_k": how.get("top_k", 0), "do_sample": how["temperature"] > 0}
    if not given["do_sample"]:
        given = {"do_sample": False, "repetition_penalty": how["repetition_penalty"]}
    else:
        tokens = 60
    if "repetition_penalty" in how:
        tokens = 12  # generate's is on all that was said, ours on what the cache still sees
    with streaming_attention(model, cache):
        made = model.generate(
            ids, **{cache_name(model): cache}, max_new_tokens=tokens, pad_token_id=96, **given
        )
    turn = stream(deaf, seed=5, max_new_tokens=tokens, **how).go_on(
        ids[0].tolist(), lambda _: None, never
    )
    assert turn.text == deaf.tokenizer.decode(made[0, 12:].tolist())


@pytest.mark.slow
@pytest.mark.parametrize("template", [TEMPLATE, None], ids=["template", "plain"])
def test_thirty_turns_are_one_stream_and_hold_the_budget(template: str | None) -> None:
    loaded = talker(template)
    talk, read = stream(loaded, talks=True, max_new_tokens=25, temperature=1.5), 0
    for number in range(30):
        turn = talk.say(f"turn {number}", lambda _: None, never)
        assert turn.keys_held == min(turn.stream_tokens, N_SINK + WINDOW)
        read += turn.tokens_in + turn.tokens_out
        assert turn.stream_tokens == read - len(talk.unread)
    assert turn.keys_held == N_SINK + WINDOW == talk.budget and read > 600


@pytest.mark.slow
def test_a_dialogue_is_one_text_however_its_answers_ended(loaded: Loaded) -> None:
    talk = stream(loaded, talks=True, max_new_tokens=30, temperature=2.0)
    told, reasons, fed, feed = "", set(), list[int](), talk.stream.feed

    def noting(ids: Tensor, keep: int = 0) -> Tensor:
        fed.extend(ids[0].tolist())
        return feed(ids, keep)

    talk.stream.feed = noting  # type: ignore[method-assign]
    for number in range(40):
        turn = talk.say(f"{number}?", lambda _: None, after(15) if number % 7 == 3 else never)
        reasons.add(turn.stop_reason)
        told += f"[user|{number}?<end>[assistant|{turn.text}<end>"
    got = loaded.tokenizer.decode(fed)
    assert reasons == {"stop", "max_new_tokens", "interrupted"}
    assert told.startswith(got) and len(told) - len(got) <= len("x<end>")


def test_an_answer_that_says_the_next_words_itself_ends_there() -> None:
    loaded = talker(None)
    talk = stream(loaded, talks=True, **GREEDY, max_new_tokens=40)
    script = iter(loaded.tokenizer(" Well, yes.\nUser: and so on").input_ids)
    talk.sampler.choose = lambda logits, said: next(script)  # type: ignore[method-assign]
    shown = list[str]()
    turn = talk.say("Is it?", shown.append, never)
    assert turn.text == "".join(shown) == "Well, yes." and turn.stop_reason == "stop"
    assert talk.ended and loaded.tokenizer.decode(talk.unread) == ":"
    talk.say("Why?", shown.append, after(0))
    assert loaded.tokenizer.decode(talk.unread) == ": Why?\nAssistant:"


def test_a_stop_ends_a_turn_between_tokens_and_the_stream_goes_on(deaf: Loaded) -> None:
    talk = stream(deaf, talks=True, max_new_tokens=50, **GREEDY)
    turn = talk.say("Hello", lambda _: None, after(8))
    assert (turn.stop_reason, turn.tokens_out) == ("interrupted", 8)
    assert len(talk.unread) == 1
    turn = talk.say("And?", lambda _: None, never)
    assert turn.tokens_out == 50


def test_a_stop_before_all_was_read_leaves_the_rest_for_the_next_turn(deaf: Loaded) -> None:
    talk = stream(deaf, talks=True, max_new_tokens=5, **GREEDY)
    words = "x" * 600  # three chunks
    turn = talk.say(words, lambda _: None, after(1))
    assert (turn.stop_reason, turn.text, turn.tokens_out) == ("interrupted", "", 0)
    assert turn.stream_tokens == 256 and len(talk.unread) == turn.tokens_in - 256
    again = talk.say("y", lambda _: None, never)
    assert again.stream_tokens == turn.tokens_in + again.tokens_in + 4


def test_the_system_prompt_becomes_the_sinks_and_stays(deaf: Loaded) -> None:
    talk = stream(deaf, talks=True, system="Always rhyme.", max_new_tokens=20, **GREEDY)
    sinks = len("[system|Always rhyme.") + 1
    assert talk.config.n_sink == sinks and talk.config.window_size == WINDOW
    assert talk.notes == (f"the system prompt is kept: its {sinks} tokens are the sinks.",)
    for _ in range(4):
        turn = talk.say("Hello", lambda _: None, never)
    assert turn.keys_held == talk.budget == sinks + WINDOW
    more = stream(deaf, talks=True, system="Rhyme.", n_sink=60)
    assert more.config.n_sink == 60 and not more.notes


def test_a_system_prompt_leaves_room_for_a_window_or_is_refused(deaf: Loaded) -> None:
    talk = stream(deaf, talks=True, system="x" * 110, window=None)
    assert (talk.config.n_sink, talk.config.window_size) == (119, 64)
    with pytest.raises(UsageError, match="has 209 tokens, and tiny was trained on 256: shorten"):
        stream(deaf, talks=True, system="x" * 200, window=None)


def test_a_window_says_that_it_keeps_no_system_prompt(deaf: Loaded) -> None:
    talk = stream(deaf, talks=True, system="Always rhyme.", method=registry.WINDOW)
    assert talk.config.n_sink == 0 and talk.budget == N_SINK + WINDOW
    assert "has no sinks: the system prompt leaves" in talk.notes[0]


EVERY = [name for name in registry.METHODS if not name.startswith("kvpress")]


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.slow
def test_every_method_writes_what_its_own_scores_say(deaf: Loaded, method: str) -> None:
    ids = (random_ids(1, 50) % 96)[0].tolist()
    talk = stream(deaf, method=method, max_new_tokens=40, **GREEDY)
    turn = talk.go_on(ids, lambda _: None, never)
    again, want = talk.method.start(deaf, 1), list[int]()
    with torch.inference_mode():
        for token in ids:
            logits = again.feed(torch.tensor([[token]]))
        for _ in range(40):
            want.append(int(logits[:, -1].argmax()))
            logits = again.feed(torch.tensor([[want[-1]]]))
    assert turn.text == deaf.tokenizer.decode(want)
    assert turn.keys_held <= (talk.budget or 89)


@pytest.mark.slow
def test_a_full_cache_says_once_that_positions_were_never_trained(deaf: Loaded) -> None:
    talk = stream(deaf, method=registry.DENSE, max_new_tokens=200, **GREEDY)
    told = []
    for _ in range(3):
        talk.go_on([1, 2, 3], lambda _: None, never)
        told.append(talk.warning())
    assert told[0] is None and "past the trained length of 256" in str(told[1]) and told[2] is None


def test_what_can_t_be_read_is_refused_before_the_stream_changes(deaf: Loaded) -> None:
    talk = stream(deaf)
    with pytest.raises(UsageError, match="no tokens"):
        talk.go_on([], lambda _: None, never)
    with pytest.raises(UsageError, match="makes token id 97"):
        talk.go_on([1, 97], lambda _: None, never)
    assert talk.read == 0
