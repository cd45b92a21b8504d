"""Runs in files. A ``.jsonl`` file is whole and portable; a ``.csv`` file holds the rows alone.

The first line of a ``.jsonl`` file is about the file; then comes a run a line: its row, its
documents, and its packed trace in base64. JSON has no infinity, which goes as ``"inf"``.
"""

from __future__ import annotations

import base64
import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Boolean, Column, Float, Integer, Table

from core.errors import StreamError, UsageError
from streamcli import __version__, files
from streamcli.results import migrations, schema, transfer, values
from streamcli.results.store import Store
from streamcli.results.transfer import DOCUMENTS, RUNS, Moved, Record

WHOLE, ROWS = ".jsonl", ".csv"
PARTS = ("run", "documents", "trace")
TRACE = ("nll", "latency_ms")


def export(store: Store, file: Path, run_ids: Sequence[str]) -> None:
    """Write these runs to a file, whole or only their rows; the file is there when all are.

    Raises:
        UsageError: The file is of another kind, or can't be written.
        StreamError: Runs were deleted meanwhile.
    """
    write = {WHOLE: _write_jsonl, ROWS: _write_csv}.get(file.suffix)
    if write is None:
        raise UsageError(
            f"{file} is neither {WHOLE} (whole runs) nor {ROWS} (rows only): name one of them. "
            "`streamcli db merge ONE --db OTHER` copies a database into another."
        )
    with store.transaction() as connection, _replaced(file) as stream:
        written = write(stream, transfer.records(connection, run_ids), len(run_ids))
        if written != len(run_ids):
            raise StreamError(f"runs were deleted meanwhile: {file} was not written; try again.")


def load(store: Store, file: Path) -> Moved:
    """Take in every run of a ``.jsonl`` file that is not here yet.

    Raises:
        UsageError: The file can't be read, or is no export.
        StreamError: A run of that name is another one here. Nothing was taken in.
    """
    if file.suffix != WHOLE:
        raise UsageError(
            f"{file} is no {WHOLE} file, as `streamcli db export` writes it; "
            "`streamcli db merge` takes in another database."
        )
    try:
        with file.open(encoding="utf-8") as stream:
            return transfer.add(store, _read_jsonl(stream, str(file)), str(file))
    except OSError as problem:
        raise UsageError(f"{file} can't be read: {problem.strerror}.") from problem
    except UnicodeDecodeError as problem:
        raise UsageError(f"{file} is not UTF-8 text, so it is no export.") from problem


@contextmanager
def _replaced(file: Path) -> Iterator[TextIO]:
    """A text stream that takes the place of ``file`` when all went well.

    Raises:
        UsageError: It can't be written.
    """
    try:
        with files.replaced(file) as raw, TextIOWrapper(raw, encoding="utf-8", newline="") as text:
            yield text
    except OSError as problem:
        raise UsageError(f"{file} can't be written: {problem.strerror}.") from problem


def _write_jsonl(stream: TextIO, runs: Iterable[Record], number: int) -> int:
    about = {"streamcli": __version__, "schema": migrations.known()[-1], "runs": number}
    stream.write(json.dumps(about) + "\n")
    written = 0
    for each in runs:
        packed = (each.trace or {}).items()
        trace = {name: base64.b64encode(blob).decode() for name, blob in packed} or None
        documents = [_finite(row) for row in each.documents]
        whole = {"run": _finite(each.run), "documents": documents, "trace": trace}
        stream.write(json.dumps(whole, allow_nan=False) + "\n")
        written += 1
    return written


def _write_csv(stream: TextIO, runs: Iterable[Record], number: int) -> int:
    rows = csv.DictWriter(stream, RUNS.columns.keys(), lineterminator="\n")
    rows.writeheader()
    return sum(bool(rows.writerow(each.run)) for each in runs)


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    infinite = {n: str(v) for n, v in row.items() if isinstance(v, float) and math.isinf(v)}
    return {**row, **infinite}


def _read_jsonl(stream: TextIO, name: str) -> Iterator[Record]:
    about = _object(stream.readline(), f"{name} line 1")
    if not isinstance(about.get("runs"), int) or "streamcli" not in about:
        raise UsageError(f"{name} is no export of streamcli: its first line does not say so.")
    if about.get("schema") not in migrations.known():
        raise UsageError(
            f"{name} was written by a newer streamcli (schema {about.get('schema')}, this one "
            f"knows {migrations.known()[-1]}): upgrade."
        )
    seen: set[str] = set()
    for number, line in enumerate(stream, start=2):
        record = _record(_object(line, f"{name} line {number}"), f"{name} line {number}")
        if record.run_id in seen:
            raise UsageError(f"{name} line {number} holds run {record.run_id} a second time.")
        seen.add(record.run_id)
        yield record
    if len(seen) != about["runs"]:
        raise UsageError(f"{name} holds {len(seen)} of its {about['runs']} runs: it was cut short.")


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
    if run["status"] not in schema.STATUSES or run["status"] == "running":
        raise UsageError(f"{where}: no exported run has status {run['status']!r}.")
    documents = [_row(row, DOCUMENTS, where) for row in found["documents"]]
    if [row["position"] for row in documents] != list(range(len(documents))):
        raise UsageError(f"{where}: the documents are not in order.")
    if found["trace"] is None:
        return Record(run, documents, None)
    try:
        packed = {name: base64.b64decode(found["trace"][name], validate=True) for name in TRACE}
    except (KeyError, TypeError, ValueError) as problem:
        raise UsageError(f"{where}: the trace is damaged.") from problem
    return Record(run, documents, packed)


def _row(found: Any, table: Table, where: str) -> dict[str, Any]:
    """Every column that the file's schema has, each of the kind that the table takes."""
    if not isinstance(found, dict):
        raise UsageError(f"{where}: a row is no JSON object.")
    columns = [c for c in table.columns if table is RUNS or c.name != "run_id"]
    if strange := sorted(set(found) - {column.name for column in columns}):
        raise UsageError(f"{where}: there is no column {strange[0]!r}.")
    row = {}
    for column in columns:
        value = found.get(column.name)
        if isinstance(column.type, Float) and value in ("inf", "-inf"):
            value = float(value)
        if not _fits(column, value):
            raise UsageError(f"{where}: {column.name} is {value!r}, which that column can't hold.")
        if column.name in found:
            row[column.name] = values.plain(column.name, value)
    return row


def _fits(column: Column[Any], value: Any) -> bool:
    if value is None:
        return bool(column.nullable)
    if isinstance(column.type, Boolean) or isinstance(value, bool):
        return isinstance(column.type, Boolean) and isinstance(value, bool)
    if isinstance(column.type, Float):
        return isinstance(value, float | int)
    return isinstance(value, int if isinstance(column.type, Integer) else str)
