"""What a source of text gives: documents with their boundaries kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One text that is one stream: a book, an article, a row, a file."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """The documents of a source, read lazily in a fixed order.

    Attributes:
        name: What was really read, such as ``wikitext`` or ``bundled-encyclopedia``.
        form: How the text was made from its source, in words; part of what a perplexity means.
        documents: The documents; iterate once.
        revision: Commit or hash of the source, where it has one.
        notes: Sentences that the user must see, such as that a stand-in was taken.
    """

    name: str
    form: str
    documents: Iterable[Document]
    revision: str | None = None
    notes: tuple[str, ...] = ()
