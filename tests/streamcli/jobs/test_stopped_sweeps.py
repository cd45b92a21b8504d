"""Sweeps that are killed, stopped or two at once: what they leave, and what goes on from there."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from core import environment, process
from core.config import RunConfig
from core.facts import RunFacts
from streamcli.results import frames
from streamcli.results.store import Store
from tests.support import forked
from tests.support.children import Child
from tests.support.sweeps import TWO, rows, window_raises
from tests.support.typed import Type

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.slow]

ROOT = Path(__file__).parents[3]


def test_an_interrupted_sweep_says_that_it_goes_on(typed: Type) -> None:
    with window_raises(KeyboardInterrupt()):
        code, out, err = typed(*TWO)
        again = typed(*TWO, "--force")
    assert (code, out) == (130, "")
    assert "recorded as such. What is done is kept; the same command goes on from here." in err
    assert list(rows()["status"]) == ["done", "interrupted"] * 2
    assert "with --force it begins anew" in again.err


class Ended(NamedTuple):
    """A scenario of ``tests.support.forked``: exit codes, what was said, and the database."""

    codes: list[int]
    said: str
    db: Path


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """All of them."""
    folder = tmp_path_factory.mktemp("forked")
    code, out, err = Child(folder, forked.play).ended()
    assert code == 0 and "Traceback" not in err, err
    codes, said = json.loads(out), err.split(forked.END)
    return {
        name: Ended(codes[name], words, folder / f"{name}.db")
        for name, words in zip(forked.SCENARIOS, said, strict=False)
    }


def whole(db: Path) -> None:
    with sqlite3.connect(db) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    store = Store.open(db)
    for run_id in rows(db).query("status == 'done'")["run_id"]:
        assert len(store.trace(run_id)[0]) == 59
    assert set(rows(db)["status"]) <= {"done", "interrupted"}


def test_a_sweep_killed_over_and_over_ends_with_every_run_exactly_once(
    scenarios: dict[str, Ended],
) -> None:
    codes, _, db = scenarios["killed"]
    assert codes.count(-signal.SIGKILL) == forked.KILLS
    assert codes[-1] == 0
    done = rows(db).query("status == 'done'")
    assert len(done) == 6 * forked.REPEATS
    assert not done.duplicated(["config_key", "repeat"]).any()
    assert done["config_key"].nunique() == 6
    whole(db)


def test_what_is_stopped_says_interrupted_and_a_sweep_goes_on(
    scenarios: dict[str, Ended],
) -> None:
    codes, said, db = scenarios["stopped"]
    assert codes == [130, 130, 130, 0] and "the same command goes on from here" in said
    assert said.count("streamcli: interrupted; run ") >= 2
    for number in (signal.SIGINT, signal.SIGTERM):
        assert list(rows(f"{db}.{number}")["status"]) == ["interrupted"]
    by_status = rows(db)["status"].value_counts()
    assert by_status["done"] == 6 and by_status.get("interrupted", 0) <= 1
    whole(db)


def test_two_sweeps_at_once_lose_nothing(scenarios: dict[str, Ended]) -> None:
    codes, said, db = scenarios["together"]
    assert codes == [0, 0]
    made = [int(count) for count in re.findall(r"\d+ runs: (\d+) done", said)]
    found = rows(db)
    assert sorted(made) == sorted(found["sweep"].value_counts()) and len(made) == 2
    assert set(found["status"]) == {"done"}
    assert found["config_key"].nunique() == 5 and min(found["config_key"].value_counts()) >= 4
    whole(db)


def test_only_runs_whose_process_has_surely_ended_become_interrupted(home: Path) -> None:
    store = Store.open(home / "runs.db")
    here = environment.describe()
    child = subprocess.run(
        [sys.executable, "-c", "from core import process; print(process.name())"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    config = RunConfig(window=20, max_tokens=9, threads=1).fitted(512)
    facts = RunFacts(requested_model="bundled", requested_dataset="wikitext")
    began = {
        "alive": here,
        "dead": replace(here, process=child.stdout.strip()),
        "of an older version": replace(here, pid=2**22 + 1, process=None),
    }
    names = {what: store.begin(config, facts, there, 0) for what, there in began.items()}
    assert store.reap(process.ended) == [names["dead"]]
    assert set(frames.runs(store, status="interrupted")["run_id"]) == {names["dead"]}
    assert store.reap(process.ended) == []
