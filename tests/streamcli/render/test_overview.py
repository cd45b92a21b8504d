"""The table over several: what it holds, in which order, and what is said but once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from streamcli.analysis.selection import Query
from streamcli.jobs import compare
from streamcli.jobs.report import over, sections, text
from streamcli.jobs.select import select
from streamcli.render import compared
from streamcli.render.documents import Section
from streamcli.results.store import Store
from tests.support.records import FOUR, differing, recorded

KVPRESS = {"mode": "kvpress-official", "context_tokens": 450, "scored_tokens": 149}
MODES: tuple[dict[str, Any], ...] = (KVPRESS, {"mode": "decode-loop"}, {"mode": "chunked"})
OTHER = {
    "dataset": "bundled-encyclopedia",
    "requested_dataset": "bundled-encyclopedia",
    "tokens_sha256": "e" * 64,
}


def sweep(path: Path, *texts: dict[str, Any]) -> Store:
    """Four methods in three modes on these texts, what is no streaming measure first."""
    runs = (row | mode | each for mode in MODES for each in texts for row in FOUR)
    return recorded(path, *runs)


def told(store: Store, form: str = "markdown", **asked: Any) -> str:
    query = Query(**asked)
    return text(store, query, select(store, query), form)


def parts(store: Store) -> list[Section]:
    query = Query()
    return sections(query, select(store, query))


def pipes(part: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in part.splitlines()
        if line.startswith("|")
    ]


def words(lines: list[str]) -> int:
    return len(re.findall(r"[^\s|]+", " ".join(line for line in lines if "---" not in line)))


def test_of_one_table_there_is_no_overview(tmp_path: Path) -> None:
    store = recorded(tmp_path / "runs.db", *FOUR)
    assert over(Query(), select(store, Query())) is None
    assert "Overview" not in told(store)


def test_it_holds_every_perplexity_with_its_change_by_mode_and_text(tmp_path: Path) -> None:
    store = sweep(tmp_path / "runs.db", {}, OTHER)
    head, _, *rows = pipes(told(store).split("\n\n")[1])
    assert head == ["mode", "method", "bundled-encyclopedia", "bundled-narrative"]
    assert [row[0] for row in rows] == [
        *(["decode-loop"] * 4 + ["chunked"] * 4 + ["kvpress-official"] * 4)
    ]
    assert rows[0] == ["decode-loop", "streaming", "216.21 -0.35%", "216.21 -0.35%"]
    assert rows[2] == ["decode-loop", "recompute", "216.98", "216.98"]
    assert rows[3][1:] == ["dense", "209.79*", "209.79*"]


def test_its_changes_have_their_intervals(tmp_path: Path) -> None:
    store = differing(tmp_path / "runs.db", [400], streaming=0.2)
    recorded(tmp_path / "runs.db", FOUR[2] | OTHER)
    row = next(row for row in pipes(told(store)) if row[1] == "streaming")
    assert sorted(row[2:])[0] == "-"  # on the other text it was not run
    assert re.fullmatch(r"[\d.]+ \+[\d.]+% \(\+[\d.]+ to \+[\d.]+\)", sorted(row[2:])[1])


@pytest.mark.parametrize("sort", [None, "ppl", "-created_at"])
@pytest.mark.slow
def test_what_is_no_streaming_measure_is_the_last_table(tmp_path: Path, sort: str | None) -> None:
    store = sweep(tmp_path / "runs.db", {})
    titles = re.findall(r"^\*\*(?:\d\. )?bundled on .*$", told(store, sort=sort), re.MULTILINE)
    modes = ["decode-loop", "chunked", "kvpress-official"]
    assert [next(mode for mode in modes if mode in title) for title in titles] == modes
    grouped = told(store, sort=sort, group_by="mode")
    assert re.findall(r"mode: ([\w-]+)", grouped) == modes


@pytest.mark.slow
def test_each_note_stands_once_below_all_and_names_its_tables(tmp_path: Path) -> None:
    store = sweep(tmp_path / "runs.db", {}, OTHER)
    for form in ("markdown", "html", "table"):
        told_so = told(store, form)
        assert told_so.count("KV: all that is held between steps") == 1
        assert len(re.findall("decode-loop: ms/token is the median", told_so)) == 1
    *_, last = told(store).split("**Notes on these tables**")
    assert "- * not the 65 keys of re-computation: dense up to 599." in last  # on all of them


def test_a_note_on_some_tables_names_them(tmp_path: Path) -> None:
    noted = [row | {"notes": "it was warm."} for row in FOUR[:3]]
    loop: dict[str, Any] = {"mode": "decode-loop"}
    modes = (loop, loop | OTHER, {"mode": "chunked"})
    runs = [row | mode for mode in reversed(modes[1:]) for row in noted]
    store = recorded(tmp_path / "runs.db", *(row | modes[0] for row in FOUR), *runs)
    out = told(store)
    assert "- Tables 1, 3: it was warm." in out
    assert re.findall(r"^\*\*(\d)\. bundled on bundled-(\w+)", out, re.MULTILINE) == [
        *[("1", "encyclopedia"), ("2", "narrative"), ("3", "narrative")]
    ]


def test_a_sweep_has_fewer_words_of_notes_than_of_tables(tmp_path: Path) -> None:
    lines = told(sweep(tmp_path / "runs.db", {}, OTHER)).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    rest = [line for line in lines if not line.startswith("|")]
    assert 1.2 * words(rest) < words(tables)


def test_tables_that_a_name_does_not_tell_apart_have_what_does(tmp_path: Path) -> None:
    longer: dict[str, Any] = {"tokens_sha256": "f" * 64, "scored_tokens": 999}
    again = {"dtype": "bfloat16"}
    store = recorded(
        tmp_path / "runs.db",
        *(
            row | more | {"config_key": f"{n}{m}"}
            for n, row in enumerate(FOUR[:3])
            for m, more in enumerate(({}, longer, again))
        ),
    )
    head, _, *rows = pipes(told(store).split("\n\n")[1])
    assert sorted(head[2:]) == ["bundled-narrative, 599 tokens", "bundled-narrative, 999 tokens"]
    assert {row[0] for row in rows} == {"decode-loop, bfloat16", "decode-loop, float32"}
    assert len(rows) == 6


def test_titles_that_would_be_the_same_say_what_sets_their_tables_apart(tmp_path: Path) -> None:
    others: list[dict[str, Any]] = [{}, {"tokens_sha256": "f" * 64}, {"mode": "chunked"}]
    rows = [row | other for row in FOUR[:3] for other in others]
    store = recorded(tmp_path / "runs.db", *rows, rows[0] | {"host": "there"})
    titles = [each.sheet.title.partition(", float32, ")[2] for each in parts(store)]
    first = "2 CPU threads, tokens bbbbbbbbbb, host"
    assert sorted(titles) == [
        "2 CPU threads",
        f"{first} here",
        f"{first} there",
        "2 CPU threads, tokens ffffffffff, host here",
    ]
    pages = compare.methods(store, {}, "recompute", across=False, most=0).tables
    assert sorted(
        compared.methods(page, across=False).title.partition(", float32, ")[2] for page in pages
    ) == sorted(titles)


def test_several_budgets_of_a_method_have_a_row_each(tmp_path: Path) -> None:
    small = [row | {"window": 28, "attended_keys": 33} for row in FOUR[:3:2]]
    chunked = {**FOUR[0], "mode": "chunked"}
    rows = pipes(
        told(recorded(tmp_path / "runs.db", *FOUR[:3:2], *small, chunked)).split("\n\n")[1]
    )
    assert [row[1] for row in rows[2:]] == [
        "streaming (33 keys, S = 4)",
        "recompute (33 keys)",
        "streaming (65 keys, S = 4)",
        "recompute (65 keys)",
        "streaming (65 keys, S = 4)",
    ]


def test_a_stand_in_is_named_with_what_it_stands_in_for(tmp_path: Path) -> None:
    runs = [row | {"requested_dataset": "wikitext"} for row in FOUR]
    store = recorded(tmp_path / "runs.db", *runs, FOUR[0] | {"mode": "chunked"})
    out = told(store)
    assert "bundled on bundled-narrative, for wikitext (599 tokens scored), decode-loop" in out
    assert "bundled on bundled-narrative (599 tokens scored), chunked" in out
    own = [row | {"model": "tiny", "requested_model": "models/tiny"} for row in FOUR]
    assert "tiny on bundled-narrative (" in told(recorded(tmp_path / "own.db", *own))
