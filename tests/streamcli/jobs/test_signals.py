"""Real signals to real processes: nothing that was finished is lost, and no traceback is shown."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from core import process, runner
from streamcli.jobs import signals
from streamcli.results import frames
from streamcli.results.store import Store
from tests.support import children, forked
from tests.support.children import Child
from tests.support.typed import TINY

pytestmark = pytest.mark.slow

RUN = ("run", *TINY, "--db", "runs.db")
TOLD = "told"
# The command, told of when Python itself has started and the first statement of ours is done.
ANY = f"""
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
print({TOLD!r}, flush=True)
from streamcli.__main__ import main
main()
"""


class Cold:
    """The command in a fresh process, to be stopped at any moment from its first on."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=children.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.send_signal = self.process.send_signal

    def ended(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=100)
        return self.process.returncode, out, err


def hold(where: str, line: Connection, *words: str) -> None:
    """A run that tells when it is in the middle of scoring or at its end, and waits for a word."""
    execute = runner.execute

    def executed(prepared: Any, meter: Any) -> Any:
        result = execute(prepared, meter) if where == "end" else None
        line.send(TOLD)
        line.recv()
        while where == "middle":
            time.sleep(0.01)
        return result

    runner.execute = executed  # type: ignore[assignment]
    forked.become(*words)


def held(folder: Path, where: str) -> tuple[Child, Connection]:
    """Such a run, once it has told, and what to give the word on."""
    ours, theirs = Pipe()
    child = Child(folder, hold, where, theirs, *RUN)
    theirs.close()
    assert ours.recv() == TOLD
    return child, ours


def stop(child: Child | Cold, times: int, number: int = signal.SIGINT) -> None:
    """Send signals as a key that is held down does."""
    for _ in range(times):
        child.send_signal(number)
        time.sleep(0.03)


def ended(child: Child | Cold) -> tuple[int, str]:
    """The exit code, and what was said on stderr: never a traceback."""
    code, _, err = child.ended()
    assert "Traceback" not in err and "Exception ignored" not in err, err
    return code, err


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the database that the run is recorded in, to lock it with."""
    Store.open(tmp_path / "runs.db")
    connection = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    yield connection
    connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_finished_result_is_saved_by_a_stop_while_it_waits(
    tmp_path: Path, locked: sqlite3.Connection, number: int
) -> None:
    child, line = held(tmp_path, "end")
    locked.execute("BEGIN IMMEDIATE")
    line.send("go on")
    time.sleep(0.5)
    stop(child, 5, number)
    code, err = ended(child)
    locked.execute("ROLLBACK")
    (file,) = tmp_path.glob("streamcli-unrecorded-*.jsonl")
    assert code == 130 and err.count("\n") == 1, err
    assert f"interrupted. The result of run {file.stem[-26:]} is in {file}; to add it:" in err
    store = Store.open(tmp_path / "runs.db")
    assert store.reap(process.ended) == [file.stem[-26:]]


# A stop that comes while an object is finalized, where Python drops what is raised.
SWALLOWED = """
import signal, time
from streamcli.jobs import signals
signals.listen()
class Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0)
Finalized()
try:
    time.sleep(60)
except KeyboardInterrupt:
    raise SystemExit(7)
"""


def test_a_stop_that_python_drops_comes_again(tmp_path: Path) -> None:
    assert ended(Cold(tmp_path, "-c", SWALLOWED)) == (7, "")


# A stop in what the C++ calls with which torch prepares its distributed part.
WHILE_TORCH_LOADS = """
import signal, sys, time
from streamcli.jobs import signals
signals.listen()
def look(frame, event, _):
    file = frame.f_back.f_code.co_filename if frame.f_back else ""
    if frame.f_code.co_name == "_lock_unlock_module" and file.endswith("distributed/__init__.py"):
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)
sys.setprofile(look)
try:
    import torch
    time.sleep(60)
except KeyboardInterrupt:
    raise SystemExit(7 if "torch" in sys.modules else 8)
"""


def test_a_stop_while_torch_is_imported_waits_until_it_is(tmp_path: Path) -> None:
    assert ended(Cold(tmp_path, "-c", WHILE_TORCH_LOADS)) == (7, "")


def test_keys_held_down_interrupt_a_run_once(tmp_path: Path) -> None:
    child, line = held(tmp_path, "middle")
    line.send("go on")
    stop(child, 8)
    code, err = ended(child)
    assert code == 130 and err.count("\n") == 1 and "is recorded as such" in err
    assert list(frames.runs(Store.open(tmp_path / "runs.db"), status=None)["status"]) == [
        "interrupted"
    ]


def test_stops_that_follow_each_other_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_last", {"s": -math.inf})
    for at_s, raised in ((10.0, True), (10.3, False), (10.9, False), (11.1, True)):
        monkeypatch.setattr(time, "monotonic", lambda at_s=at_s: at_s)
        with pytest.raises(KeyboardInterrupt) if raised else nullcontext():
            signals._stop(signal.SIGINT, None)


def test_a_second_stop_ends_what_takes_too_long(tmp_path: Path, locked: sqlite3.Connection) -> None:
    child, line = held(tmp_path, "middle")
    locked.execute("BEGIN IMMEDIATE")
    line.send("go on")
    stop(child, 1)
    time.sleep(1.3)
    waits = child.process.is_alive()
    stop(child, 1)
    code, err = ended(child)
    locked.execute("ROLLBACK")
    assert waits, "it waits for the database"
    assert (code, err) == (130, "streamcli: interrupted.\n")
    store = Store.open(tmp_path / "runs.db")
    assert store.reap(process.ended) == list(frames.runs(store, status=None)["run_id"])


@pytest.mark.parametrize("after_s", [0.1, 0.6, 2.4])
def test_a_stop_as_a_command_starts_shows_no_traceback(tmp_path: Path, after_s: float) -> None:
    child = Cold(tmp_path, "-c", ANY, *RUN)
    assert child.process.stdout and child.process.stdout.readline().strip() == TOLD
    time.sleep(after_s)
    stop(child, 8)
    code, err = ended(child)
    assert code in (130, -signal.SIGINT), err


def test_a_stop_as_a_run_begins_shows_no_traceback(tmp_path: Path) -> None:
    child, db = children.streamcli(tmp_path, *RUN, "--repeats", "1000"), tmp_path / "runs.db"
    while not db.exists() or frames.runs(Store.open(db), status=None).empty:
        time.sleep(0.1)
        assert child.process.is_alive(), ended(child)
    stop(child, 8)
    code, err = ended(child)
    assert code in (130, -signal.SIGINT), err
    assert set(frames.runs(Store.open(db), status=None)["status"]) <= {"done", "interrupted"}


def piped(file: str, *words: str) -> None:
    os.dup2(os.open(file, os.O_RDONLY), 0)
    forked.become(*words)


@pytest.mark.parametrize("words", [("generate", "A lighthouse"), ("chat",)], ids=lambda w: w[0])
def test_ctrl_c_ends_what_is_piped_between_two_tokens(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """What was written stays, one line says so, and the exit code is that of an interrupt."""
    (tmp_path / "piped").write_text("Hello\n" * 3)
    small = ("--model", "bundled", "--threads", "1", "--window", "20", "--engine", "eager")
    child = Child(tmp_path, piped, "piped", *words, *small, "--max-new-tokens", "100000")
    while len(seen := child.said()) < 60:
        time.sleep(0.05)
        assert child.process.is_alive(), child.ended()
    child.send_signal(signal.SIGINT)
    code, out, err = child.ended()
    assert code == 130 and out.startswith(seen) and out.endswith("\n")
    assert err.splitlines()[-1].startswith("streamcli: interrupted") and "Traceback" not in err
