"""``streamcli runs``: list, show, tag, note and delete."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest

from core import process
from streamcli.results import frames
from streamcli.results.columns import COLUMNS
from streamcli.results.store import Store
from tests.support.asked import Asked
from tests.support.databases import sql
from tests.support.records import FOUR, recorded
from tests.support.typed import Type


def names(store: Store) -> list[str]:
    return list(frames.runs(store, status=None)["run_id"])  # newest first


def set_status(store: Store, run_id: str, status: str, **more: object) -> None:
    changes = {"status": status, **more}
    assigned = ", ".join(f"{name} = :{name}" for name in changes)
    sql(store, f"UPDATE runs SET {assigned} WHERE run_id = :run_id", run_id=run_id, **changes)


def test_runs_are_listed_newest_first_and_what_all_share_is_said_once(
    typed: Type, store: Store
) -> None:
    listed = typed("runs", "list")
    assert listed.code == 0
    lines = listed.out.splitlines()
    assert lines[0].strip() == "done, bundled, bundled-narrative"
    shown = [line.split()[0] for line in lines if line.startswith("0")]
    assert len(shown) == 4
    assert all(run.startswith(short) for run, short in zip(names(store), shown, strict=True))
    assert f"4 of 4 runs of {store.place}." in listed.out


def test_a_shown_name_is_enough_to_name_the_run(typed: Type, store: Store) -> None:
    shown = [line.split()[0] for line in typed("runs", "list").out.splitlines() if line[0:1] == "0"]
    for short, run_id in zip(shown, names(store), strict=True):
        assert len(short) < len(run_id)
        assert store.get(short).run_id == run_id


def test_a_list_is_narrowed_and_says_what_it_leaves_out(typed: Type, store: Store) -> None:
    done = typed("runs", "list", "--method", "streaming", "--limit", "1", "--json")
    (line,) = done.out.splitlines()
    assert list(json.loads(line)) == list(COLUMNS)
    assert json.loads(line)["mode"] == "decode-loop"
    one = typed("runs", "list", "--method", "streaming", "--limit", "1").out
    assert f"1 of 2 runs of {store.place}; 1 older" in one
    assert "holds no run that matches" in typed("runs", "list", "--method", "mit").err
    assert typed("runs", "list", "--status", "don").err.endswith("Did you mean 'done'?\n")


def test_a_failed_run_is_listed_with_its_error(typed: Type, store: Store) -> None:
    first = names(store)[0]
    set_status(store, first, "failed", error="out of memory on cpu")
    listed = typed("runs", "list").out
    assert f"{first[:10]}" in listed and "out of memory on cpu" in listed
    assert "1 of 1 run of" in typed("runs", "list", "--status", "failed").out


def test_show_tells_every_column_that_has_a_value_and_the_documents(
    typed: Type, store: Store
) -> None:
    run = store.get("latest")
    shown = typed("runs", "show", "latest").out
    hidden = {"requested_model", "requested_dataset"}  # they are what ran
    for name, value in run.model_dump().items():
        told = any(line.startswith(f"{COLUMNS[name].title}  ") for line in shown.splitlines())
        assert told == (value is not None and value != "" and name not in hidden), name
    assert "bundled-narrative      89" in shown


def test_show_as_json_has_every_column_and_the_documents(typed: Type, store: Store) -> None:
    run = store.get("latest")
    found = json.loads(typed("runs", "show", run.run_id[:12], "--json").out)
    (document,) = found.pop("per_document")
    assert found == run.model_dump()
    assert document["scored_tokens"] == 89
    assert document["nll_nats"] == pytest.approx((run.nll_nats or 0) * 89)


def test_tags_are_sorted_words_and_a_report_finds_them(typed: Type, store: Store) -> None:
    new, old = names(store)[:2]
    assert typed("runs", "tag", new, old, "--add", "paper", "base,x", "--add", "paper").code == 0
    assert store.get(new).tags == store.get(old).tags == "base paper x"
    typed("runs", "tag", old, "--remove", "paper", "x")
    assert store.get(old).tags == "base"
    typed("runs", "tag", old, "--remove", "base")
    assert store.get(old).tags is None
    assert list(frames.runs(store, tag="paper")["run_id"]) == [new]


@pytest.mark.parametrize("bad", ["two words", "-x", "", "ä", "a" * 41, "a\nb"])
def test_what_can_not_be_a_tag_is_refused_in_one_line(typed: Type, store: Store, bad: str) -> None:
    assert typed("runs", "tag", "latest", f"--add={bad}").refuses(2)
    assert store.get("latest").tags is None


def test_tagging_is_all_or_nothing(typed: Type, store: Store) -> None:
    assert typed("runs", "tag", "latest", "NOPE", "--add", "x").code == 2
    assert typed("runs", "tag", "latest").err.startswith("streamcli: no tag was given")
    assert set(frames.runs(store)["tags"]) == {None}


def test_a_tag_that_is_not_there_is_not_removed_in_silence(typed: Type, store: Store) -> None:
    new, old = names(store)[:2]
    bare = typed("runs", "tag", new, "--remove", "x")
    assert bare.code == 2 and bare.err == (
        f"streamcli: there is no tag 'x' to remove: {new} has none.\n"
    )
    typed("runs", "tag", new, "--add", "base", "paper")
    done = typed("runs", "tag", new, "--remove", "base", "papre", "--add", "y")
    assert done.code == 2 and done.err == (
        f"streamcli: unknown tag of {new} 'papre': choose one of base, paper. "
        "Did you mean 'paper'?\n"
    )
    assert store.get(new).tags == "base paper"
    assert "of these 2 runs 'z'" in typed("runs", "tag", new, old, "--remove", "z").err
    assert typed("runs", "tag", new, old, "--remove", "base").code == 0  # one of them has it
    assert store.get(new).tags == "paper"


def test_a_note_is_kept_replaced_and_taken_away(typed: Type, store: Store) -> None:
    typed("runs", "note", "latest", "the machine was busy, --add nothing")
    assert store.get("latest").comment == "the machine was busy, --add nothing"
    assert "the machine was busy" in typed("runs", "list").out
    typed("runs", "note", "latest", "")
    assert store.get("latest").comment is None


def test_a_run_is_deleted_with_its_parts_only_when_told(
    typed: Type, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *kept = names(store)
    monkeypatch.setattr("sys.stdin", StringIO())
    refused = typed("runs", "delete", first)
    assert (refused.code, "add --yes" in refused.err) == (2, True)
    done = typed("runs", "delete", first, second[:20], first, "--yes")
    assert done.code == 0 and f"deleted {first}" in done.err and f"deleted {second}" in done.err
    assert names(store) == kept
    for table in ("documents", "traces"):
        assert {run_id for (run_id,) in sql(store, f"SELECT run_id FROM {table}")} == set(kept)


def test_on_a_terminal_deleting_asks(
    typed: Type, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def confirm(question: str, **_: object) -> bool:
        asked.append(question)
        return len(asked) > 1

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", confirm)
    assert "nothing was deleted" in typed("runs", "delete", "latest").err
    assert len(names(store)) == 4
    typed("runs", "delete", "latest")
    assert len(names(store)) == 3 and asked[0] == "Delete 1 run for good?"


def test_a_run_that_may_live_is_not_deleted_but_a_dead_one_is(typed: Type, store: Store) -> None:
    first, second, third, fourth = names(store)
    ours = process.name()
    set_status(store, first, "running", process=ours)
    set_status(store, second, "running", pid=4, host="another", process=None)
    for living in (first, second):
        refused = typed("runs", "delete", fourth, living, "--yes")
        assert refused.code == 2 and "may still be running" in refused.err
    assert len(names(store)) == 4
    note = "1 running, begun on another machine or in another container"
    assert note in typed("runs", "list", "--status", "running").out
    assert ours
    set_status(store, third, "running", process=ours[:-1] + "x")
    assert typed("runs", "delete", third, "--yes").code == 0
    assert len(names(store)) == 3
    assert typed("runs", "delete", second, "--yes", "--force").code == 0
    assert len(names(store)) == 2


def test_the_groups_alone_show_their_help(typed: Type, home: Path) -> None:
    for group in ("runs", "db"):
        done = typed(group)
        assert done.code == 0 and f"streamcli {group}" in done.out and done.err == ""


def test_a_list_of_all_runs_is_one_question_for_the_columns_that_it_shows(
    typed: Type, home: Path, asked: Asked
) -> None:
    recorded(home / "runs.db", *FOUR)
    asked.clear()
    assert typed("runs", "list", "--limit", "0", "--db", "runs.db").code == 0
    (question,) = [each for each in asked.statements if "runs.run_id" in each]
    assert not asked.whole_rows and "runs.versions" not in question
