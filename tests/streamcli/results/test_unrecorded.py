"""A result that was computed survives whatever becomes of its database meanwhile."""

from __future__ import annotations

import errno
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamcli.jobs import ledger
from streamcli.results import frames, portable, sqlite_file
from streamcli.results.store import Store
from tests.support.databases import Served, sql
from tests.support.sweeps import TWO
from tests.support.typed import DB, TINY, Type, Typed

RUN = ("run", *TINY, "--method", "streaming")
SWEEP = (*TWO, "dense")
LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""
NAME = re.compile(r"streamcli-unrecorded-(\w{26})\.jsonl")
Break = Callable[[Callable[[], object]], None]


@pytest.fixture(autouse=True)
def impatient(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes takes moments."""
    monkeypatch.setattr(ledger, "PATIENCE_S", 0.3)
    monkeypatch.setattr(ledger, "PAUSE_S", 0.1)
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.05)


@pytest.fixture
def after_scoring(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Does something when the first run has its result, before that is recorded."""
    from core import runner

    execute, todo = runner.execute, list[Callable[[], object]]()

    def executed(prepared: Any, meter: Any) -> Any:
        result = execute(prepared, meter)
        while todo:
            todo.pop()()
        return result

    monkeypatch.setattr(runner, "execute", executed)
    return todo.append


def shown(done: Typed) -> str:
    """The perplexity in a table of one run."""
    (row,) = (line for line in done.out.splitlines() if line.startswith("streaming"))
    return row.split()[4]


def aside(done: Typed, folder: Path) -> Path:
    """The file that a result went to, when all was said and shown as it should be."""
    assert done.code == 1, done
    assert shown(done), "the table is shown all the same"
    (file,) = (path for path in folder.iterdir() if NAME.fullmatch(path.name))
    waits, named, last = done.err.splitlines()[-3:]
    assert "is finished and its result is kept; trying again for" in waits
    assert f"is in {file}; to add it: streamcli db import {file}" in named
    assert "1 finished run could not be recorded in" in last
    assert last.count(f"to add: streamcli db import {file}") == 1
    return file


def taken_in(typed: Type, file: Path, done: Typed, *db: str) -> None:
    """The file is offered, taken in once, and no longer offered."""
    offered = typed("runs", "list", *db).err
    flags = "".join(f" {shlex.quote(word)}" for word in db)
    assert f"results of 1 run wait in {file}: streamcli db import {file}{flags}\n" in offered
    before = len(frames.runs(Store.open(db[1] if db else DB), status=None))
    assert "1 run came from" in typed("db", "import", str(file), *db).err
    assert "0 runs came from" in typed("db", "import", str(file), *db).err
    store = Store.open(db[1] if db else DB)
    runs = frames.runs(store, status=None)
    match = NAME.fullmatch(file.name)
    assert match and len(runs) == max(before, 1)
    row = store.get(match[1])
    assert (row.status, f"{row.ppl:.2f}") == ("done", shown(done))
    assert len(store.trace(row.run_id)[0]) == row.scored_tokens
    assert typed("db", "check", *db).code == 0
    assert "wait in" not in typed("runs", "list", *db).err


@pytest.fixture
def lock() -> Iterator[Callable[[], None]]:
    """Locks the database from another process; calling it twice lets go."""
    holders = list[subprocess.Popen[str]]()

    def toggle() -> None:
        if holders:
            holders.pop().communicate()
            return
        command = [sys.executable, "-c", LOCK, str(DB)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        holders.append(subprocess.Popen(command, text=True, **pipes))  # type: ignore[call-overload]
        assert holders[0].stdout and holders[0].stdout.readline() == "locked\n"

    yield toggle
    if holders:
        toggle()


@pytest.mark.slow
def test_a_database_that_stays_locked(
    typed: Type, after_scoring: Break, lock: Callable[[], None]
) -> None:
    after_scoring(lock)
    done = typed(*RUN)
    assert "was locked by another process" in done.err
    lock()
    taken_in(typed, aside(done, DB.parent.absolute()), done)


def test_a_lock_that_ends_in_time_is_waited_for(
    typed: Type, after_scoring: Break, lock: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    after_scoring(lock)
    monkeypatch.setattr("streamcli.jobs.ledger.sleep", lambda _: lock())
    done = typed(*RUN)
    assert done.code == 0 and "recorded in" in done.err
    assert done.err.count("trying again for") == 1
    assert list(frames.runs(Store.open(DB), status=None)["status"]) == ["done"]
    assert not [path for path in DB.parent.iterdir() if NAME.fullmatch(path.name)]


@pytest.mark.slow
def test_a_database_that_was_moved_away_and_is_put_back(typed: Type, after_scoring: Break) -> None:
    away = Path("elsewhere.db")
    after_scoring(lambda: DB.rename(away))
    done = typed(*RUN)
    assert not DB.exists(), "its place stays free"
    file = aside(done, DB.parent.absolute())
    away.rename(DB)
    taken_in(typed, file, done)


@pytest.mark.slow
def test_a_database_that_was_moved_away_for_good(typed: Type, after_scoring: Break) -> None:
    after_scoring(DB.unlink)
    done = typed(*RUN)
    taken_in(typed, aside(done, DB.parent.absolute()), done)


@pytest.mark.slow
def test_a_table_that_was_dropped(typed: Type, after_scoring: Break) -> None:
    after_scoring(lambda: sql(Store.open(DB), "DROP TABLE traces"))
    done = typed(*RUN)
    assert "is not laid out as streamcli left it" in done.err
    file = aside(done, DB.parent.absolute())
    refused = typed("db", "import", str(file))
    assert refused.code == 1 and "not laid out as streamcli left it" in refused.err
    db = ("--db", "new.db")
    assert "1 run came from" in typed("db", "import", str(file), *db).err
    assert typed("db", "check", *db).code == 0


def test_a_run_that_was_deleted_meanwhile_is_not_waited_for(
    typed: Type, after_scoring: Break
) -> None:
    after_scoring(lambda: Store.open(DB).delete(Store.open(DB).get("latest").run_id))
    done = typed(*RUN)
    assert done.code == 1 and "trying again" not in done.err and "is not there" in done.err
    (file,) = DB.parent.glob("*.jsonl")
    assert "1 run came from" in typed("db", "import", str(file)).err


def test_a_run_that_was_taken_for_dead_is_done_all_the_same(
    typed: Type, after_scoring: Break
) -> None:
    after_scoring(lambda: Store.open(DB).reap(lambda _: True))
    done = typed(*RUN)
    assert done.code == 0
    assert Store.open(DB).get("latest").status == "done"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full(typed: Type, after_scoring: Break, small_disk: Path) -> None:
    db, filler = small_disk / "runs.db", small_disk / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
            while True:
                stream.write(bytes(4096))

    after_scoring(fill)
    done = typed(*RUN, "--db", str(db))
    assert "the disk is full" in done.err and done.code == 1 and shown(done)
    (file,) = Path.cwd().glob("*.jsonl")  # beside the database there is no room either
    assert not [path for path in small_disk.iterdir() if path.name.endswith("jsonl")]
    filler.unlink()
    taken_in(typed, file, done, "--db", str(db))


def test_a_result_that_can_be_written_nowhere_is_shown(
    typed: Type, after_scoring: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    after_scoring(DB.unlink)
    after_scoring(lambda: monkeypatch.setattr("streamcli.files.uuid4", full))
    done = typed(*RUN)
    assert done.code == 1 and shown(done)
    assert "could be written nowhere" in done.err.splitlines()[-2]
    assert "1 could be written nowhere, so keep what is shown above" in done.err.splitlines()[-1]


@pytest.mark.slow
def test_a_sweep_goes_on_and_ends_where_no_run_can_begin(
    typed: Type, after_scoring: Break, lock: Callable[[], None]
) -> None:
    after_scoring(lock)
    done = typed(*SWEEP)
    assert done.code == 1 and "3 runs: 1 done, 2 not begun." in done.err
    assert "streaming" in done.out and "dense" not in done.out
    assert "The next run waits; trying again for" in done.err
    lock()
    (file,) = DB.parent.glob("*.jsonl")
    assert typed("db", "import", str(file)).code == 0
    again = typed(*SWEEP)
    assert again.code == 0 and "3 runs: 2 done, 1 finished on this machine before" in again.err


def test_a_sweep_whose_database_comes_back_makes_the_rest(
    typed: Type,
    after_scoring: Break,
    lock: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = portable.write

    def written(*words: Any, **about: Any) -> None:
        write(*words, **about)
        lock()

    monkeypatch.setattr(portable, "write", written)
    after_scoring(lock)
    done = typed(*SWEEP)
    assert done.code == 1 and "3 runs: 3 done." in done.err
    assert all(method in done.out for method in ("streaming", "window", "dense"))
    assert "1 finished run could not be recorded" in done.err.splitlines()[-1]
    statuses = frames.runs(Store.open(DB), status=None, sort="run_id")["status"]
    assert list(statuses) == ["running", "done", "done"]


@pytest.mark.slow
def test_two_databases_in_a_folder_are_not_mixed_up(
    typed: Type, after_scoring: Break, lock: Callable[[], None]
) -> None:
    typed(*RUN, "--db", "data/other.db")
    after_scoring(lock)
    assert typed(*RUN).code == 1
    lock()
    assert "wait in" not in typed("runs", "list", "--db", "data/other.db").err
    assert "wait in" in typed("runs", "list").err


@pytest.mark.slow
def test_what_was_timed_survives_a_lock(
    typed: Type, lock: Callable[[], None], little: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.measure import bench

    run = bench.run

    def locked(*given: Any) -> Iterator[int]:
        yield from run(*given)
        lock()

    monkeypatch.setattr(bench, "run", locked)
    words = ("bench", "decode", "--shape", "tiny", "--methods", "streaming", "--engines", "eager")
    done = typed(*words, "--windows", "28", "--rounds", "2", "--steps", "3")
    assert done.code == 1 and "streaming" in done.out
    assert "What was timed is kept; trying again for" in done.err
    assert "what was timed could not be recorded in" in done.err.splitlines()[-1]
    (file,) = (path for path in DB.parent.iterdir() if NAME.fullmatch(path.name))
    lock()
    assert f"streamcli db import {file.absolute()}" in typed("runs", "list").err
    assert "2 rows of benchmarks came too" in typed("db", "import", str(file)).err
    assert "wait in" not in typed("runs", "list").err


@pytest.mark.slow
def test_what_a_probe_found_survives_a_lock_and_comes_back(
    typed: Type, lock: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from core import probe

    def locked(*given: Any, **more: Any) -> Any:
        found = look(*given, **more)
        lock()
        return found

    look = probe.probe
    monkeypatch.setattr(probe, "probe", locked)
    words = ("--model", "bundled", "--dataset", "bundled-narrative", "--max-tokens", "150")
    done = typed("probe", *words, "--window", "12", "--json")
    assert done.code == 1 and json.loads(done.out)["tokens"] == 150
    assert "What was found is kept; trying again for" in done.err
    assert "what was found could not be recorded in" in done.err.splitlines()[-1]
    (file,) = (path for path in DB.parent.iterdir() if NAME.fullmatch(path.name))
    lock()
    assert f"streamcli db import {file.absolute()}" in typed("probe", "--list").err
    assert "1 row of probes came too" in typed("db", "import", str(file)).err
    listed = typed("probe", "--list", "--json")
    assert "wait in" not in listed.err
    assert json.loads(listed.out)[0]["probe_id"] == json.loads(done.out)["probe_id"]


def test_a_server_that_stopped(
    typed: Type,
    after_scoring: Break,
    own_server: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, control = own_server
    monkeypatch.setenv("STREAMCLI_DATABASE_URL", url)
    after_scoring(lambda: control("stop"))
    done = typed(*RUN)
    file = aside(done, Path.cwd())
    control("start")
    assert "is in" not in typed("runs", "list").err
    assert f"results of 1 run wait in {file}: streamcli db import {file}\n" in (
        typed("runs", "list").err
    )
    assert "1 run came from" in typed("db", "import", str(file)).err
    (status,) = frames.runs(Store.open(url), status=None)["status"]
    assert status == "done" and typed("db", "check").code == 0
    assert "wait in" not in typed("runs", "list").err


def test_a_server_that_comes_back_in_time_is_waited_for(
    typed: Type,
    after_scoring: Break,
    own_server: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, control = own_server
    after_scoring(lambda: control("stop"))
    monkeypatch.setattr("streamcli.jobs.ledger.sleep", lambda _: control("start"))
    monkeypatch.setattr(ledger, "PATIENCE_S", 600.0)  # starting may take its time
    done = typed(*RUN, "--db", url)
    assert done.code == 0 and done.err.count("trying again for") == 1, done.err
    assert list(frames.runs(Store.open(url), status=None)["status"]) == ["done"]
