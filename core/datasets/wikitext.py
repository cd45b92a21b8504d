"""WikiText (Merity et al., arXiv 1609.07843): the test split of a configuration as one document."""

from __future__ import annotations

from collections.abc import Iterator

from core import hub
from core.datasets.base import Corpus, Document
from core.datasets.bundled import stand_in
from core.datasets.hub_rows import Rows, Split, open_rows
from core.errors import UsageError, unknown

REPO = "Salesforce/wikitext"
CONFIGS = ("wikitext-103-raw-v1", "wikitext-2-raw-v1", "wikitext-103-v1", "wikitext-2-v1")
STAND_IN = "bundled-encyclopedia"


def read(spec: str, source: str) -> Corpus:
    r"""``wikitext`` (wikitext-103-raw-v1) or ``wikitext:CONFIG``, rows joined by ``"\n\n"``.

    Raises:
        UsageError: No such configuration.
        StreamError: It can't be had, and no stand-in may be taken for it.
    """
    config = spec.partition(":")[2] or CONFIGS[0]
    if config not in CONFIGS:
        raise unknown("WikiText configuration", config, CONFIGS)
    whole = spec == "wikitext"
    if source == "bundled":
        if whole:
            return stand_in(STAND_IN)
        raise UsageError(f"{spec} is on the Hub: with --source bundled use {STAND_IN}.")
    try:
        rows = open_rows(Split(REPO, config, f"{config}/test-*.parquet"), spec, source)
    except hub.Unreachable as error:
        if whole and source == "auto":
            return stand_in(STAND_IN, f"{error.reason}; reading {STAND_IN} instead.")
        raise
    form = rf'Hub rows joined by "\n\n" ({config}, test)'
    return Corpus(spec, form, _documents(rows, config), rows.revision)


def _documents(rows: Rows, config: str) -> Iterator[Document]:
    yield Document(f"{config} test", "\n\n".join(row["text"] for row in rows.rows))
