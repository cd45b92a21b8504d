"""What preparing a run comes to, told from files alone where it was done before. Torch-free.

To prepare a run takes torch, a model and a tokenizer, for seconds. What comes of it, the settled
configuration and the hashes of what would run, follows from the options, the model's files, the
documents that are read, this package's code, the packages it uses, and the machine. All of these
are looked at anew each time, files by their bytes: nothing is believed by its name, time or size.

What was found is kept in the user's cache, a small file for each. One that is missing or damaged
costs the time that it would have saved.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import environment, tokens
from core.config import RunConfig
from core.datasets.base import Corpus, Read
from core.errors import StreamError
from core.facts import RunFacts
from core.hashing import named, sha256
from core.models import locate, pypi

if TYPE_CHECKING:
    from core.runner import Prepared

MOST = 5000  # files that are kept, the latest


@dataclass(frozen=True)
class Foreknown:
    """What preparing a run would find.

    Attributes:
        config: The resolved configuration.
        facts: Hashes and revisions of the model and the text.
        notes: Sentences that the user must see.
    """

    config: RunConfig
    facts: RunFacts
    notes: tuple[str, ...]


@dataclass
class Foreknowledge:
    """What was found before, as far as it holds for what is here.

    A model and a text are looked at once, since one that is in memory is not loaded again either.

    Attributes:
        explicit: Whether the user named the model, so that no stand-in may take its place.
    """

    explicit: bool
    _models: dict[tuple[Any, ...], tuple[str, ...] | None] = field(default_factory=dict)
    _texts: dict[tuple[str, str], _Looked] = field(default_factory=dict)

    def find(self, config: RunConfig) -> Foreknown | None:
        """What preparing ``config`` would find; None where that takes preparing it."""
        with suppress(StreamError, OSError, ValueError, KeyError, TypeError):
            path = self._path(config)
            kept = json.loads(path.read_text(encoding="utf-8")) if path else None
            if kept and self._text(config).begins(kept["documents"], kept["ended"]):
                settled = {**kept["config"], "param": _pairs(kept["config"]["param"])}
                facts = RunFacts(**kept["facts"])
                return Foreknown(RunConfig(**settled), facts, tuple(kept["notes"]))
        return None

    def keep(self, asked: RunConfig, prepared: Prepared, read: Read) -> None:
        """Keep what preparing ``asked``, which ``find`` did not know, has found.

        Args:
            asked: What was asked for.
            prepared: What came of it.
            read: The documents that were read for it.
        """
        with suppress(StreamError, OSError):
            path, facts = self._path(asked), prepared.facts
            if path is None:
                return
            hashes = self._model(asked)
            if hashes is None or hashes[-2:] != (facts.weights_sha256, facts.files_sha256):
                return  # they were changed in between
            found: dict[str, Any] = {"config": asdict(prepared.config), "facts": asdict(facts)}
            found |= {"notes": prepared.notes, "documents": read.hashes, "ended": read.ended}
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(found), encoding="utf-8")
            draft.replace(path)
            _forget(path.parent)

    def _path(self, config: RunConfig) -> Path | None:
        """Where it is kept what follows from ``config`` here; None where more decides than told."""
        if config.source == "hub" or config.trust or config.spec.package:
            return None  # asks the network first, runs code that has no hash, or is not ours
        model = self._model(config)
        if model is None:
            return None
        corpus = self._text(config).corpus
        text = (corpus.name, corpus.form, corpus.revision, corpus.notes)
        told = [environment.surroundings(), asdict(config), self.explicit, model, text]
        return folder() / f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()}.json"

    def _model(self, config: RunConfig) -> tuple[str, ...] | None:
        """How the model is called, and its hashes; None where it must be fetched first."""
        key = (config.model, config.source, config.spec.moves)
        if key not in self._models:
            self._models[key] = _hashes(config, self.explicit)
        return self._models[key]

    def _text(self, config: RunConfig) -> _Looked:
        key = (config.dataset, config.source)
        if key not in self._texts:
            self._texts[key] = _Looked.at(tokens.open_corpus(*key))
        return self._texts[key]


@dataclass
class _Looked:
    """A text, and the hashes of as many of its documents as were looked at."""

    corpus: Corpus
    read: Read
    documents: Iterator[Any]

    @classmethod
    def at(cls, corpus: Corpus) -> _Looked:
        read = Read(corpus.documents)
        return cls(corpus, read, iter(read))

    def begins(self, hashes: list[str], ended: bool) -> bool:
        """Whether it begins with such documents, and has no more where it had none."""
        if self.corpus.pinned:
            return True
        more = len(hashes) + ended - len(self.read.hashes)
        for _ in islice(self.documents, max(0, more)):
            pass
        alike = self.read.hashes[: len(hashes)] == hashes
        return alike and not (ended and len(self.read.hashes) > len(hashes))


def folder() -> Path:
    """Where it is kept what was found: in the cache that fetched models are in."""
    return pypi.cache_folder() / "prepared"


def _hashes(config: RunConfig, explicit: bool) -> tuple[str, ...] | None:
    """What a model that is here is called, its notes, and the hashes of its files; else None."""
    try:
        place = locate.locate(
            config.model, source=config.source, trust=False, explicit=explicit, fetch=False
        )
    except StreamError:
        return None
    if place.path.is_file():
        weights = others = sha256([place.path])
    else:
        files = locate.weights(place.path, trust=False)
        if not files:
            return None
        weights, others = sha256(files), named(locate.others(place.path, trust=False))
    return place.name, place.revision or "", *place.notes, weights, others


def _pairs(param: list[list[Any]]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in param)


def _forget(kept: Path) -> None:
    """Remove the oldest files beyond ``MOST``."""
    files = list(kept.iterdir())
    if len(files) > MOST:
        for path in sorted(files, key=lambda each: each.stat().st_mtime)[: len(files) - MOST]:
            path.unlink(missing_ok=True)
