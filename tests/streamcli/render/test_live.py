"""What a model writes, in the lines of a terminal."""

from __future__ import annotations

import textwrap

import pytest

from streamcli.render.live import Lines, status

TEXT = "The sea  was calm that day, and nobody knew why it was so.\n\n  Then\tcame the storm. "


@pytest.mark.parametrize("width", [8, 20, 33, 200])
@pytest.mark.parametrize("size", [1, 3, 7, 200])
def test_lines_break_between_words_however_the_text_is_cut(width: int, size: int) -> None:
    lines = Lines(width)
    pieces = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]
    shown = "".join([*map(lines.add, pieces), lines.end()])
    assert shown.split() == TEXT.split()
    assert max(map(len, shown.expandtabs(1).split("\n"))) <= width
    if width == 200:
        assert shown == TEXT.rstrip()


def test_lines_are_as_full_as_they_can_be() -> None:
    words = "one two three four five six seven eight nine ten " * 5
    lines = Lines(30)
    shown = lines.add(words) + lines.end()
    assert shown.split("\n") == textwrap.wrap(words, 30)


def test_a_word_longer_than_a_line_goes_on_as_terminals_do() -> None:
    lines = Lines(10)
    shown = lines.add("a " + "x" * 25 + " bb cccc ") + lines.end()
    assert shown == "a\n" + "x" * 25 + " bb\ncccc"


def test_a_state_tells_how_a_turn_ended_its_speed_and_what_is_held() -> None:
    values = {"tokens_per_s": 31.24, "keys_held": 256, "stream_tokens": 4213}
    ended = {"stop": "", "interrupted": "stopped; ", "max_new_tokens": "cut at --max-new-tokens; "}
    for reason, words in ended.items():
        told = status({**values, "stop_reason": reason}, 256)
        assert told == f"{words}31.2 tokens/s, 256 of 256 keys held, 4,213 tokens in all"
    assert "256 keys held" in status({**values, "stop_reason": "stop"}, None)
