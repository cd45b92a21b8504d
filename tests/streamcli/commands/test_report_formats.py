"""Reports in each format: what it holds of the runs, and the file it is written to."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from streamcli.results.columns import ADDED, COLUMNS
from streamcli.results.store import Store
from tests.support.process import imported
from tests.support.records import FOUR, recorded
from tests.support.reported import DB, report, rows_of
from tests.support.typed import Type

ODD = {"dataset": 'a|b "c", <i>&amp; 50%_#1 \\~^{x}.txt', "tokens_sha256": "c" * 64}


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


FORMATS = {
    "r.md": "**bundled on",
    "r.HTML": "<!doctype html>",
    "r.tex": r"% \usepackage",
    "r.csv": "run_id,",
    "r.json": "[\n{",
    "r.txt": "bundled on",
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.slow
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
