"""What starts workers: on this machine, or through an engine that people run already.

A worker is all that is started. The database's URL, which may hold a password, goes to it by its
environment, or by a file in a folder that only its owner can read; never by an argument or a log.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from core.errors import StreamError, UsageError
from core.hub import first_line

LOCAL, SUBMITIT, RAY = "local", "submitit", "ray"
EXECUTORS = {
    LOCAL: "processes of this machine",
    SUBMITIT: "jobs of Slurm, or of this machine where there is none",
    RAY: "tasks of the Ray cluster that RAY_ADDRESS names, or of one started here",
}
LOOK_S = 5.0  # from one look at Slurm's queue to the next
GOES_ON = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "STOPPED"}
STOP_S = 20.0  # for a worker to give back what it has
DAY_MIN = 24 * 60  # what Slurm is asked for; what a worker has not finished then, another does
KILLED = -signal.SIGKILL
OURS = "streamcli: "  # begins a line of ours


@dataclass(frozen=True)
class Job:
    """What is to be started.

    Attributes:
        sweep: The sweep whose runs the workers make.
        place: The results database, a path or URL.
        workers: How many of them.
        threads: CPU threads that each of them takes.
        gpus: GPUs that each of them takes.
        folder: Where files of theirs may lie; nobody else can read in it.
    """

    sweep: str
    place: str
    workers: int
    threads: int
    gpus: int
    folder: Path


class Started(Protocol):
    """A worker that was started."""

    def ended(self) -> int | None:
        """Its exit code, a signal as a negative number; None while it works."""

    def said(self) -> list[str]:
        """What it has said since this was last asked."""

    def stop(self, *, at_once: bool) -> None:
        """Have it end and give back what it has, or, at once, leave that to others."""


def start(executor: str, job: Job) -> list[Started]:
    """Start all workers.

    Raises:
        UsageError: This machine can't take so many, or lacks the engine.
    """
    if executor != LOCAL and find_spec(executor) is None:
        raise UsageError(
            f"--executor {executor} needs a package that is not installed: "
            f'pip install "streamcli[{executor}]"'
        )
    return [again(executor, job, place) for place in range(job.workers)]


def again(executor: str, job: Job, place: int) -> Started:
    """Start the worker of a place among the others, raising as ``start`` does."""
    starts: dict[str, Callable[[Job, int], Started]]
    starts = {LOCAL: _local, SUBMITIT: _submitit, RAY: _ray}
    return starts[executor](job, place)


def stop(started: list[Started], *, idle: bool) -> None:
    """End workers: ``idle`` ones end by themselves, and what takes too long is ended at once."""
    if not idle:
        for each in started:
            each.stop(at_once=False)
    until = time.monotonic() + STOP_S
    while any(each.ended() is None for each in started) and time.monotonic() < until:
        time.sleep(0.1)
    for each in started:
        each.stop(at_once=True)


class _Log:
    """A file that a worker writes to, read line by line as it grows."""

    def __init__(self, path: Path) -> None:
        self.path, self.read = path, 0

    def lines(self) -> list[str]:
        """Its words that are new, but for those of the engine."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.read)
                whole = file.read().rpartition(b"\n")[0]
        except OSError:  # not there yet
            return []
        self.read += len(whole) + bool(whole)
        lines = whole.decode(errors="replace").splitlines()
        return [line.removeprefix(OURS) for line in lines if line.startswith(OURS)]


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    log: _Log

    def ended(self) -> int | None:
        return self.process.poll()

    def said(self) -> list[str]:
        return self.log.lines()

    def stop(self, *, at_once: bool) -> None:
        if self.process.poll() is None:
            (self.process.kill if at_once else self.process.terminate)()


def _local(job: Job, place: int) -> Started:
    """A process on cores of its own, so that workers don't take each other's time."""
    from streamcli import settings

    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    number = len(cores) or os.cpu_count() or 1
    each = number // job.workers
    if each < job.threads:
        raise UsageError(
            f"--workers is {job.workers}, of {job.threads} thread{'s' * (job.threads > 1)} each, "
            f"but there are {number} cores: give fewer."
        )
    log = job.folder / f"{place}.log"
    command = [sys.executable, "-m", "streamcli", "worker", "--sweep", job.sweep, "--quiet"]
    try:
        if cores:
            os.sched_setaffinity(0, cores[place * each : (place + 1) * each])  # a child inherits it
        with log.open("ab") as stderr:
            process = subprocess.Popen(
                command,
                env=settings.environment(job.place),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for the sweep, which then stops its workers
            )
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
    return _Process(process, _Log(log))


def work(sweep: str, url: str, folder: str) -> int:
    """Be a worker within another program's process; its exit code.

    Args:
        sweep: The sweep whose runs to make.
        url: The file with the database's URL.
        folder: Where relative paths begin.
    """
    from streamcli.jobs import worker

    os.chdir(folder)
    try:
        worker.make(Path(url).read_text(encoding="utf-8"), sweep, forever=False, quiet=True)
    except StreamError as error:
        print(f"{OURS}{error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _told(job: Job) -> tuple[str, str, str]:
    """What ``work`` is told: where the database's URL is, but not the URL."""
    file = job.folder / "database"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(job.place)
    return job.sweep, str(file), os.getcwd()


@dataclass
class _Submitted:
    job: Any
    log: _Log
    here: bool
    why: list[str] = field(default_factory=list)
    looked_s: float = -math.inf
    gone: int = 0  # looks in a row that found it ended without a result

    def ended(self) -> int | None:
        from submitit.core.utils import UncompletedJobError

        if not self._is_over():
            return None
        if not (self.here or self.job.paths.result_pickle.exists()):
            return KILLED
        try:
            return int(self.job.result())
        except UncompletedJobError:
            return KILLED
        except Exception as error:  # whatever submitit or the job raised
            self.why = [f"a worker failed: {first_line(error)}."]
            return 1

    def said(self) -> list[str]:
        return [*self.log.lines(), *self.why]

    def _is_over(self) -> bool:
        """Whether it has ended.

        Slurm is asked for its queue: submitit asks for the accounts, which not every cluster keeps,
        and seldom.
        """
        if self.here or self.job.paths.result_pickle.exists():
            return bool(self.job.done())
        if time.monotonic() - self.looked_s < LOOK_S:
            return self.gone > 1
        self.looked_s = time.monotonic()
        asked = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={self.job.job_id}"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        unknown = answer.returncode and "Invalid job id" in answer.stderr
        known = not answer.returncode and answer.stdout.split()
        over = unknown or (known and not set(known) & GOES_ON)
        self.gone = self.gone + 1 if over else 0  # twice: its result may be on its way to this node
        return self.gone > 1

    def stop(self, *, at_once: bool) -> None:
        if self._is_over():
            return
        if self.here and not at_once:
            os.kill(int(self.job.job_id), signal.SIGTERM)  # which, unlike SIGINT, it passes on
        else:
            self.job.cancel(check=False)


def _submitit(job: Job, place: int) -> Started:
    """A job of Slurm where it is there, else a process."""
    import submitit

    executor = submitit.AutoExecutor(folder=job.folder)
    executor.update_parameters(name="streamcli", timeout_min=DAY_MIN, cpus_per_task=job.threads)
    if job.gpus:
        executor.update_parameters(gpus_per_node=job.gpus)
    submitted = executor.submit(work, *_told(job))
    return _Submitted(submitted, _Log(submitted.paths.stderr), executor.cluster == LOCAL)


@dataclass
class _Task:
    task: Any
    why: list[str] = field(default_factory=list)

    def ended(self) -> int | None:
        import ray

        if not ray.wait([self.task], timeout=0)[0]:
            return None
        try:
            return int(ray.get(self.task))
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
            return KILLED
        except Exception as error:  # cancelled, or what the task raised
            self.why = [f"a worker failed: {first_line(error)}."]
            return 1

    def said(self) -> list[str]:
        return self.why  # Ray itself brings what its tasks say

    def stop(self, *, at_once: bool) -> None:
        import ray

        if self.ended() is None:
            ray.cancel(self.task, force=at_once)


def _ray(job: Job, place: int) -> Started:
    """A task of a Ray cluster."""
    import ray

    if not ray.is_initialized():
        ray.init(configure_logging=False, log_to_driver=True)
    task = ray.remote(num_cpus=job.threads, num_gpus=job.gpus, max_retries=3)(work)
    return _Task(task.remote(*_told(job)))
