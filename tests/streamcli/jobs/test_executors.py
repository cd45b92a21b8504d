"""Whatever starts the workers of a sweep, each run is made once, and nobody reads the password."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest

from streamcli.jobs import executors
from streamcli.results import frames
from streamcli.results.store import Store
from streamcli.settings import PREFIX
from tests.support.typed import Type

pytest_plugins = ("tests.support.typed",)
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PLAN = (
    *("--models", "bundled", "--datasets", "bundled-narrative", "bundled-encyclopedia"),
    *("--modes", "chunked", "--max-tokens", "60", "--windows", "20", "--threads", "1"),
    *("--methods", "streaming", "window", "dense", "--repeats", "2"),
)
RUNS = 12
LONG = (*PLAN[:7], "--windows", "250", "--max-tokens", "9000", "--threads", "1")
CELL = ["dataset", "method", "repeat"]


def sweep(folder: Path, *words: str, **more: str) -> subprocess.Popen[str]:
    """A sweep in a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "streamcli", "sweep", *words],
        cwd=folder,
        env={**env, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def made(where: str | Path) -> pd.DataFrame:
    """The finished runs, each once."""
    runs = frames.runs(Store.open(where), status=None, sort="run_id")
    done = runs[runs["status"] == "done"]
    assert len(done) == RUNS and not done.duplicated(CELL).any()
    assert set(runs["status"]) <= {"done", "interrupted"}
    return done


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    return [each for each in found if "worker" in each.cmdline()]


@pytest.fixture
def two_cores() -> Iterator[None]:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two workers take two cores")
    yield


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("executor", ["local", "submitit"])
def test_workers_make_each_run_once_though_one_is_killed(tmp_path: Path, executor: str) -> None:
    if not (killed := executor == "local"):
        pytest.importorskip(executor)
    process = sweep(tmp_path, *PLAN, "--workers", "2", "--executor", executor)
    while killed and not (workers := workers_of(process)):
        time.sleep(0.01)
    if killed:
        workers[0].kill()
    out, err = process.communicate()
    assert process.returncode == 0 and "Traceback" not in err, err
    assert f"{RUNS} runs: {RUNS} done." in err, err
    assert f"{RUNS}/{RUNS} " in err and "perplexity" in out
    assert ("a worker was ended by signal 9; another takes its place." in err) is killed
    assert made(tmp_path / "data" / "streamcli.db")["process"].nunique() <= 2 + killed
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    again = sweep(tmp_path, *PLAN, "--workers", "1", "--executor", executor).communicate()[1]
    assert f"{RUNS} runs: {RUNS} finished before (--force runs them again)." in again, again
    made(tmp_path / "data" / "streamcli.db")


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("executor", ["local", "submitit"])
def test_a_stop_ends_the_workers_and_empties_the_queue(
    tmp_path: Path, typed: Type, executor: str
) -> None:
    if executor != "local":
        pytest.importorskip(executor)
    db = tmp_path / "data" / "streamcli.db"
    how = ("--workers", "2", "--executor", executor)
    process = sweep(tmp_path, *LONG, "--methods", "recompute", *how)
    while not db.exists() or (frames.runs(Store.open(db), status="running").empty):
        time.sleep(0.5)
        assert process.poll() is None, process.communicate()
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    err = process.communicate()[1]
    assert process.returncode == 130 and "the same command goes on from here" in err, err
    assert "Traceback" not in err, err
    assert workers and not any(each.is_running() for each in workers)
    assert set(frames.runs(Store.open(db), status=None)["status"]) == {"interrupted"}
    assert "is empty" in typed("worker", "--status").err


def test_too_many_workers_are_refused_and_leave_nothing(typed: Type) -> None:
    done = typed("sweep", *PLAN, "--workers", "999")
    assert done.code == 2 and "--workers is 999, of 1 thread each, but there are" in done.err
    assert "is empty" in typed("worker", "--status").err


def test_a_job_that_raises_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")

    class Broken:
        def done(self) -> bool:
            return True

        def result(self) -> int:
            raise RuntimeError("no such file: model\nand a trace")

    class Log:
        def lines(self) -> list[str]:
            return ["from its log"]

    monkeypatch.setattr(executors, "_Log", Log)
    job = executors._Submitted(Broken(), executors._Log(), here=True)  # type: ignore[call-arg]
    assert job.ended() == 1
    assert job.said() == ["from its log", "a worker failed: no such file: model."]


@pytest.mark.parametrize(
    "ended", ["echo CANCELLED", "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1"]
)
def test_a_job_of_slurm_that_left_no_result_is_seen_to_have_ended_without_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    pytest.importorskip("submitit")

    def answers(words: str) -> None:
        (tmp_path / "squeue").write_text(f"#!/bin/sh\n{words}\n")
        (tmp_path / "squeue").chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(executors, "LOOK_S", 0)
    paths = SimpleNamespace(result_pickle=tmp_path / "none")
    job = executors._Submitted(
        SimpleNamespace(job_id="7", paths=paths), executors._Log(tmp_path / "log"), here=False
    )
    for going_on in ("echo PENDING", "echo RUNNING", "echo no answer >&2; exit 1"):
        answers(going_on)
        assert job.ended() is None
    answers(ended)
    assert [job.ended(), job.ended()] == [None, -signal.SIGKILL]


def test_an_engine_that_is_not_installed_is_named(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamcli.jobs.executors.find_spec", lambda _: None)
    done = typed("sweep", *PLAN, "--workers", "2", "--executor", "ray")
    assert done.code == 2 and 'pip install "streamcli[ray]"' in done.err


@pytest.mark.parametrize("executor", ["local", "submitit"])
def test_a_password_is_in_no_argument_log_or_file_that_others_read(
    tmp_path: Path, schema: str, executor: str
) -> None:
    if executor != "local":
        pytest.importorskip(executor)
    url = schema.replace("postgres@", "postgres:hunter2@")  # which a server that trusts takes
    process = sweep(
        tmp_path, *PLAN, "--workers", "1", "--executor", executor, STREAMCLI_DATABASE_URL=url
    )
    seen = set[str]()
    while process.poll() is None:
        time.sleep(0.05)
        try:
            every = psutil.Process(process.pid).children(recursive=True)
            seen |= {word for each in every for word in each.cmdline()}
        except psutil.Error:
            continue
        for path in tmp_path.rglob("*"):
            try:
                held = path.is_file() and b"hunter2" in path.read_bytes()
                assert not held or path.stat().st_mode & 0o077 == 0, path
            except FileNotFoundError:
                continue
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert seen and "hunter2" not in " ".join([*seen, out, err])
    made(schema)


@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_ray_cluster_that_loses_a_node_makes_each_run_once_and_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    local = tmp_path / "local"
    local.mkdir()
    assert "12 done" in sweep(local, *PLAN).communicate()[1]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        lost = cluster.add_node(num_cpus=1)
        words = ("--workers", "2", "--executor", "ray")
        process = sweep(tmp_path, *PLAN, *words, RAY_ADDRESS=cluster.address)
        db = tmp_path / "data" / "streamcli.db"
        while not db.exists() or frames.runs(Store.open(db), status=None).empty:
            time.sleep(0.5)
            assert process.poll() is None, process.communicate()
        cluster.remove_node(lost, allow_graceful=False)
        err = process.communicate()[1]
        assert process.returncode == 0, err
    finally:
        cluster.shutdown()
    mine, theirs = made(db), made(local / "data" / "streamcli.db")
    both = mine.merge(theirs, on=CELL, suffixes=("", "_local"))
    assert len(both) == RUNS and (both["nll_nats"] == both["nll_nats_local"]).all()
