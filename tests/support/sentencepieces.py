"""SentencePiece vocabularies in GGUF files, and the rule that such a file's ids follow."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from gguf import GGUFWriter

from core.models import gguf_file
from core.models.gguf_file import GgufFile
from core.packaged import bundled

TEXT = bundled("encyclopedia.txt").read_text(encoding="utf-8")
SPACE, BYTES = "\u2581", [f"<0x{value:02X}>" for value in range(256)]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SYMBOLS = ["\n", "\n\n", "\n\n\n", "\t", "\t\t", "  ", "   ", "<table>", "<t>", "[x]"]


def train(text: str, count: int) -> list[str]:
    """Pieces by the oldest recipe: its characters, then the most frequent pair again and again."""
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


@cache
def trained() -> list[str]:
    """The pieces of a small vocabulary."""
    return train(TEXT[:2000] + "a" * 40 + "=" * 60, 300)


def vocabulary() -> list[tuple[str, float, int]]:
    """Token, score and type; scores in an order that is not the ids'."""
    named = [("<pad>", 0.0, CONTROL), ("<eos>", 0.0, CONTROL), ("<bos>", 0.0, CONTROL)]
    named.append(("<unk>", 0.0, UNKNOWN))
    normal = trained()
    symbols = [(symbol, -1000.0, USER_DEFINED) for symbol in SYMBOLS]
    scores = [-float(rank) for rank in range(len(normal))]
    Random(0).shuffle(scores)
    pieces = [(piece, score, NORMAL) for piece, score in zip(normal, scores, strict=True)]
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
    if text and file.field("add_space_prefix", True):
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
