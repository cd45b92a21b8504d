"""Runs move between databases and files whole, once, and all of them or none."""

from __future__ import annotations

import base64
import csv
import json
import math
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import StreamError, UsageError
from core.result import RunResult
from streamcli.results import alone, frames, migrations, portable, transfer
from streamcli.results.columns import COLUMNS
from streamcli.results.schema import Benchmark, Probe, pack
from streamcli.results.store import Store
from streamcli.results.transfer import Moved, Record
from tests.support.databases import sql
from tests.support.records import ARM, PROBED, Begin


@pytest.fixture
def make(begin: Begin, sound: RunResult) -> Callable[[Store, int], list[str]]:
    """Records done runs with unusual numbers, one failed and one running."""

    def fill(store: Store, number: int) -> list[str]:
        names = []
        for i in range(number):
            names.append(begin(store, i, "SWEEP", seed=i))
            lost = replace(sound.documents[0], nll_nats=math.inf, name='"ä",\n\u2028')
            odd = np.array([0x7FC12345, 0x80000000, 1], dtype=np.uint32).view(np.float32)
            nll = np.concatenate([sound.nll, odd])
            documents = (lost, *sound.documents[1:]) if i % 2 else sound.documents
            store.finish(names[-1], replace(sound, documents=documents, nll=nll))
        store.mark(names[:1], tags=lambda _: "a b", comment=lambda _: "mine")
        names.append(begin(store))
        store.fail(names[-1], "no luck")
        begin(store)
        return names

    return fill


def whole(store: Store) -> list[Record]:
    with store.transaction() as connection:
        names, _ = transfer.ended(connection)
        return list(transfer.records(connection, names))


def test_a_file_brings_runs_back_bit_for_bit(
    store: Store, tmp_path: Path, make: Any, file: Path
) -> None:
    names, target = make(store, 3), tmp_path / "runs.jsonl"
    portable.export(store, target, names)
    again = Store.open(file)
    assert portable.load(again, target) == Moved(4, 0)
    assert whole(again) == whole(store) and len(whole(again)) == 4
    for mine, theirs in zip(store.trace(names[1]), again.trace(names[1]), strict=True):
        assert mine.tobytes() == theirs.tobytes()
    assert again.get(names[1]).ppl == math.inf
    portable.export(again, tmp_path / "again.jsonl", names)
    assert (tmp_path / "again.jsonl").read_bytes() == target.read_bytes()
    assert portable.load(again, target) == Moved(0, 4)


@pytest.mark.parametrize("way", ["out", "back"])
@pytest.mark.slow
def test_a_merge_works_from_and_to_every_kind_of_database(
    where: str, file: Path, make: Any, way: str
) -> None:
    first, second = Store.open(where), Store.open(file)
    source, target = (first, second) if way == "out" else (second, first)
    other = where if way == "out" else str(file)
    names = make(source, 3)
    assert transfer.merge(target, other) == Moved(4, 0, running=1)
    assert whole(target) == whole(source) and len(names) == 4
    assert transfer.merge(target, other) == Moved(0, 4, running=1)


@pytest.mark.slow
def test_another_run_of_the_same_name_stops_the_whole_merge(
    store: Store, file: Path, make: Any
) -> None:
    source = Store.open(file)
    names = make(source, 1)
    transfer.merge(store, str(file))
    before = whole(store)
    make(source, 2)
    for change in (
        "UPDATE runs SET ppl = ppl + 1e-9",
        "UPDATE documents SET words = 99 WHERE position = 1",
        "UPDATE traces SET nll = latency_ms",
    ):
        kept = file.read_bytes()
        sql(source, change)
        with pytest.raises(StreamError, match=f"run {names[0]} of .+ is another one") as caught:
            transfer.merge(store, str(file))
        assert "\n" not in str(caught.value)
        assert whole(store) == before
        file.write_bytes(kept)


CUT = "UPDATE runs SET status = '{}', finished_at = {}, error = NULL WHERE error IS NOT NULL"


@pytest.mark.parametrize(
    ("here", "there", "then"),
    [
        ("running", "interrupted", "interrupted"),
        ("running", "failed", "failed"),
        ("interrupted", "failed", "failed"),
        ("interrupted", "interrupted", "interrupted"),
        ("failed", "interrupted", "failed"),
    ],
)
@pytest.mark.slow
def test_copies_are_merged_in_which_one_run_came_further_than_in_the_other(
    store: Store, file: Path, make: Any, here: str, there: str, then: str
) -> None:
    source = Store.open(file)
    make(source, 1)
    transfer.merge(store, str(file))
    for each, status, at in ((store, here, "NULL"), (source, there, "'2031-01-01T00:00:00Z'")):
        if status != "failed":
            sql(each, CUT.format(status, at))
    transfer.merge(store, str(file))
    kept = frames.runs(store, status=None).iloc[0]
    assert kept["status"] == then and (kept["error"] is not None) == (then == "failed")
    assert len(frames.runs(store, status=None)) == 2


def test_the_owners_words_are_no_difference_and_stay(store: Store, file: Path, make: Any) -> None:
    source = Store.open(file)
    names = make(source, 1)
    transfer.merge(store, str(file))
    store.mark(names, tags=lambda _: "here")
    assert transfer.merge(store, str(file)).known == 2
    assert store.get(names[0]).tags == "here" and source.get(names[0]).tags == "a b"


def test_a_merge_reads_an_older_database_and_leaves_it_as_it_was(
    store: Store, file: Path, make: Any
) -> None:
    names = make(Store.open(file), 2)
    _downgrade(file, "0001")
    before = file.read_bytes()
    assert transfer.merge(store, str(file)).added == 3
    assert file.read_bytes() == before and not list(file.parent.glob("*-wal"))
    assert store.get(names[0]).sweep is None and store.get(names[0]).n_sink == 4
    assert transfer.merge(store, str(file)).known == 3


def test_what_a_document_asked_may_be_missing_in_one_of_the_two_but_not_be_another(
    store: Store, file: Path, make: Any
) -> None:
    source = Store.open(file)
    make(source, 1)
    transfer.merge(store, str(file))
    asked = "UPDATE documents SET questions = :number, right_answers = 1"
    sql(source, asked, number=3)
    assert transfer.merge(store, str(file)).added == 0
    sql(store, asked, number=4)
    with pytest.raises(StreamError, match=r"is another one in .+ \(documents\)"):
        transfer.merge(store, str(file))


def _downgrade(file: Path, revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER))
    with Store.open(file).transaction(writes=True) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
    with sqlite3.connect(file) as raw:
        raw.execute("PRAGMA journal_mode=DELETE")
    raw.close()


def test_what_can_not_be_merged_is_refused_in_one_line(
    store: Store, where: str, tmp_path: Path
) -> None:
    (tmp_path / "text.db").write_text("not a database at all" * 99)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE mine (x)").connection.close()
    for other, words in (
        (where, "is the database itself"),
        (str(tmp_path / "absent.db"), "there is no database"),
        (str(tmp_path / "text.db"), "is not an SQLite database"),
        (str(tmp_path / "other.db"), "another program's tables"),
        ("mysql://host/x", "unknown kind of database"),
    ):
        with pytest.raises(StreamError, match=words) as caught:
            transfer.merge(store, other)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "absent.db").exists()


def test_rows_as_csv_have_every_column_and_every_digit(
    store: Store, tmp_path: Path, make: Any
) -> None:
    names = make(store, 2)
    portable.export(store, tmp_path / "runs.csv", names)
    with (tmp_path / "runs.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(COLUMNS)
    run = store.get(names[0])
    assert float(rows[0]["ppl"]) == run.ppl and float(rows[1]["ppl"]) == math.inf
    assert rows[0]["timed_tokens"] == "" and rows[2]["error"] == "no luck"


def test_an_export_that_fails_leaves_the_file_that_was_there(
    store: Store, tmp_path: Path, make: Any
) -> None:
    names, target = make(store, 1), tmp_path / "runs.jsonl"
    target.write_text("before")
    with pytest.raises(StreamError, match="deleted meanwhile"):
        portable.export(store, target, [*names, "0" * 26])
    assert target.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} <= {"runs.jsonl", "runs.db", "folder"}
    with pytest.raises(UsageError, match=r"neither \.jsonl"):
        portable.export(store, tmp_path / "runs.parquet", names)
    with pytest.raises(UsageError, match="can't be written"):
        portable.export(store, tmp_path / "no" / "runs.csv", names)


def lines(tmp_path: Path, make: Any, file: Path) -> list[Any]:
    """The objects of an export of two done runs and a failed one."""
    store = Store.open(file)
    portable.export(store, tmp_path / "good.jsonl", make(store, 2))
    return [json.loads(line) for line in (tmp_path / "good.jsonl").read_text().splitlines()]


BAD: dict[str, Callable[[list[Any]], Any]] = {
    "does not say so": lambda f: f.pop(0),
    "written by a newer": lambda f: f[0].update(schema="9999"),
    "cut short": lambda f: f.pop(),
    "a second time": lambda f: f.append(f[1]),
    "line 2 is no run": lambda f: f[1].pop("trace"),
    "line 2: there is no column 'mine'": lambda f: f[1]["run"].update(mine=1),
    "line 3: ppl is 'much'": lambda f: f[2]["run"].update(ppl="much"),
    "line 3: n_sink is None": lambda f: f[2]["run"].update(n_sink=None),
    "line 3: n_sink is True": lambda f: f[2]["run"].update(n_sink=True),
    "n_sink is 99999999999999999999": lambda f: f[2]["run"].update(n_sink=99999999999999999999),
    "no exported run has status 'running'": lambda f: f[2]["run"].update(status="running"),
    "is no name of a run": lambda f: f[1]["run"].update(run_id="../../etc/passwd"),
    "documents are not in order": lambda f: f[1]["documents"].reverse(),
    "the trace is damaged": lambda f: f[1]["trace"].update(nll="*"),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", BAD)
def test_a_file_that_is_not_right_is_refused_in_one_line_and_nothing_is_taken_in(
    tmp_path: Path, make: Any, file: Path, words: str
) -> None:
    found = lines(tmp_path, make, file)
    BAD[words](found)
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(json.dumps(each) + "\n" for each in found))
    target = Store.open(tmp_path / "target.db")
    with pytest.raises(UsageError) as caught:
        portable.load(target, bad)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert frames.runs(target, status=None).empty


def test_a_file_of_an_older_schema_is_taken_in(tmp_path: Path, make: Any, file: Path) -> None:
    found = lines(tmp_path, make, file)
    found[0]["schema"] = "0001"
    del found[0]["benchmarks"]
    for each in found[1:]:
        for name in ("pid", "sweep", "tags", "comment"):
            del each["run"][name]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found))
    target = Store.open(tmp_path / "target.db")
    assert portable.load(target, tmp_path / "old.jsonl").added == 3
    assert portable.load(target, tmp_path / "good.jsonl").known == 3


def test_a_trace_in_a_file_can_be_read_without_streamcli(
    tmp_path: Path, make: Any, file: Path
) -> None:
    import zlib

    record = lines(tmp_path, make, file)[1]
    raw = zlib.decompress(base64.b64decode(record["trace"]["nll"]))
    nll = np.frombuffer(raw, "<f4")
    mine = Store.open(file).trace(record["run"]["run_id"])[0]
    assert nll.tobytes() == mine.tobytes()


def timed(store: Store) -> None:
    """Records two arms of a benchmark, one of them with unusual numbers, and a probe."""
    odd = np.array([0x7FC12345, 0x80000000, 1], dtype=np.uint32).view(np.float32)
    told = {"floor_ms": 1 / 3, "git_dirty": True, "latency_ms": pack(odd)}
    plain = {**ARM, "floor_ms": None, "git_dirty": None}
    more = {**told, "ms_per_token_high": math.inf, "arm": '"ä",\n'}
    arms = alone.named(Benchmark, [plain, {**plain, **more}])
    probes = alone.named(Probe, [{**PROBED, "before": pack(odd), "sinks": '["ä\\n"]'}])
    transfer.add(store, (), "here", {"benchmark": arms, "probe": probes})


def arms(store: Store) -> Any:
    queries = ("benchmarks ORDER BY benchmark_id", "probes ORDER BY probe_id")
    return [row for query in queries for row in sql(store, f"SELECT * FROM {query}")]


def test_a_merge_brings_what_belongs_to_no_run_too_and_once(
    store: Store, file: Path, make: Any
) -> None:
    source = Store.open(file)
    make(source, 1)
    timed(source)
    assert transfer.merge(store, str(file)) == Moved(2, 0, running=1, benchmarks=2, probes=1)
    assert transfer.merge(store, str(file)) == Moved(0, 2, running=1)
    assert arms(store) == arms(source)


def test_a_file_brings_what_belongs_to_no_run_back_bit_for_bit(
    store: Store, tmp_path: Path, make: Any, file: Path
) -> None:
    names, target = make(store, 1), tmp_path / "all.jsonl"
    timed(store)
    found = portable.export(store, target, names, others=True)
    assert found == {"benchmarks": 2, "probes": 1}
    again = Store.open(file)
    assert portable.load(again, target) == Moved(2, 0, benchmarks=2, probes=1)
    assert arms(again) == arms(store) and len(arms(again)) == 3 and whole(again) == whole(store)
    assert portable.load(again, target) == Moved(0, 2)
    portable.export(again, tmp_path / "again.jsonl", names, others=True)
    assert (tmp_path / "again.jsonl").read_bytes() == target.read_bytes()
    assert portable.export(store, target, names) == {}  # as a bundle has it
    assert portable.export(store, tmp_path / "rows.csv", names, others=True) == {}
    assert portable.load(Store.open(tmp_path / "other.db"), target) == Moved(2, 0)


@pytest.mark.slow
def test_rows_of_no_run_that_are_not_right_are_refused_in_one_line(
    tmp_path: Path, make: Any, file: Path
) -> None:
    store = Store.open(file)
    timed(store)
    portable.export(store, tmp_path / "good.jsonl", make(store, 1), others=True)
    good = (tmp_path / "good.jsonl").read_text().splitlines()
    bad: dict[str, Callable[[list[Any]], Any]] = {
        "line 3 is not one of the 2 benchmarks": lambda f: f.pop(2),
        "line 2 is not one of the 2 benchmarks": lambda f: f.__delitem__(slice(1, None)),
        "line 1: benchmarks is 'two'": lambda f: f[0].update(benchmarks="two"),
        "line 2 is not one of the 1 probes": lambda f: f[0].pop("benchmarks"),
        "line 4 is no run": lambda f: f[0].pop("probes"),
        "before or after is damaged": lambda f: f[3]["probe"].update(after=None),
        "latency_ms is damaged": lambda f: f[1]["benchmark"].update(latency_ms="*"),
        "there is no column 'mine'": lambda f: f[1]["benchmark"].update(mine=1),
        "rounds is None": lambda f: f[1]["benchmark"].pop("rounds"),
        "'x' is no name of a benchmark": lambda f: f[1]["benchmark"].update(benchmark_id="x"),
        "a second time": lambda f: f.__setitem__(2, f[1]),
    }
    target = Store.open(tmp_path / "target.db")
    for words, change in bad.items():
        found = [json.loads(line) for line in good]
        change(found)
        (tmp_path / "bad.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found))
        with pytest.raises(UsageError) as caught:
            portable.load(target, tmp_path / "bad.jsonl")
        assert words in str(caught.value) and "\n" not in str(caught.value)
        assert not arms(target) and frames.runs(target, status=None).empty
