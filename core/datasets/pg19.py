"""PG-19 (Rae et al., arXiv 1911.05507): whole books of the test split, each one document."""

from __future__ import annotations

import re
from collections.abc import Iterator

from core import hub
from core.datasets.base import Corpus, Document
from core.datasets.bundled import stand_in
from core.datasets.hub_rows import Rows, Split, open_rows
from core.errors import UsageError, unknown

MIRROR = Split("emozilla/pg19", "default", "data/test-*.parquet")
STAND_IN = "bundled-narrative"


def read(spec: str, source: str) -> Corpus:
    """``pg19`` (every book, in the mirror's order) or ``pg19:BOOK`` (one, by Gutenberg number).

    Raises:
        UsageError: No such book; where the number is one, only when the documents are read.
        StreamError: It can't be had, and no stand-in may be taken for it.
    """
    _, colon, book = spec.partition(":")
    if colon and not book.isdecimal():
        raise UsageError(f"{spec!r}: after pg19: comes a Gutenberg number, such as pg19:10146.")
    if source == "bundled":
        if not book:
            return stand_in(STAND_IN)
        raise UsageError(f"{spec} is on the Hub: with --source bundled use {STAND_IN}.")
    try:
        rows = open_rows(MIRROR, spec, source)
    except hub.Unreachable as error:
        if not book and source == "auto":
            return stand_in(STAND_IN, f"{error.reason}; reading {STAND_IN} instead.")
        raise
    form = f"whole books, CR LF made LF ({MIRROR.repo}, test)"
    documents = _book(rows, book) if book else _books(rows)
    return Corpus(spec, form, documents, rows.revision, pinned=rows.pinned)


def _books(rows: Rows) -> Iterator[Document]:
    for row in rows.rows:
        number = re.search(r"(\d+)/?$", row["url"])
        name = number[1] if number else row["short_book_title"]
        yield Document(name, row["text"].replace("\r\n", "\n"))


def _book(rows: Rows, book: str) -> Iterator[Document]:
    seen = []
    for document in _books(rows):
        if document.name == book:
            yield document
            return
        seen.append(document.name)
    raise unknown("PG-19 test book", book, seen)
