"""The texts that travel with streamcli: stand-ins for WikiText and PG-19 without a network."""

from __future__ import annotations

from core.datasets.base import Corpus, Document
from core.errors import StreamError, UsageError
from core.hashing import sha256
from core.packaged import bundled

FILES = {"bundled-encyclopedia": "encyclopedia.txt", "bundled-narrative": "narrative.txt"}


def read(spec: str, source: str) -> Corpus:
    """One bundled text as one document. ``source`` does not matter: it is always here.

    Raises:
        UsageError: ``spec`` asks for a part of it.
        StreamError: The file is missing.
    """
    if spec not in FILES:
        raise UsageError(f"{spec!r}: a bundled text is one whole; choose {' or '.join(FILES)}.")
    return stand_in(spec)


def stand_in(name: str, *notes: str) -> Corpus:
    """The bundled text ``name``, with notes on why it was taken."""
    path = bundled(FILES[name])
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StreamError(f"the bundled text is missing: {path}: {error.strerror}.") from error
    return Corpus(
        name=name,
        form=f"one document, as it is in {path.name}",
        documents=(Document(name, text),),
        revision=sha256([path]),
        notes=notes,
    )
