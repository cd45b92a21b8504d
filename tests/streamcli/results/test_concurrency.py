"""Many processes at one database lose nothing, and one that is killed leaves nothing half done."""

from __future__ import annotations

import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.config import RunConfig
from core.environment import Environment
from core.facts import RunFacts
from core.result import RunResult
from streamcli.results import frames
from streamcli.results.store import Store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PROCESSES = 4
RUNS = 25
TOKENS = 100_000

# Says "ready", waits for a line, opens the place, records runs and prints how many.
RECORDER = """
import os, pickle, signal, sys
from sqlalchemy import event
from sqlmodel import Session
from streamcli.results.store import Store
where, runs, die = sys.argv[1], int(sys.argv[2]), sys.argv[3]
config, facts, environment, result = pickle.load(sys.stdin.buffer)
print("ready", flush=True)
sys.stdin.buffer.readline()
store = Store.open(where)
if die == "before-commit":
    def kill(session):
        if any(type(found).__name__ == "Trace" for found in session.identity_map.values()):
            os.kill(os.getpid(), signal.SIGKILL)
    event.listen(Session, "before_commit", lambda session: (session.flush(), kill(session)))
for repeat in range(runs):
    store.finish(store.begin(config, facts, environment, repeat), result)
print(store.place, flush=True)
"""


@pytest.fixture
def parts(
    config: RunConfig, facts: RunFacts, environment: Environment, result: RunResult
) -> tuple[RunConfig, RunFacts, Environment, RunResult]:
    """What a recorder records; traces that don't compress, so that a write takes its time."""
    noise = np.random.default_rng(0).random(TOKENS, dtype=np.float32)
    return config, facts, environment, replace(result, nll=noise)


def start(where: str, runs: int, parts: object, die: str = "-") -> subprocess.Popen[bytes]:
    """A recorder that is about to be ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", RECORDER, where, str(runs), die],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    process.stdin.write(pickle.dumps(parts))
    process.stdin.flush()
    return process


def go(processes: list[subprocess.Popen[bytes]]) -> None:
    """Let all begin at once."""
    for process in processes:
        assert process.stdout and process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write(b"\n")
        process.stdin.flush()


def whole(where: str, tokens: int = TOKENS) -> None:
    """No finished run lacks anything, no other has anything, and SQLite finds no damage."""
    store = Store.open(where)
    runs = frames.runs(store, status=None, columns=["run_id", "status"])
    assert set(runs.status) <= {"done", "running"}
    for run_id, status in runs.values.tolist():
        assert len(frames.documents(store, [run_id])) == (2 if status == "done" else 0)
        if status == "done":
            assert len(store.trace(run_id)[0]) == tokens
    if store.engine.dialect.name == "sqlite":
        connection = sqlite3.connect(where)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.close()


def test_processes_that_open_a_fresh_database_at_once_lose_no_run(
    where: str, parts: tuple[object, ...], result: RunResult
) -> None:
    processes = [start(where, RUNS, (*parts[:3], result)) for _ in range(PROCESSES)]
    go(processes)
    for process in processes:
        _, problem = process.communicate()
        assert process.returncode == 0, problem.decode()
    runs = frames.runs(Store.open(where))
    assert len(runs) == runs.run_id.nunique() == PROCESSES * RUNS
    assert runs.repeat.value_counts().tolist() == [PROCESSES] * RUNS
    whole(where, tokens=len(result.nll))


def test_a_process_killed_before_it_commits_leaves_the_run_running(
    where: str, parts: tuple[object, ...]
) -> None:
    process = start(where, 1, parts, "before-commit")
    go([process])
    _, problem = process.communicate()
    assert process.returncode == -signal.SIGKILL, problem.decode()
    assert frames.runs(Store.open(where), status=None).status.tolist() == ["running"]
    whole(where)


def test_processes_killed_at_any_time_leave_the_database_whole(
    where: str, parts: tuple[object, ...]
) -> None:
    processes = [start(where, 10_000, parts) for _ in range(3)]
    go(processes)
    while frames.runs(Store.open(where)).empty:
        assert not any(process.poll() for process in processes), processes[0].communicate()
        time.sleep(0.05)
    for process in processes:
        time.sleep(0.137)
        process.kill()
        process.communicate()
        Store.open(where)
    whole(where)
