"""From a dataset's name to streams of token ids, no more of them than were asked for."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

from core import paths, registry
from core.datasets import files
from core.datasets.base import Corpus
from core.errors import UsageError, unknown
from core.questions import TokenQuestion, placed

if TYPE_CHECKING:
    import torch

    from core.models.loading import Loaded

MARGIN = 64  # tokens at a cut that the text after it could still change; a word is a few
PATHS = f"a path ending in {', '.join(files.READERS)}, or a folder of .txt files"
CUT = "\ufffd"  # what bytes that are no whole character are decoded to
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
BREAK = re.compile(r"(?<=\S)(?=\s)")


@dataclass(frozen=True)
class TokenDocument:
    """One stream: token ids (T,) on the CPU, and its questions in order.

    The first token is never scored.
    """

    name: str
    ids: torch.Tensor
    questions: tuple[TokenQuestion, ...] = ()


@dataclass(frozen=True)
class TokenStream:
    """The documents of a run as token ids.

    Attributes:
        documents: At least one, each of two tokens or more.
        sha256: Hash of all ids, document lengths and questions; equal hashes, equal streams.
        bos: What stands before each document: ``none``, or ``tokenizer adds <s>``.
        notes: Sentences that the user must see.
    """

    documents: tuple[TokenDocument, ...]
    sha256: str
    bos: str
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Tokens of all documents, first ones included."""
        return sum(len(document.ids) for document in self.documents)


def open_corpus(spec: str, source: str) -> Corpus:
    """The texts that ``spec`` names: a dataset, ``dataset:part``, or a text file.

    Args:
        spec: Such as ``wikitext``, ``pg19:10146`` or ``notes.txt``.
        source: ``auto``, ``hub`` or ``bundled``.

    Raises:
        UsageError: It names nothing.
        StreamError: It can't be had.
    """
    if not spec.strip():
        raise UsageError(
            f"the text has no name: --dataset takes one of {', '.join(registry.DATASETS)}, {PATHS}."
        )
    name = spec.partition(":")[0]
    if name in registry.DATASETS:
        corpus: Corpus = registry.load("dataset", name)(spec, source)
        return corpus
    path = paths.path(spec)
    if path.suffix in files.READERS or "/" in spec or path.exists():
        return files.read(spec, source)
    raise unknown("dataset", spec, registry.DATASETS, PATHS)


def tokenize(
    corpus: Corpus,
    tokenizer: Any,
    max_tokens: int | None,
    *,
    per_document: int | None = None,
    skip: int = 0,
    concatenate: bool = False,
) -> TokenStream:
    """The first tokens of ``corpus``, document by document.

    No document is read after ``max_tokens``, and of a long one only what is needed is tokenised;
    the ids are those that the whole document has there.

    Args:
        corpus: The texts.
        tokenizer: The model's.
        max_tokens: Tokens of all documents together, the last one cut; None for all that there are.
        per_document: Most tokens of each document; None for all.
        skip: Tokens of each document's text that are left out before.
        concatenate: Whether all documents are one stream, end to end.

    Raises:
        UsageError: There is nothing to score.
    """
    before = front(tokenizer)
    documents: list[TokenDocument] = []
    left, short = math.inf if max_tokens is None else max_tokens, 0
    for document in corpus.documents:
        need = min(left, math.inf if per_document is None else per_document)
        ids = _some_ids(tokenizer, document.text, before, skip, need)
        if len(ids) < 2:
            short += 1
            continue
        found = placed(document, tokenizer, skip, skip + len(ids) - len(before))
        asked = tuple(each.moved(len(before)) for each in found)
        documents.append(TokenDocument(document.name, _tensor(ids), asked))
        left -= len(ids)
        if left < 2:
            break
    if not documents:
        within = "" if max_tokens is None else f" within {max_tokens} tokens"
        after = f" after the first {skip}" if skip else ""
        raise UsageError(
            f"{corpus.name} has nothing to score{within}: "
            f"a document needs two tokens or more{after}."
        )
    notes = []
    if short:
        counted = "1 document" if short == 1 else f"{short} documents"
        after = f" after the first {skip}" if skip else ""
        verb = "was" if short == 1 else "were"
        notes.append(f"{counted} of fewer than 2 tokens{after} {verb} skipped: nothing to score.")
    if max_tokens is not None and left >= 2:
        notes.append(f"asked for {max_tokens} tokens, the text has {max_tokens - left:.0f}.")
    if concatenate and len(documents) > 1:
        documents = [_joined(documents)]
    bos = "none"
    if before:
        bos = f"tokenizer adds {' '.join(tokenizer.convert_ids_to_tokens(before))}"
    return TokenStream(tuple(documents), _sha256(documents), bos, tuple(notes))


def check_range(stream: TokenStream, loaded: Loaded) -> None:
    """Refuse token ids that the model has no embedding for.

    Raises:
        UsageError: There is one: the tokenizer is another model's.
    """
    check_ids(max(int(document.ids.max()) for document in stream.documents), loaded)


def check_ids(largest: int, loaded: Loaded) -> None:
    """Refuse token ids up to ``largest`` where the model has no embedding for that one.

    Raises:
        UsageError: It has none: the tokenizer is another model's.
    """
    rows = len(loaded.model.get_input_embeddings().weight)
    if largest >= rows:
        raise UsageError(
            f"{loaded.name}: its tokenizer makes token id {largest}, and the model has {rows} "
            f"embeddings, for ids 0 to {rows - 1}: the tokenizer is of another model; put the "
            "model's own beside its weights."
        )


def text_size(tokenizer: Any, ids: torch.Tensor) -> tuple[int, int]:
    """Words (split at white space) and UTF-8 bytes of the scored ones, ``ids[1:]`` of (T,).

    Of a character that the stream is cut in, the bytes that scored tokens stand for are counted.
    """
    scored = ids[1:].tolist()
    text = tokenizer.decode(scored, clean_up_tokenization_spaces=False)
    if CUT not in text:
        return len(text.split()), len(text.encode())
    return len(text.split()), _true_bytes(tokenizer, scored, text)


def _true_bytes(tokenizer: Any, ids: list[int], text: str) -> int:
    """UTF-8 bytes that ``ids``, decoded to ``text``, stand for where ``CUT`` may be in the way.

    Tokens of a byte-level BPE have a character for each byte. Where characters fall back on bytes,
    a run of such tokens that is no UTF-8 is decoded to one ``CUT`` for each byte.
    """
    steps, tokens = _decoding(tokenizer), tokenizer.convert_ids_to_tokens(ids)
    if steps == ["ByteLevel"]:
        library: Any = import_module("tokenizers")
        alphabet = set(library.pre_tokenizers.ByteLevel.alphabet())
        return sum(len(t) if alphabet.issuperset(t) else len(t.encode()) for t in tokens)
    size = len(text.encode())
    if "ByteFallback" in steps:
        for is_byte, run in groupby(tokens, lambda token: bool(BYTE.fullmatch(token))):
            found = bytes(int(token[3:5], 16) for token in run) if is_byte else b""
            if not _is_utf8(found):
                size -= (len(CUT.encode()) - 1) * len(found)
    return size


def _decoding(tokenizer: Any) -> list[str]:
    """The kinds of a fast tokenizer's decoding steps."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if decoder is None:
        return []
    steps = json.loads(decoder.__getstate__())
    return [step["type"] for step in steps.get("decoders", [steps])]


def _is_utf8(some: bytes) -> bool:
    try:
        some.decode()
    except UnicodeDecodeError:
        return False
    return True


def front(tokenizer: Any) -> list[int]:
    """The ids that the tokenizer itself puts before a text; what it puts behind is left off."""
    bare = encode(tokenizer, "a")
    whole = tokenizer("a", return_attention_mask=False)["input_ids"]
    places = range(len(whole) - len(bare) + 1)
    at = next(place for place in places if whole[place : place + len(bare)] == bare)
    return list(whole[:at])


def _joined(documents: list[TokenDocument]) -> TokenDocument:
    import torch

    name = f"{len(documents)} documents, end to end"
    starts = accumulate((len(document.ids) for document in documents), initial=0)
    questions = [
        question.moved(start)
        for start, document in zip(starts, documents, strict=False)
        for question in document.questions
    ]
    ids = torch.cat([document.ids for document in documents])
    return TokenDocument(name, ids, tuple(questions))


def _some_ids(tokenizer: Any, text: str, before: list[int], skip: int, need: float) -> list[int]:
    """At most ``need`` ids: ``before``, and those of ``text`` after the first ``skip``.

    No more of the text is tokenised than that takes.
    """
    most = max(0, need - len(before))
    size = 8 * (skip + most) + 1000
    while True:
        cut = BREAK.search(text, int(size)) if size < len(text) else None
        ids = encode(tokenizer, text[: cut.start()] if cut else text)
        if not cut or len(ids) >= skip + most + MARGIN:
            kept = ids[skip:]
            return (before + kept)[: int(min(need, len(before) + len(kept)))] if kept else []
        size *= 2


def encode(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text alone, without what the tokenizer puts before and behind it."""
    ids: list[int] = tokenizer(
        text, add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    return ids


def _tensor(ids: list[int]) -> torch.Tensor:
    import torch

    return torch.tensor(ids, dtype=torch.long)


def _sha256(documents: Iterable[TokenDocument]) -> str:
    """Lengths go in before the ids, so that documents joined hash differently from apart.

    What is asked goes in where something is: of other candidates the same text is another task.
    """
    digest = hashlib.sha256()
    for document in documents:
        digest.update(len(document.ids).to_bytes(8, "little"))
        digest.update(document.ids.numpy().astype("<i8").tobytes())
        if document.questions:
            digest.update(repr(document.questions).encode())
    return digest.hexdigest()
