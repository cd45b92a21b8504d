"""Real signals to real processes: nothing that was finished is lost, and no traceback is shown."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import process
from streamcli.results import frames
from streamcli.results.store import Store
from streamcli.settings import PREFIX

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
RUN = (
    *("run", "--model", "bundled", "--dataset", "bundled-narrative", "--max-tokens", "90"),
    *("--window", "20", "--mode", "chunked", "--threads", "1", "--db", "runs.db"),
)
TOLD = "told"
# A run that tells when it is in the middle of scoring or at its end, and then waits for a word.
CODE = f"""
import sys, time
from core import runner
from streamcli.__main__ import main
where, *words = sys.argv[1:]
execute = runner.execute
def executed(prepared, meter):
    result = execute(prepared, meter) if where == "end" else None
    print({TOLD!r}, flush=True)
    sys.stdin.readline()
    while where == "middle":
        time.sleep(0.01)
    return result
runner.execute = executed
sys.argv = ["streamcli", *words]
main()
"""
# The command, told of when Python itself has started and the first statement of ours is done.
ANY = f"""
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
print({TOLD!r}, flush=True)
from streamcli.__main__ import main
main()
"""


class Child:
    """A command in a process of its own, and the lines that it says."""

    def __init__(self, folder: Path, *command: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**env, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def until_told(self) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline().strip() == TOLD

    def go_on(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def stop(self, times: int, number: int = signal.SIGINT) -> None:
        """Send signals as a key that is held down does."""
        for _ in range(times):
            self.process.send_signal(number)
            time.sleep(0.03)

    def ended(self, within_s: float = 100) -> tuple[int, str]:
        """The exit code, and what was said on stderr: never a traceback."""
        _, err = self.process.communicate(timeout=within_s)
        assert "Traceback" not in err and "Exception ignored" not in err, err
        return self.process.returncode, err


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
    child = Child(tmp_path, "-c", CODE, "end", *RUN)
    child.until_told()
    locked.execute("BEGIN IMMEDIATE")
    child.go_on()
    time.sleep(0.5)
    child.stop(5, number)
    code, err = child.ended()
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
    assert Child(tmp_path, "-c", SWALLOWED).ended(within_s=30) == (7, "")


def test_keys_held_down_interrupt_a_run_once(tmp_path: Path) -> None:
    child = Child(tmp_path, "-c", CODE, "middle", *RUN)
    child.until_told()
    child.go_on()
    child.stop(8)
    code, err = child.ended()
    assert code == 130 and err.count("\n") == 1 and "is recorded as such" in err
    assert list(frames.runs(Store.open(tmp_path / "runs.db"), status=None)["status"]) == [
        "interrupted"
    ]


def test_a_second_stop_ends_what_takes_too_long(tmp_path: Path, locked: sqlite3.Connection) -> None:
    child = Child(tmp_path, "-c", CODE, "middle", *RUN)
    child.until_told()
    locked.execute("BEGIN IMMEDIATE")
    child.go_on()
    child.stop(1)
    time.sleep(1.3)
    began = child.process.poll()
    child.stop(1)
    code, err = child.ended(within_s=15)
    locked.execute("ROLLBACK")
    assert began is None, "it waits for the database"
    assert (code, err) == (130, "streamcli: interrupted.\n")
    store = Store.open(tmp_path / "runs.db")
    assert store.reap(process.ended) == list(frames.runs(store, status=None)["run_id"])


@pytest.mark.parametrize("after_s", [0.1, 0.3, 0.6, 1.2, 2.4, 4.8])
def test_a_stop_at_any_moment_shows_no_traceback(tmp_path: Path, after_s: float) -> None:
    child = Child(tmp_path, "-c", ANY, *RUN, "--repeats", "1000")
    child.until_told()
    time.sleep(after_s)
    child.stop(3)
    code, err = child.ended()
    assert code in (130, -signal.SIGINT), err
    db = tmp_path / "runs.db"
    if db.exists():
        assert set(frames.runs(Store.open(db), status=None)["status"]) <= {"done", "interrupted"}
