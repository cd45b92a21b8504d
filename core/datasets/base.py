"""What a source of text gives: documents with their boundaries kept, and what is asked in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Question:
    """A place of a text where the answer to a question stands.

    Nothing is asked beside the stream: the question and its true answer are part of the text.

    Attributes:
        told: Place of the answer's first character where it was told last; None where a model must
            know it from elsewhere.
        asked: Place of its first character where it is asked for.
        right: Which of the candidates it is.
        candidates: What the answer might be, as it stands in the text.
    """

    told: int | None
    asked: int
    right: int
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """One text that is one stream: a book, an article, a row, a file; with its questions in order.

    What makes a text a task is that it has questions.
    """

    name: str
    text: str
    questions: tuple[Question, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of all of it."""
        whole = "\0".join((self.name, repr(self.questions), self.text))
        return hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Corpus:
    """The documents of a source, read lazily in a fixed order.

    Attributes:
        name: What was really read, such as ``wikitext`` or ``bundled-encyclopedia``.
        form: How the text was made from its source, in words; part of what a perplexity means.
        documents: The documents; iterate once.
        revision: Commit or hash of the source, where it has one.
        notes: Sentences that the user must see, such as that a stand-in was taken.
        pinned: Whether ``revision`` names these very documents, whenever they are read.
    """

    name: str
    form: str
    documents: Iterable[Document]
    revision: str | None = None
    notes: tuple[str, ...] = ()
    pinned: bool = False


@dataclass
class Read:
    """Documents on their way to whoever reads them, each hashed as it passes; iterate once.

    Attributes:
        documents: The documents.
        hashes: Those of the documents that were read.
        ended: Whether there are no more.
    """

    documents: Iterable[Document]
    hashes: list[str] = field(default_factory=list)
    ended: bool = False

    def __iter__(self) -> Iterator[Document]:
        for document in self.documents:
            self.hashes.append(document.sha256)
            yield document
        self.ended = True
