"""Whatever starts the workers of a sweep, each run is made once, and nobody reads the password."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pandas as pd
import psutil
import pytest

from streamcli.jobs import executors
from streamcli.results import frames
from streamcli.results.store import Store
from tests.support.children import Child, environment, streamcli
from tests.support.databases import new_schema
from tests.support.typed import Type

pytestmark = pytest.mark.slow

PLAN = (
    *("--models", "bundled", "--datasets", "bundled-narrative", "bundled-encyclopedia"),
    *("--modes", "chunked", "--max-tokens", "60", "--windows", "20", "--threads", "1"),
    *("--methods", "streaming", "window", "dense", "--repeats", "2"),
)
RUNS = 12
LONG = (
    *(*PLAN[:5], "--modes", "decode-loop", "--windows", "250"),
    *("--max-tokens", "9000", "--threads", "1"),
)
CELL = ["dataset", "method", "repeat"]
PASSWORD = "hunter2"


def made(where: str | Path) -> pd.DataFrame:
    """The finished runs, each once."""
    runs = frames.runs(Store.open(where), status=None, sort="run_id")
    done = runs[runs["status"] == "done"]
    assert len(done) == RUNS and not done.duplicated(CELL).any()
    assert set(runs["status"]) <= {"done", "interrupted"}
    return done


class Swept(NamedTuple):
    """A sweep by workers: how it ended, what it started, and what others could see of it."""

    place: str
    folder: Path
    ended: tuple[int, str, str]
    started: set[psutil.Process]
    words: set[str]
    shown: set[Path]


def swept(folder: Path, place: str, meanwhile: Callable[[Child], bool], *words: str) -> Swept:
    """Of a process whose database is ``place``; ``meanwhile`` is called until it is true."""
    child = streamcli(folder, "sweep", *words, STREAMCLI_DATABASE_URL=place)
    started, told, shown, done = set[psutil.Process](), set[str](), set[Path](), False
    while child.process.is_alive():
        time.sleep(0.2)
        done = done or meanwhile(child)
        with suppress(psutil.Error):
            started |= (every := set(psutil.Process(child.pid).children(recursive=True)))
            told |= {word for each in every for word in each.cmdline()}
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):
                held = path.is_file() and PASSWORD in path.read_text(errors="ignore")
                shown |= {path} if held and path.stat().st_mode & 0o077 else set()
    return Swept(place, folder, child.ended(), started, told, shown)


@pytest.fixture(scope="module", params=["local", "submitit"])
def executor(request: pytest.FixtureRequest) -> str:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two workers take two cores")
    if request.param != "local":
        pytest.importorskip(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def served(server: str, executor: str) -> Iterator[str]:
    """The URL of a database for this one, with a password, which a server that trusts takes."""
    with new_schema(server) as url:
        yield url.replace("postgres@", f"postgres:{PASSWORD}@")


@pytest.fixture(scope="module")
def finished(executor: str, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Swept:
    """A sweep by two workers, of which one of the local ones is killed."""
    folder, local = tmp_path_factory.mktemp("finished"), executor == "local"
    place = request.getfixturevalue("served") if local else str(folder / "runs.db")

    def kill(sweep: Child) -> bool:
        for each in psutil.Process(sweep.pid).children() if local else ():
            if "worker" in each.cmdline():
                each.kill()
                return True
        return not local

    return swept(folder, place, kill, *PLAN, "--workers", "2", "--executor", executor)


@pytest.fixture(scope="module")
def stopped(executor: str, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Swept:
    """A sweep of two groups of runs that is stopped in the first run, by one worker or by two."""
    folder, local = tmp_path_factory.mktemp("stopped"), executor == "local"
    place = str(folder / "runs.db") if local else request.getfixturevalue("served")

    def stop(sweep: Child) -> bool:
        begun = not frames.runs(Store.open(place), status="running").empty
        if begun:
            sweep.send_signal(signal.SIGINT)
        return begun

    how = ("--workers", "2" if local else "1", "--executor", executor)
    return swept(folder, place, stop, *LONG, "--methods", "recompute", *how)


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended, be it that nobody has asked how it did."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def test_workers_make_each_run_once_though_one_is_killed(finished: Swept, executor: str) -> None:
    killed = executor == "local"
    code, out, err = finished.ended
    assert code == 0 and "Traceback" not in err, err
    assert f"{RUNS} runs: {RUNS} done." in err, err
    assert f"{RUNS}/{RUNS} " in err and "perplexity" in out
    assert ("a worker was ended by signal 9; another takes its place." in err) is killed
    assert made(finished.place)["process"].nunique() <= 2 + killed
    assert {path.name for path in finished.folder.iterdir()} <= {"runs.db"}


@pytest.mark.usefixtures("workers_here")
def test_what_workers_have_finished_no_worker_makes_again(finished: Swept, typed: Type) -> None:
    again = typed("sweep", *PLAN, "--workers", "1", "--db", finished.place).err
    assert f"{RUNS} runs: {RUNS} finished before (--force runs them again)." in again, again
    made(finished.place)


def test_a_stop_ends_the_workers_and_empties_the_queue(stopped: Swept, typed: Type) -> None:
    code, _, err = stopped.ended
    assert code == 130 and "the same command goes on from here" in err, err
    assert "Traceback" not in err, err
    assert stopped.started and not any(runs(each) for each in stopped.started)
    assert set(frames.runs(Store.open(stopped.place), status=None)["status"]) == {"interrupted"}
    assert "is empty" in typed("worker", "--status", "--db", stopped.place).err


def test_a_password_is_in_no_argument_log_or_file_that_others_read(
    request: pytest.FixtureRequest, executor: str
) -> None:
    sweep: Swept = request.getfixturevalue("finished" if executor == "local" else "stopped")
    assert sweep.words and not sweep.shown
    assert PASSWORD not in " ".join([*sweep.words, *sweep.ended[1:]])


def test_too_many_workers_are_refused_and_leave_nothing(typed: Type) -> None:
    done = typed("sweep", *PLAN, "--workers", "999")
    assert done.code == 2 and "--workers is 999, of 1 thread each, but there are" in done.err
    assert "is empty" in typed("worker", "--status").err


def test_a_folder_that_can_not_be_written_to_is_named_before_anything_is_enqueued(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("streamcli.jobs.hand_out.TemporaryDirectory", full)
    swept = typed("sweep", *PLAN, "--workers", "1")
    assert swept.refuses(2, "the working folder can't be written to (Read-only file system)")
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


@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_ray_cluster_that_loses_a_node_makes_each_run_once_and_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    local = tmp_path / "local"
    local.mkdir()
    assert "12 done" in streamcli(local, "sweep", *PLAN).ended()[2]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        lost = cluster.add_node(num_cpus=1)
        words = ("--workers", "2", "--executor", "ray")
        process = subprocess.Popen(
            [sys.executable, "-m", "streamcli", "sweep", *PLAN, *words],
            cwd=tmp_path,
            env=environment(RAY_ADDRESS=cluster.address),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
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
