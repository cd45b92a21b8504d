"""``streamcli db`` as it is typed; what it does is proved in ``tests/results``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamcli.results import alone, frames, transfer
from streamcli.results.schema import Benchmark, Probe
from streamcli.results.store import Store
from tests.support.databases import sql
from tests.support.records import ARM, PROBED
from tests.support.typed import DB, Type


def test_path_opens_nothing_and_hides_the_password(
    typed: Type, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert typed("db", "path").out == f"{home / DB}\n"
    assert not DB.parent.exists()
    monkeypatch.setenv("STREAMCLI_DATABASE_URL", "postgresql+psycopg://me:secret@host/name")
    assert typed("db", "path").out == "postgresql+psycopg://me:***@host/name\n"


def test_stats_are_a_table_or_an_object(typed: Type, store: Store) -> None:
    table = typed("db", "stats").out
    assert "status   done" in table and "4 runs, 356 tokens scored" in table
    found = json.loads(typed("db", "stats", "--json").out)
    assert found["method"] == {"recompute": 2, "streaming": 2}
    assert found["place"] == store.place


def test_stats_of_an_empty_database_say_so(typed: Type, home: Path) -> None:
    done = typed("db", "stats")
    assert (done.code, done.out) == (0, "") and "holds no run yet" in done.err
    assert json.loads(typed("db", "stats", "--json").out)["runs"] == 0


def test_an_export_goes_into_another_database_and_is_known_there_then(
    typed: Type, store: Store
) -> None:
    assert "holds 4 runs of" in typed("db", "export", "runs.jsonl").err
    assert "4 runs came from runs.jsonl" in typed("db", "import", "runs.jsonl", "--db", "b.db").err
    again = typed("db", "import", "runs.jsonl", "--db", "b.db").err
    assert "0 runs came from" in again and "4 were here already" in again
    typed("db", "export", "again.jsonl", "--db", "b.db")
    assert Path("again.jsonl").read_bytes() == Path("runs.jsonl").read_bytes()


def test_an_export_of_all_brings_what_belongs_to_no_run_and_says_so(
    typed: Type, store: Store
) -> None:
    more = {"benchmark": alone.named(Benchmark, [ARM]), "probe": alone.named(Probe, [PROBED])}
    transfer.add(store, (), "here", more)
    held = "holds 4 runs, 1 row of benchmarks and 1 row of probes of"
    assert held in typed("db", "export", "all.jsonl").err
    done = typed("db", "import", "all.jsonl", "--db", "b.db")
    assert (
        "4 runs came from" in done.err
        and "; 1 row of benchmarks came too; 1 row of probes came too." in done.err
    )
    assert "holds 2 runs of" in typed("db", "export", "all.jsonl", "--mode", "chunked").err
    assert "holds 4 runs of" in typed("db", "export", "all.csv").err


def test_an_export_takes_the_filters_of_every_command(typed: Type, store: Store) -> None:
    typed("runs", "tag", "latest", "--add", "paper")
    assert "holds 1 run of" in typed("db", "export", "runs.csv", "--tag", "paper").err
    assert "holds 2 runs of" in typed("db", "export", "runs.csv", "--mode", "chunked").err
    assert typed("db", "export", "runs.csv", "--tag", "papr").refuses(1, "no run that has ended")
    assert typed("db", "export", "runs.csv", "--model", "bundeld").refuses(2, "'bundled'?")
    assert len(Path("runs.csv").read_text().splitlines()) == 3  # as it was


def test_a_merge_copies_a_database(typed: Type, store: Store) -> None:
    done = typed("db", "merge", str(DB), "--db", "copy.db")
    assert f"4 runs came from {store.place} to" in done.err
    assert len(frames.runs(Store.open("copy.db"))) == 4


def test_a_conflict_is_one_line_with_code_1(typed: Type, store: Store) -> None:
    typed("db", "merge", str(DB), "--db", "copy.db")
    sql(store, "UPDATE runs SET ppl = 1 WHERE run_id = (SELECT max(run_id) FROM runs)")
    assert typed("db", "merge", "copy.db").refuses(1, "(ppl): nothing was taken in")


def test_a_check_says_what_is_wrong_with_code_1(typed: Type, store: Store) -> None:
    sound = typed("db", "check")
    assert (sound.code, sound.out) == (0, "") and "is sound: 4 runs." in sound.err
    sql(store, "DELETE FROM traces WHERE run_id = (SELECT max(run_id) FROM traces)")
    done = typed("db", "check")
    assert done.code == 1
    assert f"{store.get('latest').run_id}  has no trace" in done.out
    assert done.err.splitlines() == [
        f"streamcli: {store.place} is not sound: see the findings above (1)."
    ]


def test_a_vacuum_says_what_it_gave_back(typed: Type, store: Store) -> None:
    typed("runs", "delete", "latest", "--yes")
    assert "KiB before" in typed("db", "vacuum").err
    assert typed("db", "check").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("db import absent.jsonl", "absent.jsonl can't be read: No such file"),
        ("db import data/streamcli.db", "is no .jsonl file"),
        ("db export runs.xlsx", "is neither .jsonl (whole runs) nor .csv"),
        ("db merge absent.db", "there is no database"),
        ("db merge data/streamcli.db", "is the database itself"),
        ("db exprot runs.csv", "Did you mean 'export'?"),
    ],
)
def test_what_is_asked_wrongly_is_one_line_with_code_2(
    typed: Type, store: Store, words: str, said: str
) -> None:
    assert typed(*words.split()).refuses(2, said)


def test_the_view_of_the_reference_can_be_queried_by_hand(typed: Type, store: Store) -> None:
    from streamcli.docs import QUERY

    found = sql(store, QUERY.replace("65", "25"))
    assert [row[1] for row in found] == ["recompute", "streaming"]
    assert all(row[4] > 1 and row[5] > 0 for row in found)


def test_a_database_that_is_named_must_be_there_and_none_is_made(home: Path, typed: Type) -> None:
    for words in ("report", "compare", "plot", "runs list", "db check", "db stats", "db vacuum"):
        done = typed(*words.split(), "--db", "nowhere.db")
        assert done.refuses(2, "there is no database", "nowhere.db")
    assert not list(home.iterdir())
