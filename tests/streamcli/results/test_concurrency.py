"""Many processes at one database lose nothing, and one that is killed leaves nothing half done."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event
from sqlmodel import Session

from core.config import RunConfig
from core.environment import Environment
from core.facts import RunFacts
from core.result import RunResult
from streamcli.results import frames
from streamcli.results.store import Store
from tests.support.children import Child

pytestmark = pytest.mark.slow

PROCESSES = 4
RUNS = 25
TOKENS = 100_000

Parts = tuple[RunConfig, RunFacts, Environment, RunResult]


def record(line: Connection, where: str, runs: int, parts: Parts, die: bool) -> None:
    """Say that all is ready, wait for a word, open the place and record runs."""
    line.send("ready")
    line.recv()
    store = Store.open(where)

    def kill(session: Session) -> None:
        session.flush()
        if any(type(found).__name__ == "Trace" for found in session.identity_map.values()):
            os.kill(os.getpid(), signal.SIGKILL)

    if die:
        event.listen(Session, "before_commit", kill)
    config, facts, environment, result = parts
    for repeat in range(runs):
        store.finish(store.begin(config, facts, environment, repeat), result)


@pytest.fixture
def parts(config: RunConfig, facts: RunFacts, environment: Environment, result: RunResult) -> Parts:
    """What a recorder records; traces that don't compress, so that a write takes its time."""
    noise = np.random.default_rng(0).random(TOKENS, dtype=np.float32)
    return config, facts, environment, replace(result, nll=noise)


def start(folder: Path, number: int, where: str, runs: int, parts: Parts, die: bool) -> list[Child]:
    """So many processes that record, all of which begin at once."""
    started = []
    for _ in range(number):
        ours, theirs = Pipe()
        started.append((Child(folder, record, theirs, where, runs, parts, die), ours))
        theirs.close()
    for _, line in started:
        assert line.recv() == "ready"
    for _, line in started:
        line.send("go on")
    return [child for child, _ in started]


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
    where: str, parts: Parts, result: RunResult, tmp_path: Path
) -> None:
    for child in start(tmp_path, PROCESSES, where, RUNS, (*parts[:3], result), die=False):
        code, _, problem = child.ended()
        assert code == 0, problem
    runs = frames.runs(Store.open(where))
    assert len(runs) == runs.run_id.nunique() == PROCESSES * RUNS
    assert runs.repeat.value_counts().tolist() == [PROCESSES] * RUNS
    whole(where, tokens=len(result.nll))


def test_a_process_killed_before_it_commits_leaves_the_run_running(
    where: str, parts: Parts, tmp_path: Path
) -> None:
    (child,) = start(tmp_path, 1, where, 1, parts, die=True)
    code, _, problem = child.ended()
    assert code == -signal.SIGKILL, problem
    assert frames.runs(Store.open(where), status=None).status.tolist() == ["running"]
    whole(where)


def test_processes_killed_at_any_time_leave_the_database_whole(
    where: str, parts: Parts, tmp_path: Path
) -> None:
    children = start(tmp_path, 3, where, 10_000, parts, die=False)
    while frames.runs(Store.open(where)).empty:
        assert all(child.process.is_alive() for child in children), children[0].ended()
        time.sleep(0.05)
    for child in children:
        time.sleep(0.137)
        child.send_signal(signal.SIGKILL)
        child.ended()
        Store.open(where)
    whole(where)
