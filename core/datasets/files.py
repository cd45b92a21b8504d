"""The user's own texts: a ``.txt`` file or a folder of them, rows of ``.jsonl`` or ``.parquet``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core import paths
from core.datasets.base import Corpus, Document
from core.errors import UsageError


def read(spec: str, source: str) -> Corpus:
    """The documents of the file at ``spec``. ``source`` does not matter: a path is a path.

    Raises:
        UsageError: Nothing there that can be read; for a bad row, when the row is reached.
    """
    path = paths.path(spec)
    if path.is_dir():
        return _folder(spec, path)
    if path.suffix not in READERS:
        raise UsageError(f"{spec} can't be read: a text is a {', '.join(READERS)} file.")
    if path.exists() and not path.is_file():
        raise UsageError(f"{spec} is no plain file: a text is read from a file on disk.")
    if not path.is_file():
        raise UsageError(f"there is no file {spec}.")
    try:
        if not path.stat().st_size:
            raise UsageError(f"{spec} is empty: there is no text to read.")
        form, documents = READERS[path.suffix](path)
    except OSError as error:
        raise UsageError(f"{spec} can't be read: {error.strerror or error}.") from error
    return Corpus(spec, form, documents)


def _folder(spec: str, folder: Path) -> Corpus:
    """Each ``.txt`` file of a folder as a document, in the order of their names."""
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix == ".txt")
    except OSError as error:
        raise UsageError(f"{spec} can't be read: {error.strerror or error}.") from error
    if not found:
        raise UsageError(
            f"{spec} is a folder without .txt files: put texts into it, or name a "
            f"{' or '.join(READERS)} file."
        )
    form = f"one document a file, {len(found)} .txt files in order of name, line ends made LF"
    return Corpus(spec, form, (Document(path.name, read_text(path)) for path in found))


def _txt(path: Path) -> tuple[str, Iterator[Document]]:
    document = Document(path.name, read_text(path))
    return "one document, the whole file, line ends made LF", iter([document])


def read_text(path: Path) -> str:
    """The text of a file, line ends made LF.

    Raises:
        UsageError: It can't be read, is no UTF-8, or is empty.
    """
    try:
        found = _decode(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}.") from error
    if not found.strip():
        raise UsageError(f"{path} is empty: there is no text to read.")
    return found.replace("\r\n", "\n").replace("\r", "\n")


def _jsonl(path: Path) -> tuple[str, Iterator[Document]]:
    return "one document a row, field text", _jsonl_documents(path)


def _jsonl_documents(path: Path) -> Iterator[Document]:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = _decode(line, str(path), offset)
            offset += len(line)
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except RecursionError as error:
                raise UsageError(
                    f"{path}: row {number} is nested too deeply: a row is an object with a string "
                    "named text."
                ) from error
            except ValueError as error:
                raise UsageError(f"{path}: row {number} is not JSON: {error}.") from error
            yield _document(row if isinstance(row, dict) else {}, number, path)


def _parquet(path: Path) -> tuple[str, Iterator[Document]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise UsageError(f"{path} is no parquet file that can be read: {error}.") from error
    columns = file.schema_arrow.names
    if "text" not in columns:
        raise UsageError(f"{path} has no column text: its columns are {', '.join(columns)}.")
    wanted = [name for name in ("id", "title", "text") if name in columns]
    if twice := [name for name in wanted if columns.count(name) > 1]:
        raise UsageError(f"{path} has several columns {twice[0]}: leave one.")
    return "one document a row, column text", _parquet_documents(file, wanted, path)


def _parquet_documents(file: Any, columns: list[str], path: Path) -> Iterator[Document]:
    import pyarrow as pa

    number = 0
    try:
        for batch in file.iter_batches(batch_size=64, columns=columns):
            for place in range(batch.num_rows):
                row = {name: batch[name][place].as_py() for name in columns}
                number += 1
                yield _document(row, number, path)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: row {number + 1} is not UTF-8 text: byte {error.start} of it is "
            f"{error.object[error.start]:#04x}; write the column text as UTF-8."
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} can't be read after row {number}: {error}.") from error


def _document(row: dict[str, Any], number: int, path: Path) -> Document:
    text = row.get("text")
    if not isinstance(text, str):
        raise UsageError(f"{path}: row {number} has no text: each row needs a string named text.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{path}: row {number} is no text: character {error.start} is half of a surrogate "
            f"pair, \\u{ord(text[error.start]):04x}; write both halves, or leave it out."
        ) from error
    name = row.get("id", row.get("title"))
    return Document(f"row {number}" if name is None else str(name), text)


def _decode(raw: bytes, name: str, offset: int = 0) -> str:
    """Strict UTF-8 without its byte-order mark; ``raw`` starts ``offset`` bytes into the file."""
    try:
        text = raw.decode("utf-8")
        bad = raw.find(b"\0")
    except UnicodeDecodeError as error:
        bad = error.start
    if bad >= 0:
        raise UsageError(
            f"{name} is not UTF-8 text: byte {offset + bad} is {raw[bad]:#04x}; "
            "convert it, for instance with iconv -t UTF-8."
        )
    return text.removeprefix("\ufeff")


Reader = Callable[[Path], tuple[str, Iterator[Document]]]
READERS: dict[str, Reader] = {".txt": _txt, ".jsonl": _jsonl, ".parquet": _parquet}
