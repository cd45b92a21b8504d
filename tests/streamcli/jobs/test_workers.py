"""Any number of workers share one plan: every run is made once, whatever becomes of them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from core import process
from streamcli.jobs.claims import queue_of
from streamcli.results import frames
from streamcli.results.queue import DONE, OVER, Queue
from streamcli.results.store import Store
from tests.support import workers
from tests.support.children import Child, streamcli
from tests.support.sweeps import TWO
from tests.support.typed import Type

pytestmark = pytest.mark.slow

THREE = (*TWO, "dense")
KEY = ["dataset", "batch_size", "method", "repeat"]


def test_four_workers_killed_at_random_make_every_run_once(where: str, tmp_path: Path) -> None:
    code, out, err = Child(tmp_path, workers.killed, where).ended()
    assert code == 0 and "Traceback" not in err, err
    ends = json.loads(out)
    assert ends.count(-signal.SIGKILL) > 2 and set(ends) == {0, -signal.SIGKILL}, err
    store = Store.open(where)
    runs = frames.runs(store, status=None)
    made = runs.query("status == 'done'")
    assert len(made) == workers.RUNS and not made.duplicated(KEY).any()
    assert set(runs["status"]) <= {"done", "interrupted"}
    groups = queue_of(store).groups()
    assert {each.state for each in groups} == {OVER} and len(groups) == workers.GROUPS
    named = {ended.what for each in groups for ended in each.ended.values()}
    assert named == set(made["run_id"])
    for _, each in made.groupby(["dataset", "batch_size"]):
        assert each["sweep"].nunique() == 1


def test_a_queue_is_filled_looked_at_worked_off_and_emptied(typed: Type) -> None:
    code, out, err = typed(*THREE, "--enqueue", "--repeats", "2")
    assert (code, out) == (0, "") and "6 runs of sweep " in err and "next: streamcli worker" in err
    assert "6 runs waited there already." in typed(*THREE, "--enqueue", "--repeats", "2").err
    assert typed("worker", "--status").out.split()[-7:] == ["6", "0", "0", "0", "6", "0", "-"]
    assert "has no run of a sweep 01J." in typed("worker", "--status", "--sweep", "01J").err
    code, _, err = typed("worker")
    assert code == 0 and "1 group of runs: 6 done." in err
    assert typed("worker", "--status").out.split()[-7:] == ["6", "6", "0", "0", "0", "0", "-"]
    assert "0 runs that waited are out of the queue." in typed("worker", "--clear").err
    assert "is empty: streamcli sweep --enqueue fills it" in typed("worker", "--status").err
    typed(*THREE, "--enqueue", "--repeats", "2")
    assert "1 group of runs: 6 finished before." in typed("worker").err
    typed(*THREE, "--enqueue", "--force")
    assert "3 runs that waited are out of the queue." in typed("worker", "--clear").err
    assert len(frames.runs(Store.open("data/streamcli.db"), status=None)) == 6


def test_what_another_machine_has_finished_a_worker_does_not_make_again(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(*THREE)
    monkeypatch.setattr("platform.node", lambda: "another")
    typed(*THREE, "--enqueue")
    assert "1 group of runs: 3 finished before." in typed("worker").err


def test_a_sweep_takes_what_waits_and_leaves_what_a_worker_has(typed: Type) -> None:
    typed(*THREE[:-1], "--enqueue")
    store = Store.open("data/streamcli.db")
    other = Queue(store, "there", None, process.ended)
    assert other.claim()
    code, _, err = typed(*THREE)
    assert code == 0
    assert "3 runs: 1 done, 2 left to other processes, which make them." in err
    other.release()
    assert "3 runs: 2 done, 1 finished on this machine before" in typed(*THREE).err
    (group,) = other.groups()
    assert group.state == OVER and {each.how for each in group.ended.values()} == {DONE}
    assert len(frames.runs(store, status=None)) == 3
    assert "0 groups of runs: none made." in typed("worker").err


def test_what_workers_without_a_server_made_is_merged(typed: Type, home: Path, where: str) -> None:
    plan = {"a.db": ["streaming", "window"], "b.db": ["dense"]}  # half each, by a worker each
    for name, methods in plan.items():
        assert typed(*THREE[:-3], *methods, "--enqueue", "--db", name).code == 0
    each = [streamcli(home, "worker", "--db", name) for name in plan]
    assert [child.ended()[0] for child in each] == [0, 0]
    for turn in range(2):
        for name in plan:
            done = typed("db", "merge", name, "--db", where)
            assert done.code == 0 and ("were here already" in done.err) is (turn > 0)
    runs = frames.runs(Store.open(where), status=None)
    assert sorted(runs["method"]) == ["dense", "streaming", "window"]
    assert set(runs["status"]) == {"done"}
    assert runs["sweep"].nunique() == runs["process"].nunique() == 2
    assert "is empty" in typed("worker", "--status", "--db", where).err
    assert typed("db", "check", "--db", where).code == 0
    assert queue_of(Store.open("a.db")).groups()[0].state == OVER  # only read


def test_a_failed_run_is_in_the_queue_with_its_reason(typed: Type, no_kvpress: None) -> None:
    typed(*THREE[:-4], "--methods", "kvpress", "dense", "--enqueue")
    code, _, err = typed("worker")
    assert code == 1 and "1 group of runs: 1 done, 1 failed." in err
    out = typed("worker", "--status").out
    assert "1 failed: the package kvpress is not installed" in out


def test_an_interrupted_worker_gives_back_what_it_had(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core import runner

    execute = runner.execute

    def stops(prepared: object, meter: object) -> object:
        raise KeyboardInterrupt

    typed(*THREE, "--enqueue")
    monkeypatch.setattr(runner, "execute", stops)
    code, _, err = typed("worker")
    assert code == 130 and "What it had claimed waits for other workers." in err
    assert typed("worker", "--status").out.split()[-7:] == ["3", "0", "0", "0", "3", "0", "-"]
    monkeypatch.setattr(runner, "execute", execute)
    assert "1 group of runs: 3 done." in typed("worker").err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sweep", "--executor", "nothing", "--workers", "2"), "executor"),
        (("sweep", "--enqueue", "--workers", "2"), "leave --workers out"),
        (("sweep", "--enqueue", "--dry-run"), "leave --dry-run out"),
        (("worker", "--status", "--clear"), "give one of them"),
        (("worker", "--status", "--forever"), "leave it out"),
        (("worker", "--db", "none.db"), "there is no database"),
    ],
)
def test_what_does_not_go_together_is_refused(
    typed: Type, words: tuple[str, ...], told: str
) -> None:
    assert typed(*words).refuses(2, told)
