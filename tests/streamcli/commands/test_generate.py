"""``generate``: text alone on stdout, one line for what is asked wrongly, and tokens by hand."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch

from core.cache import StreamingKVCache
from core.models.loading import load
from tests.support.loaded_once import load_once
from tests.support.typed import Type

pytestmark = pytest.mark.slow

PROMPT = "The lighthouse stands at the end of the bay, and"
SMALL = ("--model", "bundled", "--threads", "1", "--window", "20")
GREEDY = ("--temperature", "0", "--max-new-tokens", "50")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def by_hand(prompt: str, tokens: int) -> str:
    loaded, made = load_once("bundled", dtype="float32", device="cpu"), list[int]()
    cache = StreamingKVCache(4, 20, loaded.model)
    ids = torch.tensor([loaded.tokenizer(prompt).input_ids])
    for _ in range(tokens):
        made.append(int(cache.read(ids, keep=1)[0, -1].argmax()))
        ids = torch.tensor([made[-1:]])
    return str(loaded.tokenizer.decode(made))


def test_greedy_text_is_the_caches_by_hand_and_alone_on_stdout(typed: Type) -> None:
    done = typed("generate", PROMPT, *SMALL, *GREEDY)
    assert done.code == 0 and done.err == ""
    assert done.out == by_hand(PROMPT, 50) + "\n"


def test_a_method_is_its_own_cache(typed: Type) -> None:
    held = {}
    for method in ("streaming", "window", "recompute", "dense"):
        done = typed("generate", PROMPT, *SMALL, *GREEDY, "--method", method, "--json")
        assert done.code == 0, done.err
        turn = json.loads(done.out)
        held[method] = turn["keys_held"], turn["stream_tokens"] - turn["keys_held"]
    assert held["streaming"] == held["window"] and held["window"][0] == 24
    assert held["dense"][1] == 0 < held["window"][1]


def test_a_prompt_may_come_from_a_file_or_a_pipe(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("prompt.txt").write_text(PROMPT)
    want = by_hand(PROMPT, 50) + "\n"
    assert typed("generate", "--prompt-file", "prompt.txt", *SMALL, *GREEDY).out == want
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT + "\n"))
    assert typed("generate", *SMALL, *GREEDY).out == want


def test_json_is_one_object_with_what_a_turn_gave(typed: Type) -> None:
    done = typed("generate", PROMPT, *SMALL, *GREEDY, "--json")
    turn = json.loads(done.out)
    ids = len(load_once("bundled", dtype="float32", device="cpu").tokenizer(PROMPT).input_ids)
    assert done.out.count("\n") == 1 and done.err == ""
    assert turn.pop("seconds") > 0 and turn.pop("tokens_per_s") > 0
    assert turn == {
        "text": by_hand(PROMPT, 50),
        "tokens_in": ids,
        "tokens_out": 50,
        "keys_held": 24,
        "stream_tokens": ids + 49,
        "stop_reason": "max_new_tokens",
    }


def test_a_seed_is_a_text_and_another_seed_another(typed: Type) -> None:
    words = ("generate", PROMPT, *SMALL, "--max-new-tokens", "40", "--seed")
    first = typed(*words, "1").out
    assert first == typed(*words, "1").out != typed(*words, "2").out


def test_an_implicit_model_gives_way_to_the_bundled_one_and_that_is_said(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMCLI_SOURCE", "bundled")
    monkeypatch.setenv("STREAMCLI_MODE", "chunked")  # what measuring is set to is no matter here
    done = typed("generate", PROMPT, "--window", "20", *GREEDY)
    assert (done.code, done.out) == (0, by_hand(PROMPT, 50) + "\n")
    asked = typed("generate", PROMPT, "--model", "EleutherAI/pythia-70m")
    assert asked.refuses(2, "is a model on the Hub")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--temperature", "-1"), "temperature is -1.0: it must be 0 or more"),
        (("--top-p", "2"), "top_p is 2.0: it must be 1 or less"),
        (("--top-k", "many"), "valid integer"),
        (("--max-new-tokens", "0"), "max_new_tokens is 0: it must be 1 or more"),
        (("--method", "steaming"), "Did you mean 'streaming'?"),
        (("--n-sink", "-1"), "n_sink is -1: it must be 0 or more"),
        (("--prompt-file", "x.txt"), "a prompt and --prompt-file are given"),
        (("--engine", "compiled", "--method", "dense"), "'dense' has none such"),
        (("--mode", "chunked"), "--mode"),
        (("more", "words"), "unexpected extra argument"),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_one_line(
    typed: Type, words: tuple[str, ...], said: str
) -> None:
    assert typed("generate", PROMPT, "--model", "nothing/at/all/here", *words).refuses(2, said)


def test_a_text_must_be_given_and_have_tokens(typed: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert typed("generate", *SMALL).refuses(2, "there is no text to go on from")
    assert typed("generate", "", *SMALL).refuses(2, "the prompt has no tokens")
    assert typed("generate", "--prompt-file", "x.txt", *SMALL).refuses(2, "x.txt can't be read")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff"), encoding="utf-8"))
    assert typed("generate", *SMALL).refuses(2, "the piped text can't be read")
    assert typed("generate", "a\udcff", *SMALL).refuses(2, "the prompt can't be read: 'utf-8'")
    monkeypatch.setattr(sys, "stdin", None)  # closed by who started us
    assert typed("generate", *SMALL).refuses(2, "the prompt has no tokens")
    sys.stdin.close()  # what stands in for it, which a command keeps until it ends


def test_a_terminal_is_shown_the_state_and_nothing_that_it_would_obey(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = Terminal(), Terminal()
    loaded = load("bundled", dtype="float32", device="cpu")
    monkeypatch.setattr("core.models.loading.load", lambda *_, **__: loaded)
    decode = loaded.tokenizer.decode
    monkeypatch.setattr(
        loaded.tokenizer, "decode", lambda ids, **how: "\x1b[2J" * len(ids) + decode(ids)[:0]
    )
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    typed("generate", PROMPT, *SMALL, "--max-new-tokens", "30")
    assert out.getvalue() == "\\x1b[2J" * 30 + "\n"
    assert "24 of 24 keys held" in err.getvalue() and "tokens/s" in err.getvalue()
