"""Reports: their rows, columns, order and groups, and what they refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from streamcli.results.columns import COLUMNS, STATUSES
from streamcli.results.store import Store
from tests.support.databases import sql
from tests.support.records import recorded
from tests.support.reported import DB, report, rows_of
from tests.support.typed import Type


def test_columns_are_exactly_those_asked_for_in_every_format(four: Store, typed: Type) -> None:
    words = ("--columns", "ppl", "method,speed_up")
    assert list(rows_of(typed, *words)[0]) == ["ppl", "method", "speed_up"]
    assert report(typed, *words, "--format", "csv").out.startswith("ppl,method,speed_up\r\n")
    assert "| ppl | method | speed-up |" in report(typed, *words, "--format", "markdown").out
    assert re.search(r"^ *ppl +method +speed-up$", report(typed, *words).out, re.MULTILINE)


def test_rows_sort_by_a_column_and_by_what_comparing_adds(four: Store, typed: Type) -> None:
    ascending = [row["ppl"] for row in rows_of(typed, "--sort", "ppl")]
    assert ascending == sorted(ascending)
    assert [row["ppl"] for row in rows_of(typed, "--sort", "-ppl")] == ascending[::-1]
    assert rows_of(typed, "--sort", "-speed_up")[0]["method"] == "window"
    table = report(typed, "--sort", "ppl", "--format", "markdown").out
    assert re.findall(r"^\| (\w+) ", table, re.MULTILINE)[1:] == [
        *("dense", "streaming", "recompute", "window"),
    ]


def test_a_limit_takes_the_first_of_the_order_and_says_what_it_left_out(
    four: Store, typed: Type
) -> None:
    done = report(typed, "--limit", "1", "--sort", "ppl", "--format", "json")
    assert [row["method"] for row in json.loads(done.out)] == ["dense"]
    assert "only the first 1 by ppl are here: --limit 4 shows more, --limit 0 all" in done.err
    assert len(rows_of(typed, "--limit", "0")) == 4
    assert report(typed).err == ""


@pytest.mark.parametrize(
    "words", [("--method", "streaming"), ("--limit", "1", "--sort", "created_at")]
)
@pytest.mark.slow
def test_what_is_left_out_still_serves_as_the_baseline(
    four: Store, typed: Type, words: tuple[str, ...]
) -> None:
    (row,) = rows_of(typed, *words)
    assert row["method"] == "streaming"
    assert row["ppl_change"] == pytest.approx(216.2058 / 216.9751 - 1)
    told = report(typed, *words, "--format", "markdown").out
    assert "216.21 against 216.98" in told and "| recompute" not in told


def test_groups_have_a_table_each_without_the_column_that_they_share(
    four: Store, typed: Type
) -> None:
    out = report(typed, "--group-by", "n_sink", "--columns", "method", "n_sink", "ppl").out
    assert re.findall(r"^sinks: (\d)", out, re.MULTILINE) == ["0", "4"]
    assert re.findall(r"^(\w+) +[\d.]+$", out, re.MULTILINE) == [
        *("window", "streaming", "recompute", "dense"),
    ]


def test_runs_that_did_not_finish_are_listed_with_their_error(home: Path, typed: Type) -> None:
    failed = {"status": "failed", "error": "RuntimeError: no luck", "ppl": None}
    recorded(home / DB, failed, {"status": "running"}, {"status": "interrupted"}, {}, {})
    out = report(typed, "--status", "failed").out
    assert "1 failed run, newest first" in out and "RuntimeError: no luck" in out
    for status in STATUSES:
        found = rows_of(typed, "--status", status)
        assert {row["status"] for row in found} == {status}
        assert len(found) == (2 if status == "done" else 1)
        assert list(found[0]) == list(COLUMNS)
    assert len(rows_of(typed, "--status", "any")) == 5


@pytest.mark.parametrize("words", ["ppl", "speed_up", "runs"])
def test_no_runs_are_an_empty_list_whatever_the_columns(
    four: Store, home: Path, typed: Type, words: str
) -> None:
    done = report(typed, "--columns", words, "--since", "2099-01-01", "--format", "json")
    assert (done.code, done.out) == (0, "[]\n")


def test_a_stand_in_is_found_by_the_name_that_was_asked_for(four: Store, typed: Type) -> None:
    sql(four, "UPDATE runs SET requested_dataset = 'pg19'")
    for option in (("--dataset", "pg19"), ()):
        assert report(typed, *option).out == report(typed).out != ""


REFUSED = {
    "report --columns ppl pl": "unknown column 'pl': choose one of 109 names, such as ppl,",
    "report --sort -pppl": "unknown column 'pppl'",
    "report --group-by mdoe": "Did you mean 'mode'?",
    "report --status fialed": "Did you mean 'failed'?",
    "report --status failed --sort speed_up": "unknown column 'speed_up'",
    "report --limit -1": "--limit is -1",
    "report --since yesterday": "'yesterday' is not a time",
    "report --out folder": "tells no format: let it end in .txt, .md, .html, .tex, .csv, .json",
    "report --out folder --format csv": "folder is a folder: name a file in it",
    "report --out none/report.md": "there is no folder",
    "report --format json --out x.csv": "--format json and --out x.csv ask for two formats",
    "report --format table --out x.HTML": "leave --format out for html, or let the file end in .t",
    "report --group-by mode --columns mode": "--columns is mode alone",
    "report --group-by mode --format json": "--group-by makes tables, and json is none",
    "report --check": "--check is for --update",
    "report --update README.md --sort ppl": "stands in its marker",
    "report --update README.md": "README.md can't be read: No such file",
    "report --columns": "--columns requires an argument",
}


@pytest.mark.parametrize("words", REFUSED)
@pytest.mark.slow
def test_what_is_asked_wrongly_ends_in_one_line_with_code_2(
    four: Store, home: Path, typed: Type, words: str
) -> None:
    (home / "folder").mkdir()
    command, *more = words.split()
    assert typed(command, "--db", DB, *more).refuses(2, REFUSED[words])
    assert {path.name for path in home.iterdir()} <= {"folder", DB, f"{DB}-wal", f"{DB}-shm"}


def test_what_no_run_has_is_named_with_what_there_is(four: Store, typed: Type) -> None:
    for option, value, said in (
        ("--method", "streming", "Did you mean 'streaming'?"),
        ("--mode", "decodeloop", "Did you mean 'decode-loop'?"),
        ("--dataset", "nothing.txt", "unknown recorded dataset 'nothing.txt': choose one of"),
    ):
        assert report(typed, option, value).refuses(2, said)
