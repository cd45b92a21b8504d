"""Texts and plans that can't be read: each is refused in one line that names file and row."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.typed import Type

MODEL = ("--model", "bundled", "--window", "16", "--mode", "chunked", "--threads", "1")
DEEP = b"[" * 50_000 + b"]" * 50_000
GOOD = b'{"text": "Once upon a time."}\n'


def texts(*rows: bytes) -> Any:
    """A column of text from bytes that need not be UTF-8."""
    raw = pa.array(rows, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(rows), raw.buffers())


def parquet(*columns: tuple[str, Any]) -> bytes:
    buffer = io.BytesIO()
    names = [name for name, _ in columns]
    pq.write_table(pa.Table.from_arrays([column for _, column in columns], names), buffer)
    return buffer.getvalue()


BAD_ID = parquet(("id", texts(b"a", b"\xff")), ("text", texts(b"one two three", b"four five")))
FILES = [
    ("a.jsonl", GOOD + b'{"text": "ab\\ud800"}', ("a.jsonl: row 2", r"character 2", r"\ud800")),
    ("a.jsonl", GOOD + b'{"text": "\\udc00"}', ("a.jsonl: row 2", r"\udc00")),
    ("a.jsonl", GOOD + DEEP, ("a.jsonl: row 2 is nested too deeply",)),
    ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}", ("a.jsonl: row 1 is not JSON",)),
    ("a.jsonl", b'{"text": NaN}', ("a.jsonl: row 1 has no text",)),
    ("a.parquet", parquet(("text", texts(*[b"good"] * 70, b"ba\xff"))), ("row 71", "byte 2", "ff")),
    ("a.parquet", BAD_ID, ("a.parquet: row 2 is not UTF-8", "0xff")),
    ("a.parquet", parquet(("text", pa.array([["a"]]))), ("a.parquet: row 1 has no text",)),
    ("a.parquet", parquet(*[("text", texts(b"a b"))] * 2), ("several columns text",)),
]
NAMED = [
    ("", ("the text has no name", "--dataset takes")),
    ("  ", ("the text has no name",)),
    ("~nosuchuser/x.txt", ("~nosuchuser/x.txt", "no home of a user 'nosuchuser'")),
    ("~nosuchuser", ("no home of a user 'nosuchuser'",)),
    ("a" * 5000, ("aaa...", "too long")),
    ("/" + "a" * 5000 + ".txt", ("aaa...", "too long")),
    ("/dev/zero", ("/dev/zero can't be read", ".txt")),
    ("pipe.txt", ("pipe.txt is no plain file",)),
]
LAUGHS = b"windows: [&a [x,x,x,x,x,x,x,x,x]%s]" % b"".join(
    b", &%c [%s]" % (98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)
PLANS = [
    ("plan.yaml", b"windows: " + b"[" * 2000, ("plan.yaml", "nested too deeply")),
    ("plan.toml", b"windows = " + DEEP, ("plan.toml", "nested too deeply")),
    ("plan.yaml", b"#" * (2**20 + 1), ("plan.yaml has 1,048,577 bytes", "1,048,576 at most")),
    ("plan.yaml", LAUGHS, ("plan.yaml: windows is ['x', 'x'", "a whole number")),
    ("plan.yaml", b"windows: &a [*a]", ("plan.yaml: windows is [[", "a whole number")),
    ("plan.yaml", b"windows: [%s]" % (b"9" * 30), ("window is 9999", "or less")),
    ("plan.yaml", b"repeats: %s" % (b"9" * 30), ("repeats is 9999", "1000000")),
    ("plan.yaml", b"windows: [%s]" % (b"9" * 5000), ("plan.yaml is no valid YAML",)),
    ("plan.yaml", b"windows: \xff", ("plan.yaml is no valid YAML", "position 9")),
    ("plan.yaml", b"models: ['']", ("models has an empty value",)),
    ("plan.yaml", b'models: ["a\\0b"]', (r"'a\x00b' is no path",)),
    ("plan.yaml", b'models: ["\\ud800"]', (r"'\ud800' is no path",)),
    ("plan.json", b"{}", ("plan.json", ".yaml, .yml or .toml")),
]
PLACES = [
    ("/dev/zero", ("/dev/zero", ".yaml, .yml or .toml")),
    ("zero.yaml", ("zero.yaml is no plain file",)),
    ("pipe.yaml", ("pipe.yaml is no plain file",)),
    ("folder.yaml", ("folder.yaml is no plain file",)),
    ("none.yaml", ("none.yaml can't be read", "No such file")),
]


@pytest.mark.parametrize(("name", "data", "words"), FILES)
def test_a_row_that_is_no_text(
    typed: Type, home: Path, name: str, data: bytes, words: tuple[str, ...]
) -> None:
    (home / name).write_bytes(data)
    assert typed("run", "--dataset", name, "--max-tokens", "900", *MODEL).refuses(2, *words)
    assert not (home / "data").exists()


@pytest.mark.parametrize(("spec", "words"), NAMED)
def test_a_name_of_nothing(typed: Type, home: Path, spec: str, words: tuple[str, ...]) -> None:
    os.mkfifo(home / "pipe.txt")
    assert typed("run", "--dataset", spec, *MODEL).refuses(2, *words)


def test_a_name_that_is_no_text_stops_no_run(typed: Type, home: Path) -> None:
    (home / "a.jsonl").write_bytes(b'{"id": "\\ud800", "text": "Once upon a time there was."}')
    assert typed("run", "--dataset", "a.jsonl", *MODEL).code == 0


@pytest.mark.parametrize(("name", "data", "words"), PLANS)
@pytest.mark.slow
def test_a_plan_that_is_none(
    typed: Type, home: Path, name: str, data: bytes, words: tuple[str, ...]
) -> None:
    (home / name).write_bytes(data)
    assert typed("sweep", "--file", name, "--dry-run").refuses(2, *words)


@pytest.mark.parametrize(("name", "words"), PLACES)
def test_a_plan_that_is_no_file(typed: Type, home: Path, name: str, words: tuple[str, ...]) -> None:
    (home / "zero.yaml").symlink_to("/dev/zero")
    os.mkfifo(home / "pipe.yaml")
    (home / "folder.yaml").mkdir()
    assert typed("sweep", "--file", name, "--dry-run").refuses(2, *words)
