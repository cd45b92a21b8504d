"""WikiText (Merity et al., arXiv 1609.07843): a test split, whole or by article."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from core import hub, paths
from core.datasets import files
from core.datasets.base import Corpus, Document
from core.datasets.bundled import stand_in
from core.datasets.hub_rows import Rows, Split, open_rows
from core.errors import UsageError, unknown

REPO = "Salesforce/wikitext"
CONFIGS = ("wikitext-103-raw-v1", "wikitext-2-raw-v1", "wikitext-103-v1", "wikitext-2-v1")
ARTICLES = "wikitext-articles"
STAND_IN = "bundled-encyclopedia"
TITLE = re.compile(r" = (?!=)(.+[^=]) = \n?")  # of an article; sections have more of the signs


def read(spec: str, source: str) -> Corpus:
    r"""``wikitext`` (wikitext-103-raw-v1) or ``wikitext:CONFIG``, rows joined by ``"\n\n"``.

    Raises:
        UsageError: No such configuration.
        StreamError: It can't be had, and no stand-in may be taken for it.
    """
    found = _rows(spec, source)
    if isinstance(found, Corpus):
        return found
    rows, config = found
    form = rf'Hub rows joined by "\n\n" ({config}, test)'
    return Corpus(spec, form, _whole(rows, config), rows.revision, pinned=rows.pinned)


def articles(spec: str, source: str) -> Corpus:
    r"""``wikitext-articles``, ``:CONFIG`` or ``:FILE``, a raw split: each article is a document.

    The test split has 60. Rows are joined by ``"\n\n"``, lines of a file are as they are.

    Raises:
        UsageError: No such configuration or file.
        StreamError: It can't be had, and no stand-in may be taken for it.
    """
    part = spec.partition(":")[2]
    if part and part not in CONFIGS and paths.path(part).is_file():
        text = files.read_text(paths.path(part))
        form = "articles of a raw WikiText file, as they are, line ends made LF"
        return Corpus(spec, form, _articles(text.splitlines(keepends=True), ""))
    found = _rows(spec, source)
    if isinstance(found, Corpus):
        return found
    rows, config = found
    form = rf'articles, Hub rows joined by "\n\n" ({config}, test)'
    documents = _articles((row["text"] for row in rows.rows), "\n\n")
    return Corpus(spec, form, documents, rows.revision, pinned=rows.pinned)


def _rows(spec: str, source: str) -> tuple[Rows, str] | Corpus:
    """The rows of the configuration that ``spec`` names and its name, or what stands in for it."""
    name, colon, config = spec.partition(":")
    config = config or CONFIGS[0]
    if config not in CONFIGS:
        also = "or a raw WikiText file that is there" if name == ARTICLES else ""
        raise unknown("WikiText configuration", config, CONFIGS, also)
    if source == "bundled":
        if not colon:
            return stand_in(STAND_IN)
        raise UsageError(f"{spec} is on the Hub: with --source bundled use {STAND_IN}.")
    try:
        return open_rows(Split(REPO, config, f"{config}/test-*.parquet"), spec, source), config
    except hub.Unreachable as error:
        if not colon and source == "auto":
            return stand_in(STAND_IN, f"{error.reason}; reading {STAND_IN} instead.")
        raise


def _whole(rows: Rows, config: str) -> Iterator[Document]:
    yield Document(f"{config} test", "\n\n".join(row["text"] for row in rows.rows))


def _articles(lines: Iterable[str], between: str) -> Iterator[Document]:
    """Cut where a title stands alone between empty lines; what is before the first is dropped.

    A formula may look like a title, but not between empty lines.
    """
    every = list(lines)
    bare = [not line.strip() for line in every]
    starts = [
        at
        for at, line in enumerate(every)
        if TITLE.fullmatch(line) and all(bare[max(at - 1, 0) : at]) and all(bare[at + 1 : at + 2])
    ]
    for start, stop in zip(starts, [*starts[1:], len(every)], strict=True):
        title = TITLE.fullmatch(every[start])
        yield Document(title[1] if title else "", between.join(every[start:stop]))
