"""Runs in files. A ``.jsonl`` file is whole and portable; a ``.csv`` file holds the rows alone.

The first line of a ``.jsonl`` file is about the file; then come the rows that belong to no run, if
any, a benchmark or a probe a line, and a run a line: its row, its documents, and its packed trace.
Packed numbers are in base64. JSON has no infinity, which goes as ``"inf"``.
"""

from __future__ import annotations

import base64
import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Float, LargeBinary, Table

from core.errors import StreamError, UsageError
from streamcli import __version__, files, harmless
from streamcli.results import kinds, migrations, transfer, ulid, values
from streamcli.results.columns import STATUSES
from streamcli.results.queue import Cell
from streamcli.results.schema import DOCUMENTS, RUNS
from streamcli.results.store import Store
from streamcli.results.transfer import ALONE, Moved, Others, Record

WHOLE, ROWS = ".jsonl", ".csv"
PARTS = ("run", "documents", "trace")
TRACE = ("nll", "latency_ms")
PACKED = {  # columns of rows that belong to no run, packed as a trace is
    word: [column.name for column in table.columns if isinstance(column.type, LargeBinary)]
    for word, table in ALONE.items()
}


def export(
    store: Store, file: Path, run_ids: Sequence[str], *, others: bool = False
) -> dict[str, int]:
    """Write these runs to a file, whole or only their rows; the file is there when all are.

    Args:
        store: Where they are.
        file: A ``.jsonl`` or ``.csv`` file.
        run_ids: Names in full.
        others: Whether all that belongs to no run goes with them, which only a ``.jsonl`` file can
            hold.

    Returns:
        How many of these rows were written, by the name of their table.

    Raises:
        UsageError: The file is of another kind, or can't be written.
        StreamError: Runs were deleted meanwhile, or the disk is full.
    """
    if file.suffix not in (WHOLE, ROWS):
        raise UsageError(
            f"{file} is neither {WHOLE} (whole runs) nor {ROWS} (rows only): name one of them. "
            "`streamcli db merge ONE --db OTHER` copies a database into another."
        )
    with store.transaction() as connection, _replaced(file) as stream:
        runs = transfer.records(connection, run_ids)
        more: Others = {}
        if file.suffix == ROWS:
            written = _write_csv(stream, runs)
        else:
            more = transfer.others(connection) if others else {}
            written = _write_jsonl(stream, runs, len(run_ids), more)
        if written != len(run_ids):
            raise StreamError(f"runs were deleted meanwhile: {file} was not written; try again.")
    return {ALONE[word].name: len(rows) for word, rows in more.items() if rows}


def write(file: Path, kept: Sequence[Record], more: Others, **about: Any) -> None:
    """Write whole runs, and rows that belong to none, to a ``.jsonl`` file.

    Args:
        file: Where to.
        kept: The runs.
        more: The rows.
        **about: What the first line says besides.

    Raises:
        UsageError: It can't be written.
        StreamError: The disk is full.
    """
    with _replaced(file) as stream:
        _write_jsonl(stream, kept, len(kept), more, **about)


def load(store: Store, file: Path) -> Moved:
    """Take in every run and other row of a ``.jsonl`` file that is not here yet.

    Raises:
        UsageError: The file can't be read, or is no export.
        StreamError: A run of that name is another one here. Nothing was taken in.
        Taken: Another worker has made the run of the queue meanwhile.
    """
    if file.suffix != WHOLE:
        raise UsageError(
            f"{file} is no {WHOLE} file, as `streamcli db export` writes it; "
            "`streamcli db merge` takes in another database."
        )
    try:
        with file.open(encoding="utf-8") as stream:
            about = _about(stream, str(file))
            more, line = {}, 2
            for word, table in ALONE.items():
                more[word] = _alone(stream, word, about[table.name], line, str(file))
                line += len(more[word])
            runs = _runs(stream, about["runs"], line, str(file))
            return transfer.add(store, runs, str(file), more, _cell(about))
    except OSError as problem:
        raise UsageError(f"{file} can't be read: {problem.strerror}.") from problem
    except UnicodeDecodeError as problem:
        raise UsageError(f"{file} is not UTF-8 text, so it is no export.") from problem


@contextmanager
def _replaced(file: Path) -> Iterator[TextIO]:
    """A text stream that takes the place of ``file`` when all went well."""
    with files.replaced(file) as raw, TextIOWrapper(raw, encoding="utf-8", newline="") as text:
        yield text


def _write_jsonl(
    stream: TextIO, runs: Iterable[Record], number: int, more: Others, **about: Any
) -> int:
    head = {"streamcli": __version__, "schema": migrations.known()[-1], "runs": number}
    counts = {table.name: len(more.get(word, ())) for word, table in ALONE.items()}
    stream.write(json.dumps({**head, **counts, **about}) + "\n")
    for word, rows in more.items():
        for row in rows:
            plain = {**_finite(row), **{name: _text(row[name]) for name in PACKED[word]}}
            stream.write(json.dumps({word: plain}, allow_nan=False) + "\n")
    written = 0
    for each in runs:
        trace = {name: _text(blob) for name, blob in (each.trace or {}).items()} or None
        documents = [_finite(row) for row in each.documents]
        whole = {"run": _finite(each.run), "documents": documents, "trace": trace}
        stream.write(json.dumps(whole, allow_nan=False) + "\n")
        written += 1
    return written


def _write_csv(stream: TextIO, runs: Iterable[Record]) -> int:
    rows = csv.DictWriter(stream, RUNS.columns.keys(), lineterminator="\n")
    rows.writeheader()
    return sum(
        bool(rows.writerow({name: harmless.csv_cell(value) for name, value in each.run.items()}))
        for each in runs
    )


def _text(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


def _bytes(text: Any) -> bytes:
    """What ``_text`` was given; raises TypeError or ValueError where that is not what it gave."""
    return base64.b64decode(text, validate=True)


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    infinite = {n: str(v) for n, v in row.items() if isinstance(v, float) and math.isinf(v)}
    return {**row, **infinite}


def _about(stream: TextIO, name: str) -> dict[str, Any]:
    """The first line; an older file has no word of some kinds of rows, and none of them."""
    none = {table.name: 0 for table in ALONE.values()}
    about = {**none, **_object(stream.readline(), f"{name} line 1")}
    if not isinstance(about.get("runs"), int) or "streamcli" not in about:
        raise UsageError(f"{name} is no export of streamcli: its first line does not say so.")
    if about.get("schema") not in migrations.known():
        raise UsageError(
            f"{name} was written by a newer streamcli (schema {about.get('schema')}, this one "
            f"knows {migrations.known()[-1]}): upgrade."
        )
    for kind in none:
        if not isinstance(about[kind], int):
            raise UsageError(f"{name} line 1: {kind} is {about[kind]!r}, no number.")
    return about


def _cell(about: dict[str, Any]) -> Cell | None:
    """The place in the queue of a run that its database could not take."""
    match about.get("cell"):
        case [str(group_id), int(number)]:
            return Cell(group_id, number)
    return None


def _alone(stream: TextIO, word: str, number: int, first: int, name: str) -> list[dict[str, Any]]:
    """So many rows that belong to no run, from the line ``first`` on: every column of each."""
    found: dict[str, dict[str, Any]] = {}
    table = ALONE[word]
    for line in range(first, first + number):
        where = f"{name} line {line}"
        row = _object(stream.readline() or "{}", where).get(word)
        if not isinstance(row, dict):
            raise UsageError(f"{where} is not one of the {number} {table.name}: it was cut short.")
        try:
            packed = {each: _bytes(row.get(each)) for each in PACKED[word]}
        except (TypeError, ValueError) as problem:
            raise UsageError(f"{where}: {' or '.join(PACKED[word])} is damaged.") from problem
        row = _row({**row, **packed}, table, where)
        named = str(row[transfer.key_of(word).name])
        if not ulid.is_one(named) or named in found:
            raise UsageError(f"{where}: {named!r} is no name of a {word}, or a second time.")
        found[named] = {column.name: row.get(column.name) for column in table.columns}
    return list(found.values())


def _runs(stream: TextIO, count: int, first: int, name: str) -> Iterator[Record]:
    """The runs, whose first line has the number ``first``."""
    seen: set[str] = set()
    for number, line in enumerate(stream, start=first):
        record = _record(_object(line, f"{name} line {number}"), f"{name} line {number}")
        if record.run_id in seen:
            raise UsageError(f"{name} line {number} holds run {record.run_id} a second time.")
        seen.add(record.run_id)
        yield record
    if len(seen) != count:
        raise UsageError(f"{name} holds {len(seen)} of its {count} runs: it was cut short.")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise UsageError(f"{where} is not JSON: {problem}.") from problem
    if not isinstance(found, dict):
        raise UsageError(f"{where} is no JSON object.")
    return found


def _record(found: dict[str, Any], where: str) -> Record:
    if set(found) != set(PARTS) or not isinstance(found["documents"], list):
        raise UsageError(f"{where} is no run, which has {', '.join(PARTS)}.")
    run = _row(found["run"], RUNS, where)
    if run["status"] not in STATUSES or run["status"] == "running":
        raise UsageError(f"{where}: no exported run has status {run['status']!r}.")
    documents = [_row(row, DOCUMENTS, where) for row in found["documents"]]
    if [row["position"] for row in documents] != list(range(len(documents))):
        raise UsageError(f"{where}: the documents are not in order.")
    if found["trace"] is None:
        return Record(run, documents, None)
    try:
        packed = {name: _bytes(found["trace"][name]) for name in TRACE}
    except (KeyError, TypeError, ValueError) as problem:
        raise UsageError(f"{where}: the trace is damaged.") from problem
    return Record(run, documents, packed)


def _row(found: Any, table: Table, where: str) -> dict[str, Any]:
    """Every column that the file's schema has, each of the kind that the table takes."""
    if not isinstance(found, dict):
        raise UsageError(f"{where}: a row is no JSON object.")
    columns = [c for c in table.columns if table is not DOCUMENTS or c.name != "run_id"]
    if strange := sorted(set(found) - {column.name for column in columns}):
        raise UsageError(f"{where}: there is no column {strange[0]!r}.")
    row = {}
    for column in columns:
        value = found.get(column.name)
        if isinstance(column.type, Float) and value in ("inf", "-inf"):
            value = float(value)
        if not kinds.fits(column, value):
            raise UsageError(f"{where}: {column.name} is {value!r}, which that column can't hold.")
        if column.name in found:
            row[column.name] = values.plain(column.name, value)
    return row
