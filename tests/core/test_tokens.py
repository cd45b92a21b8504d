"""Tokens: exactly the beginning of every document, no more of it than was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from core.datasets.base import Corpus, Document
from core.errors import UsageError
from core.packaged import bundled
from core.tokens import TokenStream, text_size, tokenize

ENCYCLOPEDIA = bundled("encyclopedia.txt").read_text(encoding="utf-8")
NARRATIVE = bundled("narrative.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(bundled("model"))


def corpus(*texts: str) -> Corpus:
    named = (Document(f"document {number}", text) for number, text in enumerate(texts, 1))
    return Corpus("mine", "as given", named)


def ids(stream: TokenStream) -> list[list[int]]:
    return [document.ids.tolist() for document in stream.documents]


def plain(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return found


HARD = {
    "encyclopedia": ENCYCLOPEDIA,
    "narrative": NARRATIVE,
    "spaces": ("word" + " " * 300 + "\n" * 50) * 100,
    "one word": "abc" * 9000,
    "emoji": "wörd 👩‍👩‍👧 漢字 \t\u00a0x " * 1500,
}


@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
@pytest.mark.parametrize("count", [2, 50, 777, 3000])
def test_the_beginning_is_tokenised_as_in_the_whole_text(
    tokenizer: Any, text: str, count: int
) -> None:
    assert ids(tokenize(corpus(text), tokenizer, count)) == [plain(tokenizer, text)[:count]]


def test_only_the_beginning_of_a_long_text_is_tokenised(tokenizer: Any) -> None:
    seen = []

    def counting(text: str, **options: Any) -> Any:
        seen.append(len(text))
        return tokenizer(text, **options)

    stream = tokenize(corpus(ENCYCLOPEDIA * 20), counting, 100)
    assert (stream.total, stream.notes) == (100, ())
    assert max(seen) < 2000


def test_of_each_document_as_many_tokens_are_read_as_were_asked_for(tokenizer: Any) -> None:
    texts = (ENCYCLOPEDIA, "one two", NARRATIVE)
    stream = tokenize(corpus(*texts), tokenizer, None, per_document=50)
    assert ids(stream) == [plain(tokenizer, text)[:50] for text in texts]
    assert stream.notes == ()
    assert ids(tokenize(corpus(*texts), tokenizer, 60, per_document=50))[1:] == [
        plain(tokenizer, "one two"),
        plain(tokenizer, NARRATIVE)[: 10 - len(plain(tokenizer, "one two"))],
    ]


def test_skipped_tokens_are_those_that_the_whole_text_begins_with(tokenizer: Any) -> None:
    stream = tokenize(corpus(ENCYCLOPEDIA, "one"), tokenizer, None, per_document=50, skip=700)
    assert ids(stream) == [plain(tokenizer, ENCYCLOPEDIA)[700:750]]
    [note] = stream.notes
    assert note.startswith("1 document of fewer than 2 tokens after the first 700 was skipped")
    with pytest.raises(UsageError, match="two tokens or more after the first 99"):
        tokenize(corpus("one", "two"), tokenizer, 50, skip=99)


def test_concatenated_documents_are_one_stream(tokenizer: Any) -> None:
    texts = (ENCYCLOPEDIA, NARRATIVE)
    apart = tokenize(corpus(*texts), tokenizer, None, per_document=50)
    joined = tokenize(corpus(*texts), tokenizer, None, per_document=50, concatenate=True)
    assert ids(joined) == [sum(ids(apart), [])]
    assert joined.documents[0].name == "2 documents, end to end"
    assert joined.sha256 != apart.sha256


def test_the_last_document_is_cut_and_none_is_read_after_it(tokenizer: Any) -> None:
    def endless() -> Iterator[Document]:
        yield Document("first", "one two three")
        yield Document("second", ENCYCLOPEDIA)
        raise AssertionError("read on")

    stream = tokenize(Corpus("mine", "as given", endless()), tokenizer, 40)
    first = plain(tokenizer, "one two three")
    assert ids(stream) == [first, plain(tokenizer, ENCYCLOPEDIA)[: 40 - len(first)]]
    assert [document.name for document in stream.documents] == ["first", "second"]
    assert stream.total == 40


def test_a_text_that_is_too_short_is_said_to_be(tokenizer: Any) -> None:
    stream = tokenize(corpus("one two three"), tokenizer, 4096)
    assert stream.notes == (f"asked for 4096 tokens, the text has {stream.total}.",)


def test_documents_with_nothing_to_score_are_skipped_with_a_note(tokenizer: Any) -> None:
    stream = tokenize(corpus("", "one two", "a", "three four"), tokenizer, 4096)
    assert [document.name for document in stream.documents] == ["document 2", "document 4"]
    assert stream.notes[0].startswith("2 documents of fewer than 2 tokens were skipped")


@pytest.mark.parametrize(("texts", "count"), [(["", "a"], 100), (["one two"], 1), ([], 100)])
def test_nothing_to_score_is_an_error(tokenizer: Any, texts: list[str], count: int) -> None:
    with pytest.raises(UsageError, match="nothing to score"):
        tokenize(corpus(*texts), tokenizer, count)


def test_the_hash_is_of_ids_and_boundaries(tokenizer: Any) -> None:
    def sha256(*texts: str) -> str:
        return tokenize(corpus(*texts), tokenizer, 4096).sha256

    assert sha256("one two", " three four") == sha256("one two", " three four")
    assert sha256("one two", " three four") != sha256("one two three four")
    assert sha256("one two") != sha256("one three")


def test_a_bos_that_the_tokenizer_adds_is_kept_and_named_and_an_eos_is_not(tokenizer: Any) -> None:
    library: Any = import_module("tokenizers")
    backend = library.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    end = ("<|endoftext|>", 0)
    backend.post_processor = library.processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[end]
    )
    fast: Any = PreTrainedTokenizerFast
    framing = fast(tokenizer_object=backend)
    stream = tokenize(corpus("one two", ENCYCLOPEDIA), framing, 60)
    assert stream.bos == "tokenizer adds <|endoftext|>"
    first = [0, *plain(tokenizer, "one two")]
    assert ids(stream) == [first, [0, *plain(tokenizer, ENCYCLOPEDIA)][: 60 - len(first)]]
    assert tokenize(corpus("one two"), tokenizer, 60).bos == "none"


def test_text_size_counts_the_scored_tokens_only(tokenizer: Any) -> None:
    stream = tokenize(corpus("Xé  one, two 's ."), tokenizer, 4096)
    scored = tokenizer.decode(
        stream.documents[0].ids[1:].tolist(), clean_up_tokenization_spaces=False
    )
    assert text_size(tokenizer, stream.documents[0].ids) == (
        len(scored.split()),
        len(scored.encode()),
    )
    assert scored.endswith("  one, two 's .")


EMOJI = "a 👩‍👩‍👧é\ufffd🤗 漢字"


def byte_fallback() -> Any:
    """A SentencePiece tokenizer whose only pieces are ``a`` and a space."""
    library: Any = import_module("tokenizers")
    named = ["<bos>", *(f"<0x{value:02X}>" for value in range(256)), "a", "\u2581"]
    backend = library.Tokenizer(
        library.models.BPE({token: at for at, token in enumerate(named)}, [], byte_fallback=True)
    )
    backend.normalizer = library.normalizers.Replace(" ", "\u2581")
    backend.decoder = library.decoders.Sequence(
        [
            library.decoders.Replace("\u2581", " "),
            library.decoders.ByteFallback(),
            library.decoders.Fuse(),
        ]
    )
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=backend, bos_token="<bos>")


@pytest.mark.parametrize("kind", ["byte-level", "byte fallback"])
def test_text_size_counts_the_true_bytes_of_a_character_that_is_cut(
    tokenizer: Any, kind: str
) -> None:
    chosen = tokenizer if kind == "byte-level" else byte_fallback()
    whole = torch.tensor(plain(chosen, EMOJI))
    cuts = range(1, len(whole) + 1)
    before = [text_size(chosen, whole[:cut])[1] for cut in cuts]
    behind = [text_size(chosen, whole[cut - 1 :])[1] for cut in cuts]
    total = len(EMOJI.encode()) - len("a")  # which is the first token and not scored
    assert {one + other for one, other in zip(before, behind, strict=True)} == {total}
    assert sum("\ufffd" in chosen.decode(whole[1:cut]) for cut in cuts) > 10


def test_a_long_text_draws_no_warning(
    tokenizer: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tokenize(corpus(ENCYCLOPEDIA), tokenizer, 4096)
    assert capfd.readouterr().err == ""
    assert caplog.text == ""
