"""Text as its tokens come: the pieces make the whole, no character is cut, and a stop ends it."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from transformers import AutoTokenizer

from core.packaged import bundled
from core.spelled import Spelled

TEXT = 'In 1875  the lighthouse "burned" — é 漢字 👩‍👩‍👧 🤗.\n\n\tIt was  foggy.'


@cache
def of_bytes() -> Any:
    auto: Any = AutoTokenizer
    return auto.from_pretrained(bundled("model"))


def pieces(text: str, stop: str = "", before: str = "", **how: Any) -> list[str]:
    ids = of_bytes()(text).input_ids
    spelled = Spelled(of_bytes(), of_bytes()(before).input_ids, stop, **how)
    found = []
    for each in ids:
        found.append(spelled.add(each))
        if spelled.stopped:
            break
    return [*found, spelled.end()]


@pytest.mark.parametrize("before", ["", "A\n", "漢"])
def test_pieces_make_the_text_and_cut_no_character(before: str) -> None:
    found = pieces(TEXT, before=before)
    assert "".join(found) == TEXT
    assert not any("\ufffd" in piece for piece in found)
    assert sum(map(bool, found)) > 20


def test_bytes_that_are_no_character_are_told_after_a_while_and_at_the_end() -> None:
    tokenizer, spelled = of_bytes(), Spelled(of_bytes(), [])
    lone = tokenizer("漢").input_ids[0]
    assert tokenizer.decode([lone]) == "\ufffd"
    told = "".join(spelled.add(lone) for _ in range(20))
    assert told and set(told) == {"\ufffd"}
    spelled.add(lone)
    assert set(spelled.end()) == {"\ufffd"}


@pytest.mark.parametrize("stop", ["\n\n\tIt", "burned", "."])
def test_the_text_ends_before_the_stop_and_no_part_of_it_is_told(stop: str) -> None:
    assert "".join(pieces(TEXT, stop)) == TEXT[: TEXT.index(stop)]


def test_what_only_begins_as_the_stop_does_is_told_in_the_end() -> None:
    assert "".join(pieces(TEXT, "foggy. And")) == TEXT
    assert "".join(pieces(TEXT, "burned down")) == TEXT


def test_white_space_before_the_first_words_is_left_off_if_asked() -> None:
    assert "".join(pieces(" \n Hello  you ", strip=True)) == "Hello  you "
    assert "".join(pieces(" \n Hello  you ")) == " \n Hello  you "
