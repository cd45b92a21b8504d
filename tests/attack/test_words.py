"""What others wrote is shown and never obeyed: escapes, markup, formulas. No password is told."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
from sqlalchemy import text

from streamcli import harmless
from streamcli.results import addresses
from streamcli.results.store import Store
from tests.support.typed import TINY, Type

ESCAPE, CLEARED = "\x1b[2J", r"\x1b[2J"
HOSTILE = f"=cmd|'/c calc'!A1 [/] [bold red]x[/red] {ESCAPE}\x9b31m\u202egnp.exe :smile: <b>\\"
MADE_OF = {"\x1b", "\x9b", "\u202e", "\x07"}
REPORT = ("report", "--format")


@pytest.fixture
def hostile(store: Store) -> Store:
    """Four runs, each word of which was written by an enemy."""
    words = "model dataset requested_model requested_dataset notes comment tags cpu versions layers"
    with store.engine.begin() as connection:
        for name in words.split():
            connection.execute(text(f"UPDATE runs SET {name} = :word"), {"word": HOSTILE})
        connection.execute(text("UPDATE documents SET name = :word"), {"word": HOSTILE})
    return store


@pytest.mark.parametrize(
    "words",
    [
        ("runs", "list"),
        ("runs", "show", "latest"),
        ("db", "stats"),
        ("report",),
        ("compare",),
        ("sweep", "--dry-run", "--models", "bundled", "--datasets", "bundled-narrative"),
        *((*REPORT, kind) for kind in ("markdown", "latex", "csv", "json")),
        ("compare", "--format", "markdown"),
    ],
    ids=" ".join,
)
def test_hostile_words_are_shown_and_not_obeyed(
    typed: Type, hostile: Store, words: tuple[str, ...]
) -> None:
    done = typed(*words)
    assert done.code == 0, done.err
    assert not MADE_OF & set(done.out + done.err)
    if words[0] in ("runs", "report", "db") and "latex" not in words and "json" not in words:
        assert CLEARED in done.out
    if words[0] == "runs":
        assert "[bold red]" in done.out and ":smile:" in done.out and "[/]" in done.out
    if "markdown" in words:
        assert "<b>" not in done.out.replace(r"\<b>", "")


def test_an_error_that_brings_escapes_is_told_without(typed: Type, hostile: Store) -> None:
    done = typed("runs", "show", f"{ESCAPE}\n\x07 none")
    assert done.code == 2 and not MADE_OF & set(done.err) and done.err.count("\n") == 1
    failed = typed("run", *TINY, "--method", f"{ESCAPE}\x07\nstreamcli: all is well")
    assert failed.code == 2 and not MADE_OF & set(failed.err) and failed.err.count("\n") == 1


@pytest.mark.parametrize("begins", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_cell_that_begins_a_formula_is_made_words(typed: Type, store: Store, begins: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE runs SET comment = :word"), {"word": begins})
    assert typed("db", "export", "rows.csv").code == 0
    tables = (typed(*REPORT, "csv").out, Path("rows.csv").read_text())
    for table in tables:
        for row in csv.DictReader(io.StringIO(table)):
            assert row["comment"] == harmless.visible(f"'{begins}")
            assert float(row["ppl"]) > 0  # numbers stay numbers


def test_numbers_are_no_formulas() -> None:
    assert [harmless.csv_cell(value) for value in (-1.5, True, None, "a-b")] == [
        -1.5,
        True,
        None,
        "a-b",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:secret@127.0.0.1:1/name",
        "postgresql+psycopg://127.0.0.1:1/name?user=me&password=secret",
        "postgresql+psycopg://127.0.0.1:1/name?sslpassword=secret",
        "postgresql+psycopg://127.0.0.1:port/name?password=secret&user=me",
        "postgresql+psycopg:127.0.0.1/name?PASSWORD=secret",
    ],
)
def test_a_password_is_never_told(typed: Type, url: str) -> None:
    for words in (("db", "path"), ("runs", "list"), ("run", *TINY)):
        done = typed(*words, "--db", url)
        assert "secret" not in done.out + done.err, words
        assert "***" in done.out + done.err, words


def test_the_next_command_is_told_without_the_password() -> None:
    from streamcli.render import output

    url = "postgresql+psycopg://me:secret@host/name?sslpassword=secret&host=/tmp"
    place = addresses.named(addresses.located(url))
    assert "secret" not in place and "%2Ftmp" in place
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "say", said.append)
        output.say_recorded(place, url)
        output.say_recorded("/x/runs.db", "runs.db")
    assert "secret" not in said[0] and "--db 'postgresql+psycopg://me:***@host" in said[0]
    assert said[1].endswith("--db runs.db")


def test_a_malformed_line_of_dotenv_is_not_told(typed: Type) -> None:
    Path(".env").write_text("A=1\nSTREAMCLI_DATABASE_URL postgresql://me:secret@host/name\n")
    done = typed("runs", "list")
    assert done.refuses(2, ".env line 2 is not NAME=value") and "secret" not in done.err


def test_files_have_the_rights_that_the_umask_leaves(typed: Type) -> None:
    before = os.umask(0o077)
    try:
        assert typed("run", *TINY).code == 0
        assert typed("db", "export", "runs.jsonl").code == 0
    finally:
        os.umask(before)
    for path in (Path("data/streamcli.db"), Path("runs.jsonl")):
        assert path.stat().st_mode & 0o777 == 0o600, path
