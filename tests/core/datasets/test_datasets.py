"""Texts: every source reads what it says it reads, no more than is needed, or stops in one line."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

from core.datasets.hub_rows import _parquet
from core.errors import StreamError, UsageError
from core.packaged import bundled
from core.tokens import open_corpus
from tests.support.hub_standin import Hub, parquet, pg19, wikitext

ROWS = ["", " = Title = \n", "", "First line .\n", "Second line .\n"]
BOOKS = {10146: "one\r\ntwo\r\n", 10321: "three " * 500, 10356: "four", 10762: "five"}
ENCYCLOPEDIA = bundled("encyclopedia.txt").read_text(encoding="utf-8")
NARRATIVE = bundled("narrative.txt").read_text(encoding="utf-8")
SILENT = "not in the local cache and the Hub did not answer within 3 s"
Found = dict[str, Any]


# On the Hub: one process asks for everything, the tests look at what it got.


@pytest.fixture(scope="module")
def commits(hub: Hub) -> dict[str, str]:
    return {
        "wikitext": hub.put("Salesforce/wikitext", wikitext(ROWS), kind="datasets"),
        "pg19": hub.put("emozilla/pg19", pg19(BOOKS), kind="datasets"),
    }


@pytest.fixture(scope="module")
def online(hub: Hub, commits: dict[str, str]) -> Found:
    return hub.child("""
text("wikitext", "wikitext")
text("wikitext-2", "wikitext:wikitext-2-raw-v1")
text("not_there", "wikitext:wikitext-2-v1")
text("pg19", "pg19", documents=2)
text("articles", "wikitext-articles")
""")


@pytest.fixture(scope="module")
def whole(hub: Hub, online: Found) -> Found:
    """All of PG-19, single books of it, and a mirror that stops half way."""
    found = hub.child("""
text("pg19", "pg19", "hub", documents=9)
text("book", "pg19:10356")
text("no_book", "pg19:10357")
""")
    hub.broken.update(path for path in pg19(BOOKS) if "00001-of" in path)
    broken = hub.child('text("pg19", "pg19", documents=9)')
    hub.broken.clear()
    return {**found, "broken": broken["pg19"]}


@pytest.fixture(scope="module")
def stopped(hub: Hub, whole: Found) -> Iterator[Found]:
    """Caches filled by the libraries' own means, then no Hub."""
    hub.child("""
import datasets, huggingface_hub
from core.hub import quiet
with quiet():
    datasets.load_dataset("Salesforce/wikitext", "wikitext-103-raw-v1")
    huggingface_hub.snapshot_download("emozilla/pg19", repo_type="dataset")
""")
    hub.stop()
    asked = """
for source in ("auto", "hub"):
    text(f"wikitext {source}", "wikitext", source)
    text(f"pg19 {source}", "pg19", source)
text("part", "wikitext:wikitext-2-raw-v1")
"""
    found = hub.child(asked, HF_HUB_OFFLINE="1")
    shutil.rmtree(hub.home / "cache" / "huggingface" / "hub" / "datasets--Salesforce--wikitext")
    yield {"both caches": found, "arrow cache": hub.child(asked)}


def test_wikitext_is_the_rows_of_the_test_split_joined(
    online: Found, commits: dict[str, str]
) -> None:
    found = online["wikitext"]
    text = "\n\n".join(["wikitext-103-raw-v1 test\n", *ROWS])
    assert found["documents"] == [["wikitext-103-raw-v1 test", text]]
    assert found["form"] == r'Hub rows joined by "\n\n" (wikitext-103-raw-v1, test)'
    assert (found["name"], found["revision"]) == ("wikitext", commits["wikitext"])
    assert found["notes"] == []


def test_wikitext_by_article_begins_at_its_titles(online: Found) -> None:
    found = online["articles"]
    assert found["documents"] == [["Title", "\n\n".join(ROWS[1:])]]
    assert found["form"].startswith("articles, Hub rows joined by")


def test_another_configuration_is_read_by_name(online: Found) -> None:
    [[name, text]] = online["wikitext-2"]["documents"]
    assert name == "wikitext-2-raw-v1 test"
    assert text.startswith("wikitext-2-raw-v1 test")
    assert online["wikitext-2"]["name"] == "wikitext:wikitext-2-raw-v1"


def test_a_configuration_that_the_hub_lacks_fails_in_one_line(online: Found) -> None:
    assert online["not_there"]["error"] == "StreamError"
    assert "\n" not in online["not_there"]["says"]


def test_pg19_is_books_by_number_with_line_ends_made_lf(
    whole: Found, commits: dict[str, str]
) -> None:
    expected = [[str(number), text.replace("\r\n", "\n")] for number, text in BOOKS.items()]
    assert whole["pg19"]["documents"] == expected
    assert whole["pg19"]["form"] == "whole books, CR LF made LF (emozilla/pg19, test)"
    assert whole["pg19"]["revision"] == commits["pg19"]


def test_a_file_of_books_that_are_not_needed_is_never_asked_for(online: Found) -> None:
    assert len(online["pg19"]["documents"]) == 2
    asked = [line for line in online["requests"] if "data/test-0000" in line]
    assert asked
    assert not any("test-00001" in line for line in asked)


def test_one_book_is_found_by_its_number(whole: Found) -> None:
    assert whole["book"]["documents"] == [["10356", "four"]]
    assert whole["no_book"]["error"] == "UsageError"
    assert "10146, 10321, 10356, 10762" in whole["no_book"]["says"]


def test_a_hub_that_fails_midway_is_an_error_not_a_shorter_text(whole: Found) -> None:
    assert whole["broken"]["error"] == "StreamError"
    assert "failed midway" in whole["broken"]["says"]
    assert "\n" not in whole["broken"]["says"]


def test_reading_writes_nothing_to_stderr(online: Found, whole: Found) -> None:
    assert online["stderr"] == whole["stderr"] == ""


def test_no_other_thread_holds_a_file_that_is_left_half_way(tmp_path: Path) -> None:
    """Such a thread would abort the process when it ends (apache/arrow 45214)."""
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet({"text": ["a"] * 100}, rows_a_group=10))
    readers = set()

    class Watched(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            readers.add(get_ident())
            return super().read(-1 if size is None else size)

    rows = _parquet([path], Watched)
    assert next(rows) == {"text": "a"}
    rows.close()
    assert readers == {get_ident()}


@pytest.mark.parametrize("cache", ["both caches", "arrow cache"])
@pytest.mark.parametrize("source", ["auto", "hub"])
def test_the_cache_serves_when_the_hub_is_gone(
    stopped: Found, online: Found, whole: Found, cache: str, source: str
) -> None:
    found = stopped[cache]
    for name, before in (("wikitext", online), ("pg19", whole)):
        after = found[f"{name} {source}"]
        assert after["documents"][0] == before[name]["documents"][0]
        assert after["revision"] == before[name]["revision"]
        assert (after["name"], after["notes"]) == (name, [])


def test_a_configuration_that_was_named_has_no_stand_in(stopped: Found) -> None:
    assert stopped["both caches"]["part"]["error"] == "Unreachable"
    assert "HF_HUB_OFFLINE is set" in stopped["both caches"]["part"]["says"]
    assert stopped["arrow cache"]["part"]["says"].startswith(
        f"wikitext:wikitext-2-raw-v1: {SILENT}: use --source bundled"
    )


def test_without_cache_and_hub_the_bundled_texts_stand_in_with_a_note(
    hub: Hub, black_hole: str
) -> None:
    found = hub.child(
        """
text("wikitext", "wikitext")
text("pg19", "pg19")
text("hub", "pg19", "hub")
text("book", "pg19:10146")
""",
        cache="empty",
        HF_ENDPOINT=black_hole,
    )
    for name, other, text in (
        ("wikitext", "bundled-encyclopedia", ENCYCLOPEDIA),
        ("pg19", "bundled-narrative", NARRATIVE),
    ):
        assert found[name]["name"] == other
        assert found[name]["documents"] == [[other, text]]
        assert found[name]["notes"] == [f"{name}: {SILENT}; reading {other} instead."]
    for name in ("hub", "book"):
        assert (found[name]["error"], found[name]["exit"]) == ("Unreachable", 1)
    assert found["stderr"] == ""


# Without a Hub.


@pytest.mark.parametrize("spec", ["wikitext", "bundled-encyclopedia"])
def test_source_bundled_reads_the_stand_in_without_a_note(spec: str) -> None:
    corpus = open_corpus(spec, "bundled")
    assert (corpus.name, corpus.notes) == ("bundled-encyclopedia", ())
    assert [document.text for document in corpus.documents] == [ENCYCLOPEDIA]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("wikitex", "Did you mean 'wikitext'?"),
        ("wikitex", "a path ending in .txt, .jsonl, .parquet, or a folder of .txt files"),
        ("wikitext:wikitext-2", "Did you mean 'wikitext-2-v1'?"),
        ("pg19:Moby", "a Gutenberg number"),
        ("pg19:", "a Gutenberg number"),
        ("bundled-narrative:2", "one whole"),
        ("wikitext:wikitext-2-v1", "use bundled-encyclopedia"),
        ("pg19:10146", "use bundled-narrative"),
        ("nowhere.txt", "there is no file nowhere.txt"),
        ("texts/", "a text is a .txt, .jsonl, .parquet file"),
    ],
)
def test_a_name_that_names_nothing_is_refused(spec: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_corpus(spec, "bundled")
    assert words in str(caught.value)


# The user's own files.


def documents(path: Path) -> list[tuple[str, str]]:
    found = open_corpus(str(path), "auto").documents
    return [(document.name, document.text) for document in found]


def test_a_text_file_is_one_document_with_universal_newlines(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthr\xc3\xa9\n")
    assert documents(path) == [("mine.txt", "one\ntwo\nthré\n")]


def test_each_row_of_a_jsonl_file_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows: list[dict[str, Any]] = [
        {"text": "a"},
        {"text": "b", "id": 7},
        {"text": "c", "title": "C"},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    assert documents(path) == [("row 1", "a"), ("7", "b"), ("C", "c")]


def test_each_row_of_a_parquet_file_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    path.write_bytes(parquet({"text": ["a", "b"], "title": ["A", None], "more": [1, 2]}))
    assert documents(path) == [("A", "a"), ("row 2", "b")]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.txt", b"", "is empty"),
        ("x.txt", b" \n", "is empty"),
        ("x.txt", b"abc\xff", "byte 3 is 0xff"),
        ("x.txt", b"abcd\0e", "byte 4 is 0x00"),
        ("x.jsonl", b"", "is empty"),
        ("x.jsonl", b'{"text": "a"}\n{"text"', "row 2 is not JSON"),
        ("x.jsonl", b'{"text": "a"}\n{"body": "b"}', "row 2 has no text"),
        ("x.jsonl", b'{"text": "a"}\n["b"]', "row 2 has no text"),
        ("x.jsonl", b'{"text": "a"}\n{"text": 3}', "row 2 has no text"),
        ("x.jsonl", b'{"text": "a"}\n\xff', "byte 14 is 0xff"),
        ("x.parquet", b"", "is empty"),
        ("x.parquet", b"PAR1 but not really", "no parquet file"),
        ("x.parquet", parquet({"body": ["a"], "id": [1]}), "its columns are body, id"),
        ("x.parquet", parquet({"text": ["a", None]}), "row 2 has no text"),
        ("x.parquet", parquet({"text": [1]}), "row 1 has no text"),
        ("x.csv", b"text\na\n", "a text is a .txt, .jsonl, .parquet file"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError) as caught:
        documents(tmp_path / name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_its_txt_files_in_order_of_name(tmp_path: Path) -> None:
    for name, text in {"b.txt": "two\r\n", "a.txt": "one", "c.md": "three"}.items():
        (tmp_path / name).write_bytes(text.encode())
    assert documents(tmp_path) == [("a.txt", "one"), ("b.txt", "two\n")]
    assert "2 .txt files" in open_corpus(str(tmp_path), "auto").form


def test_a_folder_without_txt_files_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder without .txt files"):
        open_corpus(str(tmp_path), "auto")


def test_a_raw_wikitext_file_is_cut_at_titles_and_not_at_formulas(tmp_path: Path) -> None:
    first = (
        " = One = \n \n Text . \n \n = = Part = = \n \n with \n = 1 rad / s and k = \n 1 . \n \n"
    )
    second = " = Two ( 2nd ) = \n \n More . \n"
    path = tmp_path / "wiki.raw"
    path.write_text(" \n" + first + second)
    found = open_corpus(f"wikitext-articles:{path}", "auto").documents
    assert [(each.name, each.text) for each in found] == [("One", first), ("Two ( 2nd )", second)]


def test_articles_of_what_is_neither_file_nor_configuration_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="or a raw WikiText file that is there"):
        open_corpus(f"wikitext-articles:{tmp_path / 'no.raw'}", "auto")


def test_missing_bundled_text_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("core.datasets.bundled.bundled", lambda name: tmp_path / name)
    with pytest.raises(StreamError, match="bundled text is missing"):
        open_corpus("bundled-narrative", "auto")
