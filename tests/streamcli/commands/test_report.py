"""Reports: what they select, and how each format writes it."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sqlalchemy import text

from streamcli.analysis.selection import Query
from streamcli.jobs.select import select, times
from streamcli.render import tables, terminal_tables
from streamcli.render.figures import panels
from streamcli.results import frames
from streamcli.results.columns import ADDED, COLUMNS, STATUSES, format_ends
from streamcli.results.store import Store
from tests.support.asked import Asked
from tests.support.process import imported
from tests.support.records import FOUR, differing, recorded, scored
from tests.support.reported import DB, report
from tests.support.typed import Type

pytest_plugins = ("tests.support.typed", "tests.support.reported", "tests.support.asked")

ODD = {"dataset": 'a|b "c", <i>&amp; 50%_#1 \\~^{x}.txt', "tokens_sha256": "c" * 64}


def rows_of(typed: Type, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(report(typed, "--format", "json", *words).out)
    return found


def test_json_is_one_list_of_objects_keyed_by_every_column(four: Store, typed: Type) -> None:
    found = rows_of(typed)
    assert [list(row) for row in found] == [[*COLUMNS, *ADDED]] * 4
    by_method = {row["method"]: row for row in found}
    assert by_method["dense"]["ppl_change"] is by_method["dense"]["speed_up"] is None  # no budget
    assert by_method["streaming"]["ppl_change"] == pytest.approx(216.2058 / 216.9751 - 1)
    assert by_method["streaming"]["speed_up"] == pytest.approx(20.1 / 4.31)
    assert by_method["streaming"]["gpu"] is None and by_method["dense"]["window"] is None


def test_csv_keeps_every_digit_and_any_text(home: Path, typed: Type) -> None:
    text = 'two\nlines, "quoted"'
    recorded(home / DB, {"ppl": 1 / 3, "notes": text, "trust": True, "word_ppl": float("inf")})
    out = report(typed, "--format", "csv").out
    (row,) = csv.DictReader(io.StringIO(out, newline=""))
    assert float(row["ppl"]) == 1 / 3
    assert (row["notes"], row["trust"], row["gpu"], row["word_ppl"]) == (text, "true", "", "inf")
    assert out.splitlines()[0] == ",".join([*COLUMNS, *ADDED]) and out.endswith("\r\n")


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


def test_a_grouped_table_shows_the_times_that_its_speed_ups_are_of(home: Path, typed: Type) -> None:
    chunked = {"mode": "chunked", "ms_per_token_p50": None}
    times = {"streaming": 0.2, "recompute": 0.6}
    rows = [{**chunked, "method": name, "ms_per_token": ms} for name, ms in times.items()]
    recorded(home / DB, FOUR[0], FOUR[2], *rows)  # in the decode loop every mean is 4.4
    out = report(typed, "--group-by", "dataset", "--format", "markdown").out
    head, _, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in out.splitlines()
        if line.startswith("|")
    )
    table = [dict(zip(head, line, strict=True)) for line in lines]
    shown = {(row["mode"], row["method"]): (row["ms/token"], row["speed-up"]) for row in table}
    assert shown == {
        ("decode-loop", "streaming"): ("4.31", "4.66x"),
        ("decode-loop", "recompute"): ("20.1", "1.00x"),
        ("chunked", "streaming"): ("0.200", "3.00x"),
        ("chunked", "recompute"): ("0.600", "1.00x"),
    }
    assert {row["sinks"] for row in table if row["method"] == "recompute"} == {"-"}
    assert "of the median decode step; in chunked mode, of the mean" in out


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


REFUSED = {
    "report --columns ppl pl": "unknown column 'pl': choose one of",
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
    "report --group-by mode --format json": "--group-by makes tables, and json is none",
    "report --check": "--check is for --update",
    "report --update README.md --sort ppl": "stands in its marker",
    "report --update README.md": "README.md can't be read: No such file",
    "report --columns": "--columns requires an argument",
}


@pytest.mark.parametrize("words", ["ppl", "speed_up", "runs"])
def test_no_runs_are_an_empty_list_whatever_the_columns(
    four: Store, home: Path, typed: Type, words: str
) -> None:
    done = report(typed, "--columns", words, "--since", "2099-01-01", "--format", "json")
    assert (done.code, done.out) == (0, "[]\n")


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_asked_wrongly_ends_in_one_line_with_code_2(
    four: Store, home: Path, typed: Type, words: str
) -> None:
    (home / "folder").mkdir()
    done = (
        typed(*words.split(), "--db", DB)
        if words != "report --columns"
        else typed("report", "--columns")
    )
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1 and REFUSED[words] in done.err
    assert {path.name for path in home.iterdir()} <= {"folder", DB, f"{DB}-wal", f"{DB}-shm"}


FORMATS = {
    "r.md": "**bundled on",
    "r.HTML": "<!doctype html>",
    "r.tex": r"% \usepackage",
    "r.csv": "run_id,",
    "r.json": "[\n{",
    "r.txt": "bundled on",
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_written_in_the_format_of_its_ending(
    four: Store, home: Path, typed: Type, name: str
) -> None:
    (home / name).write_text("older")
    (home / name).chmod(0o640)
    done = report(typed, "--out", name)
    assert (done.code, done.out, done.err) == (0, "", f"streamcli: wrote {name}\n")
    assert (home / name).read_text().startswith(FORMATS[name])
    assert (home / name).stat().st_mode & 0o777 == 0o640
    assert not [path for path in home.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["r.txt", "r.dat", "r", "r.JSON"])
def test_a_format_that_is_named_goes_into_any_file_that_claims_no_other(
    four: Store, home: Path, typed: Type, name: str
) -> None:
    assert report(typed, "--format", "json", "--out", name).code == 0
    assert len(json.loads((home / name).read_text())) == 4


def test_a_file_that_can_not_be_written_stays_whole(
    four: Store, home: Path, typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (home / "r.md").write_text("older")
    monkeypatch.setattr("os.replace", full)
    done = report(typed, "--out", "r.md")
    assert done.code == 1 and done.err == (
        "streamcli: r.md can't be written: No space left on device.\n"
    )
    assert (home / "r.md").read_text() == "older"
    assert not [path for path in home.iterdir() if path.name.startswith(".")]


def test_nothing_to_report_is_empty_data_and_a_line(home: Path, typed: Type) -> None:
    recorded(home / DB)
    for form, out in {"table": "", "markdown": "", "latex": "", "json": "[]\n"}.items():
        done = report(typed, "--format", form)
        assert (done.code, done.out) == (0, out)
        assert "holds no finished run that matches: record one with streamcli run" in done.err
    assert report(typed, "--format", "csv").out.count("\n") == 1
    assert "Nothing to show yet" in report(typed, "--format", "html").out


COMMANDS = {
    *("begin", "end", "centering", "small", "caption", "label", "toprule", "midrule"),
    *("bottomrule", "footnotesize", "item", "textbackslash", "textasciitilde", "times"),
    *("textasciicircum", "textless", "textgreater", "textbar", "textasciigrave"),
}


def check_latex(text: str) -> list[str]:
    """What LaTeX would stumble over in a document of tables; also the cells of every row."""
    text = re.sub(r"^%.*$", "", text, flags=re.MULTILINE)
    open_: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_.append(name)
        else:
            assert open_.pop() == name
    assert not open_
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= COMMANDS
    bare = re.sub(r"\\([a-zA-Z]+|[\\&%$#_{}])", "", text)
    assert not set(re.findall(r"[%#_~^\\\"]", re.sub(r'"', "", bare)))
    assert bare.count("$") % 2 == 0 and bare.count("{") == bare.count("}")
    assert all(ord(c) < 0x100 for c in text)
    found = []
    for spec, body in re.findall(
        r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}(.*?)\\end\{tabular\}", text, re.DOTALL
    ):
        for line in re.findall(r"^(.*) \\\\$", body, re.MULTILINE):
            assert len(re.findall(r"(?<!\\)&", line)) == len(spec) - 1
            found.append(line)
    assert text.count(r"\\" + "\n") == len(found)
    return found


def test_latex_tables_hold_nothing_that_latex_stumbles_over(home: Path, typed: Type) -> None:
    hostile = {**ODD, "notes": "[1] \u4e2d\u6587 \u00e9\u00df --flag `x` 2\u00d7 $5"}
    recorded(home / DB, *FOUR, *({**row, **hostile} for row in FOUR), {**FOUR[0], "host": "there"})
    out = report(typed, "--format", "latex").out
    lines = check_latex(out)
    overview = 1 + 4 + 1  # its heading, and the methods on either machine
    assert len(lines) == overview + 3 + 4 + 4 + 1
    assert "streaming & 4 & 60 & 65 & 216.21 & $-$0.35\\% & 4.31 & 4.66x & 0.523 & 429" in lines
    labels = re.findall(r"\\label\{(.*?)\}", out)
    assert len(labels) == len(set(labels)) == 4
    assert all(re.fullmatch(r"tab:[a-z0-9-]+", label) for label in labels)
    assert "[U+4E2D]" in out and "\u00e9\u00df -{}-flag" in out


def test_markdown_tables_stay_tables_whatever_the_names_are(home: Path, typed: Type) -> None:
    recorded(home / DB, ODD)
    out = report(typed, "--format", "markdown", "--columns", "dataset", "method").out
    assert r"| a\|b " in out
    for line in out.splitlines()[2:]:
        assert len(re.findall(r"(?<!\\)\|", line)) in (0, 3)


@pytest.mark.slow
def test_no_format_imports_torch(four: Store) -> None:
    forms = ("table", "markdown", "html", "latex", "csv", "json")
    lines = (f"report --db {DB} --format {form}" for form in forms)
    heavy = {"torch", "transformers", "kvpress", "datasets"}
    Store.open("empty.db")
    assert not heavy & imported("report --db empty.db", *lines)


def test_what_no_run_has_is_named_with_what_there_is(four: Store, typed: Type) -> None:
    for option, value, said in (
        ("--method", "streming", "Did you mean 'streaming'?"),
        ("--mode", "decodeloop", "Did you mean 'decode-loop'?"),
        ("--dataset", "nothing.txt", "unknown recorded dataset 'nothing.txt': choose one of"),
    ):
        done = report(typed, option, value)
        assert (done.code, done.out) == (2, "") and said in done.err


def test_a_stand_in_is_found_by_the_name_that_was_asked_for(four: Store, typed: Type) -> None:
    with four.transaction(writes=True) as connection:
        connection.execute(text("UPDATE runs SET requested_dataset = 'pg19'"))
    for option in (("--dataset", "pg19"), ()):
        assert report(typed, *option).out == report(typed).out != ""


INTERVALS = [
    ([3000], "within this text, by Student's t"),
    ([600] * 5, "over 5 documents, by Student's t"),
    ([50] * 60, "over 60 documents, by bootstrap-t"),
]


@pytest.mark.parametrize(("lengths", "scope"), INTERVALS)
def test_every_change_has_its_interval_in_every_format_and_a_note_says_over_what(
    home: Path, typed: Type, lengths: list[int], scope: str
) -> None:
    differing(home / DB, lengths, streaming=0.02, window=0.3)
    by_method = {row["method"]: row for row in rows_of(typed)}
    (other,) = (
        row
        for row in json.loads(typed("compare", "--db", DB, "--format", "json").out)
        if row["method"] == "streaming"
    )
    mine = by_method["streaming"]
    for end in ("low", "high"):
        nats = other[f"difference_{end}_nats"]
        assert mine[f"ppl_change_{end}"] == pytest.approx(math.expm1(nats))
    assert mine["ppl_change"] == pytest.approx(math.expm1(other["difference_nats"]), rel=1e-5)
    assert mine["clusters"].startswith(scope) and by_method["recompute"]["clusters"] is None
    (csv_row,) = (
        row
        for row in csv.DictReader(io.StringIO(report(typed, "--format", "csv").out, newline=""))
        if row["method"] == "streaming"
    )
    assert float(csv_row["ppl_change_low"]) == mine["ppl_change_low"]
    ends = format_ends(mine["ppl_change_low"], mine["ppl_change_high"]).strip()
    cell = f"{mine['ppl_change']:+.2%} {ends}"
    assert re.fullmatch(r"\+\d\.\d\d% \(\+\d\.\d+ to \+\d\.\d+\)", cell)
    for form in ("table", "markdown", "html"):
        out = html.unescape(report(typed, "--format", form).out)
        assert cell in out and f"vs recompute: 95 % interval {scope}." in out
        assert len(re.findall(r"\+0\.00%[^(\d]*$", out, re.MULTILINE)) < 2, "the baseline has none"
    assert cell.replace("%", r"\%") in report(typed, "--format", "latex").out
    flat = report(typed, "--columns", "method", "ppl_change", "--format", "markdown").out
    assert f"| streaming | {cell} |" in flat and scope in flat
    assert f"higher {ends}" in report(typed, "--format", "markdown").out


def test_on_a_narrow_terminal_an_interval_stands_below_its_change(home: Path) -> None:
    store = differing(home / DB, [3000], streaming=0.02)
    (sheet,) = (tables.sheet(each) for each in select(store, Query()).comparisons)
    table, needed, _ = terminal_tables.fitted(sheet, 80)
    console = Console(width=needed, file=io.StringIO())
    console.print(table)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= 80 and re.search(r"^ +\(\+[\d.]+ to", shown, re.M)


def test_what_has_no_interval_says_why_in_one_note(home: Path, typed: Type) -> None:
    store = differing(home / DB, [600], streaming=0.02, window=0.3, mit=0.0)
    base = np.linspace(6, 5, 600)
    lonely = np.where(np.arange(600) == 300, 40.0, 0.001 * np.cos(np.arange(600)))
    scores = {"recompute": base, "streaming": base + lonely, "mit": base + 1e-6}
    scored(store, scores | {"window": base + np.cos(np.arange(600) / 50)}, [])
    with store.transaction(writes=True) as connection:
        connection.execute(text("DELETE FROM documents"))
    out = report(typed, "--format", "markdown").out
    (note,) = (line for line in out.splitlines() if line.startswith("- vs recompute:"))
    for said in (
        "no interval for streaming (65 keys, S = 4): about 1 of 600 tokens hold all the spread",
        "for window (65 keys, S = 4): 600 tokens are too few where differences stay alike over",
        "for mit (65 keys, S = 4): equal to 0.0001 nats on every token",
    ):
        assert said in note
    assert all("(" not in line.split("|")[6] for line in out.splitlines() if "| streaming" in line)


def test_damaged_or_missing_scores_cost_the_interval_of_their_run_alone(
    home: Path, typed: Type
) -> None:
    differing(home / DB, [3000], streaming=0.02, window=0.3, mit=0.0)
    hurt = {"streaming": "UPDATE traces SET nll = x'00'", "mit": "DELETE FROM traces"}
    with Store.open(home / DB).transaction(writes=True) as connection:
        for method, statement in hurt.items():
            mine = f"(SELECT run_id FROM runs WHERE method = '{method}')"
            connection.execute(text(f"{statement} WHERE run_id IN {mine}"))
    by_method = {row["method"]: row for row in rows_of(typed)}
    assert by_method["window"]["ppl_change_low"] > 0.2
    assert "is damaged" in by_method["streaming"]["clusters"]
    assert by_method["mit"]["clusters"] == "no scores of single tokens are kept"
    assert by_method["mit"]["ppl_change_low"] is None


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ((), 4),
        (("--method", "mit"), 2),
        (("--columns", "method,ppl"), 0),
        (("--columns", "ppl_change"), 4),
        (("--status", "done"), 0),
    ],
)
def test_no_more_scores_are_read_than_rows_are_shown(
    home: Path, typed: Type, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], read: int
) -> None:
    differing(home / DB, [600], streaming=0.02, window=0.3, mit=0.0)
    asked: set[str] = set()
    nll = Store.nll

    def counted(store: Store, run_ids: Iterable[str]) -> Any:
        names = set(run_ids)
        asked.update(names)
        return nll(store, names)

    monkeypatch.setattr(Store, "nll", counted)
    assert report(typed, *words).code == 0
    assert len(asked) == read


def test_report_compare_and_figures_have_one_time_and_one_speed_up(home: Path, typed: Type) -> None:
    slow = {"git_commit": "f" * 40, "ms_per_token_p50": 99.0}
    turns = [(32.2, 64.0), (11.7, 23.0), (11.9, 24.0), (12.0, 24.5), (32.0, 65.0)]
    runs = [
        {"method": method, "ms_per_token_p50": pair[place], "sweep": "A", "repeat": turn}
        for turn, pair in enumerate(turns)
        for place, method in enumerate(("streaming", "recompute"))
    ]
    store = recorded(home / DB, {**FOUR[0], **slow}, *runs)
    mine = {row["method"]: row for row in rows_of(typed)}
    pairs = json.loads(typed("compare", "--db", DB, "--format", "json").out)
    other = {row["method"]: row for row in pairs}
    points = {
        point.method: point
        for point in panels.points(frames.latest(store), times(store, frames.latest(store), {}))
    }
    for method, ms in (("streaming", 12.0), ("recompute", 24.5)):
        assert mine[method]["compared_ms"] == other[method]["ms"] == points[method].ms == ms
        assert points[method].repeats == 5
    assert mine["streaming"]["ms_per_token_p50"] == 32.0, "of the latest run, as recorded"
    assert mine["streaming"]["speed_up"] == pytest.approx(other["streaming"]["speed_up"])
    assert points["streaming"].ms_range == (11.7, 32.2)
    rule = "the perplexity is the latest's, and the time the median over those at its commit"
    for out in (report(typed).out, typed("compare", "--db", DB).out):
        assert rule in " ".join(out.split())
    shown = report(typed, "--format", "markdown").out
    assert "| 12.0 |" in shown and "a decode step takes 12.0 ms against 24.5 ms" in shown


def test_accuracy_and_its_table_by_distance_stand_where_runs_were_asked_and_nowhere_else(
    home: Path, typed: Type
) -> None:
    asked = {"dataset": "recall", "tokens_sha256": "r" * 64, "questions": 8, "chance": 0.1}
    right = {"accuracy": 0.75, "accuracy_low": 0.409, "accuracy_high": 0.929}
    wrong = {"accuracy": 0.0, "accuracy_low": 0.0, "accuracy_high": 0.3244}
    answers = "[[5,1],[9,1],[10,1],[40,1],[50,1],[60,1],[300,0],[301,0]]"
    recorded(
        home / DB,
        *FOUR,
        asked | right | {"answers": answers},
        asked | wrong | {"method": "dense", "answers": answers.replace("1]", "0]")},
    )
    out = report(typed, "--format", "markdown").out
    plain, told, by_distance = sorted(
        out.split("\n**")[1:4],
        key=lambda part: ("recall" in part, "distance" in part.splitlines()[0]),
    )
    for title in ("accuracy", "horizon"):
        assert title not in plain.partition("\n\n")[2].splitlines()[0]
    assert "| 75.0% (41 to 93) | 64 |" in told and "| 0.0% (0 to 32) | 0 |" in told
    rows = [line.split("|")[1:-1] for line in by_distance.splitlines() if "|" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells[0] == ["tokens since it was told", "questions", "streaming", "dense"]
    assert cells[2] == ["1 to 16", "3", "100% (44 to 100)", "0% (0 to 56)"]
    assert [row[:2] for row in cells[3:]] == [["33 to 64", "3"], ["257 to 512", "2"]]
    assert out.count("reaches down to chance") == 1
    every = rows_of(typed, "--dataset", "recall")
    assert {row["method"]: row["accuracy"] for row in every} == {"streaming": 0.75, "dense": 0.0}
    ends = {row["method"]: json.dumps([row["horizon"], row["horizon_open"]]) for row in every}
    assert ends == {"streaming": "[64, false]", "dense": "[0, false]"}
    page = report(typed, "--format", "html").out
    assert "75.0% (41 to 93)" in page and "100% (44 to 100)" in page


def test_a_table_of_chosen_columns_shows_the_time_that_compare_shows(
    typed: Type, home: Path
) -> None:
    """Of several runs of a configuration: the median, as in comparisons and figures."""
    quick = {"method": "window", "n_sink": 0, "window": 64, "config_key": "w", "sweep": "A"}
    slow = {"config_key": "s", "sweep": "A"}
    recorded(
        home / DB,
        *({**quick, "ms_per_token_p50": ms, "repeat": n} for n, ms in enumerate((2.0, 2.5, 90.0))),
        *({**slow, "ms_per_token_p50": ms, "repeat": n} for n, ms in enumerate((7.0, 8.0, 1.0))),
    )
    words = ("--columns", "method", "ms_per_token_p50", "--format", "markdown")
    table = report(typed, *words, "--sort", "ms_per_token_p50").out
    cells = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")][1:]
    assert [(a.strip(), b.strip()) for a, b in cells] == [("window", "2.50"), ("streaming", "7.00")]
    assert "the time the median over those at its commit" in table
    one_by_one = report(typed, *words, "--status", "done").out
    assert "90" in one_by_one and "median over" not in one_by_one


@pytest.mark.parametrize("form", ["table", "html"])
def test_more_repeats_are_no_more_questions_and_their_times_are_read_once(
    typed: Type, home: Path, asked: Asked, form: str
) -> None:
    said = []
    for number in (2, 6):
        recorded(home / f"{number}.db", *FOUR * number)
        asked.clear()
        assert typed("report", "--db", f"{number}.db", "--format", form).code == 0
        assert asked.whole_rows == len(FOUR)
        said.append(list(asked.statements))
    assert said[0] == said[1] and asked.long_ways("6.db") == []
    assert sum("OUTER JOIN" in each for each in said[0]) == 1
