"""The tokenizer of a GGUF file whose tokens are SentencePiece's, with a score for each.

The file's rule: spaces become U+2581, one more stands before the text where ``add_space_prefix``
says so; user-defined symbols are taken out, the longest first; then the adjacent pair whose joined
piece has the highest score is merged, leftmost first, until none is left; characters without a
piece become their UTF-8 bytes. Control tokens are never found in a text. (SentencePiece 0.2,
``bpe_model.cc``; llama.cpp ``llm_tokenizer_spm``.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from core.models.gguf_file import GgufFile, frame, named

NORMAL, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 3, 4, 5, 6  # gguf.TokenType
SPACE = "\u2581"
BYTES = {f"<0x{value:02X}>" for value in range(256)}


def build(file: GgufFile) -> Any:
    """The tokenizer that ``file`` describes.

    Raises:
        UsageError: It can't be built so that it gives the ids of the file's rule.
    """
    from transformers import PreTrainedTokenizerFast

    library: Any = import_module("tokenizers")
    tokens, by_type = _tokens(file)
    ranks = _ranks(file, tokens, by_type)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = library.Tokenizer(
        library.models.BPE(vocab=vocabulary, merges=ranks, byte_fallback=True, fuse_unk=False)
    )
    symbols = by_type.get(USER_DEFINED, set())
    prefix = bool(file.field("add_space_prefix", True))
    backend.normalizer = _normalizer(library, symbols, prefix)
    backend.add_tokens(
        [library.AddedToken(symbol, normalized=True, special=False) for symbol in sorted(symbols)]
    )
    control = sorted(by_type.get(CONTROL, set()))
    backend.add_special_tokens([library.AddedToken(each, normalized=False) for each in control])
    backend.decoder = _decoder(library, prefix)
    framed = frame(file, begins=True)
    if framed is not None:
        backend.post_processor = framed
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=_Taken(backend),
        split_special_tokens=True,  # text that spells a control token is text, a template is not
        chat_template=file.fields.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **named(file, tokens),
    )


class _Taken:
    """A backend that is taken as it is: a copy of 262,144 tokens takes seconds."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __deepcopy__(self, memo: Any) -> Any:
        return self.backend


def _tokens(file: GgufFile) -> tuple[list[str], dict[int, set[str]]]:
    """All tokens in order, and those of each type."""
    tokens, types = file.listed("tokens"), file.listed("token_type")
    if not tokens or len(types) != len(tokens):
        raise file.refusal(f"{len(tokens)} tokens have {len(types)} types")
    if len(set(tokens)) < len(tokens):
        raise file.refusal("some tokens stand there twice")
    by_type: dict[int, set[str]] = {}
    for token, kind in zip(tokens, types, strict=True):
        by_type.setdefault(kind, set()).add(token)
    if by_type.get(BYTE, set()) != BYTES:
        raise file.refusal("it has no tokens for all bytes, which unknown characters become")
    for name in ("precompiled_charsmap", "remove_extra_whitespaces"):
        if file.field(name) or file.listed(name):
            raise file.refusal(f"it changes the text first ({name})")
    return tokens, by_type


def _ranks(
    file: GgufFile, tokens: list[str], by_type: dict[int, set[str]]
) -> list[tuple[str, str]]:
    """The pairs that are merged, best first: by the score of the piece that they make."""
    scores = file.listed("scores")
    if len(scores) != len(tokens):
        raise file.refusal(f"{len(tokens)} tokens have {len(scores)} scores")
    pieces = by_type.get(NORMAL, set())
    symbols = by_type.get(USER_DEFINED, set())
    _check_characters(file, pieces, symbols, by_type)
    score = dict(zip(tokens, scores, strict=True))
    made = {piece: pairs for piece in pieces if (pairs := _pairs(piece, pieces))}
    if len({score[piece] for piece in made}) < len(made):
        raise file.refusal("some of its pieces have equal scores")
    best = sorted(made, key=score.__getitem__, reverse=True)
    return [pair for piece in best for pair in made[piece]]


def _pairs(piece: str, pieces: set[str]) -> list[tuple[str, str]]:
    """Two pieces that make ``piece``, every way, the longest left part first.

    Their order decides only where two ways overlap in a text, as in ``ab a ba``, whose left one
    must come first.
    """
    return [
        (left, right)
        for cut in range(len(piece) - 1, 0, -1)
        if (left := piece[:cut]) in pieces and (right := piece[cut:]) in pieces
    ]


def _check_characters(
    file: GgufFile, pieces: set[str], symbols: set[str], by_type: dict[int, set[str]]
) -> None:
    """Refuse what SentencePiece would merge and a BPE that begins with characters could not."""
    characters = {piece for piece in pieces | symbols if len(piece) == 1}
    for piece in pieces:
        if not characters.issuperset(piece):
            raise file.refusal(f"the piece {piece!r} has characters that are no tokens themselves")
    for kind, some in by_type.items():
        if kind in (NORMAL, USER_DEFINED, BYTE):
            continue
        for token in some:
            merged = kind == UNUSED and _pairs(token, pieces)
            if merged or len(token) == 1:
                raise file.refusal(f"the token {token!r} is of type {kind} and could be met")


def _normalizer(library: Any, symbols: Iterable[str], prefix: bool) -> Any:
    """Spaces become U+2581; a symbol's own spelling, which passes here too, gets none before it."""
    marked = library.normalizers.Replace(" ", SPACE)
    if not prefix:
        return marked
    spelled = "|".join(re.escape(symbol.replace(" ", SPACE)) for symbol in sorted(symbols))
    start = library.Regex(rf"\A(?!(?:{spelled})?\z)")
    before = library.normalizers.Replace(start, SPACE)
    return library.normalizers.Sequence([marked, before])


def _decoder(library: Any, prefix: bool) -> Any:
    steps = [library.decoders.Replace(SPACE, " "), library.decoders.ByteFallback()]
    steps.append(library.decoders.Fuse())
    if prefix:
        steps.append(library.decoders.Strip(" ", 1, 0))
    return library.decoders.Sequence(steps)
