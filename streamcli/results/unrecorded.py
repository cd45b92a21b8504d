"""Finished runs, benchmarks and probes that their database could not take: in files, for later.

A file is an export like any other (``portable``), whose first line also names the database. It lies
beside the database, else in the working folder, else in a new folder for temporary files.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlmodel import col, select

from core.errors import StreamError
from core.result import RunResult
from streamcli.results import addresses, portable, transfer, ulid, values
from streamcli.results.queue import Cell
from streamcli.results.schema import DocumentRow, Run, Trace
from streamcli.results.store import Store
from streamcli.results.transfer import Others, Record

PREFIX = "streamcli-unrecorded-"


def record(run: Run, result: RunResult) -> Record:
    """A run that has begun, whole and done, as the database would have it."""
    values.finish(run, result)
    rows = values.rows(run.run_id, result)
    documents = [transfer.without_id(e.model_dump()) for e in rows if isinstance(e, DocumentRow)]
    (trace,) = (transfer.without_id(e.model_dump()) for e in rows if isinstance(e, Trace))
    return Record(run.model_dump(), documents, trace)


def write(
    store: Store, kept: Sequence[Record], more: Others | None = None, cell: Cell | None = None
) -> Path:
    """Write finished runs, or rows that belong to none, to a file for ``streamcli db import``.

    The file bears the name of the first, and the place in the queue of the run, if it has one.

    Raises:
        StreamError: It can be written nowhere.
    """
    first = [rows[0][transfer.key_of(word).name] for word, rows in (more or {}).items()]
    name, problems = [*(each.run_id for each in kept), *first][0], list[str]()
    for folder in _folders(store):
        file = folder / f"{PREFIX}{name}{portable.WHOLE}"
        try:
            portable.write(file, kept, more or {}, database=store.place, cell=cell)
            return file
        except StreamError as problem:
            problems.append(str(problem))
    raise StreamError(f"the result of {name} could be written nowhere: {problems[-1]}")


def waiting(store: Store) -> list[Path]:
    """Files of this database's results that it does not have yet, oldest first."""
    here = {file.resolve(): None for folder in _near(store) for file in _files(folder)}
    files = {file.stem.removeprefix(PREFIX): file for file in here if _is_for(file, store.place)}
    if not files:
        return []
    done = select(Run.run_id).where(col(Run.run_id).in_(files), col(Run.status) == "done")
    alone = [select(key).where(key.in_(files)) for key in map(transfer.key_of, transfer.ALONE)]
    known = {name for query in (done, *alone) for (name,) in store.read(query)}
    return [files[name] for name in sorted(files) if name not in known]


def _near(store: Store) -> list[Path]:
    """The database's folder, where it is a file, and the working folder."""
    file = addresses.file_of(store.engine.url)
    return [*([file.parent] if file else []), Path.cwd()]


def _folders(store: Store) -> Iterator[Path]:
    yield from _near(store)
    yield Path(tempfile.mkdtemp(prefix="streamcli-"))  # which nobody else can write to


def _files(folder: Path) -> list[Path]:
    return [
        file
        for file in folder.glob(f"{PREFIX}*{portable.WHOLE}")
        if ulid.is_one(file.stem.removeprefix(PREFIX))
    ]


def _is_for(file: Path, place: str) -> bool:
    """Whether a file names this database, or a file that was moved away."""
    try:
        with file.open(encoding="utf-8") as stream:
            about: Any = json.loads(stream.readline())
        named = about["database"]
        return bool(named == place or ("://" not in named and not Path(named).exists()))
    except (OSError, ValueError, TypeError, LookupError):
        return False
