"""What starts workers: on this machine, or through an engine that people run already.

A worker is all that is started. The database's URL, which may hold a password, goes to it by its
environment or by a file that only its owner can read, never by an argument or a log.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Protocol

from core.errors import UsageError
from streamcli import settings

LOCAL = "local"
EXECUTORS = {LOCAL: "processes of this machine"}
STOP_S = 20.0  # for a worker to give back what it has


@dataclass(frozen=True)
class Job:
    """What is to be started.

    Attributes:
        sweep: The sweep whose runs the workers make.
        place: The results database, a path or URL.
        workers: How many of them.
        threads: CPU threads that each of them takes.
    """

    sweep: str
    place: str
    workers: int
    threads: int


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
    return [again(executor, job, place) for place in range(job.workers)]


def stop(started: list[Started]) -> None:
    """End workers, those that don't end by themselves at once after a while."""
    for each in started:
        each.stop(at_once=False)
    until = time.monotonic() + STOP_S
    while any(each.ended() is None for each in started) and time.monotonic() < until:
        time.sleep(0.1)
    for each in started:
        each.stop(at_once=True)


def again(executor: str, job: Job, place: int) -> Started:
    """Start the worker of a place among the others, raising as ``start`` does."""
    return STARTS[executor](job, place)


@dataclass
class Process:
    """A worker that is a process of this machine."""

    process: subprocess.Popen[bytes]
    stderr: IO[bytes]
    read: int = 0

    def ended(self) -> int | None:
        """See ``Started``."""
        return self.process.poll()

    def said(self) -> list[str]:
        """See ``Started``."""
        self.stderr.seek(self.read)
        whole = self.stderr.read().rpartition(b"\n")[0]
        self.read += len(whole) + bool(whole)
        lines = whole.decode(errors="replace").splitlines()
        return [line.removeprefix("streamcli: ") for line in lines if line]

    def stop(self, *, at_once: bool) -> None:
        """See ``Started``."""
        if self.process.poll() is None:
            (self.process.kill if at_once else self.process.terminate)()


def _local(job: Job, place: int) -> Started:
    """A process on cores of its own, so that workers don't take each other's time."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = (len(cores) or os.cpu_count() or 1) // job.workers
    if each < job.threads:
        raise UsageError(
            f"--workers is {job.workers}, of {job.threads} threads each, but there are "
            f"{len(cores) or os.cpu_count()} cores: give fewer, or fewer --threads."
        )
    stderr = TemporaryFile()  # noqa: SIM115
    command = [sys.executable, "-m", "streamcli", "worker", "--sweep", job.sweep, "--quiet"]
    try:
        if cores:
            os.sched_setaffinity(0, cores[place * each : (place + 1) * each])  # a child inherits it
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
    return Process(process, stderr)


STARTS: dict[str, Callable[[Job, int], Started]] = {LOCAL: _local}
