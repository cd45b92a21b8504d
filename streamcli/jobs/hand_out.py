"""A sweep that others carry out: its runs go into the queue, workers are started and watched."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from core.errors import Interrupted, StreamError, UsageError
from streamcli.jobs import executors, signals
from streamcli.jobs.claims import queue_of
from streamcli.jobs.ledger import Say, patiently
from streamcli.jobs.plan import Plan, rounds
from streamcli.jobs.sweep import summed_up
from streamcli.results import addresses, ulid
from streamcli.results.queue import DEATHS, DONE, FAILED, LEFT_OUT, Cell, Claim, Queue
from streamcli.results.store import Store

if TYPE_CHECKING:
    import pandas as pd

POLL_S = 1.0


def put(store: Store, todo: Plan, explicit: bool, force: bool) -> tuple[str, int]:
    """Leave the runs of a plan in the queue; the sweep that they are, and how many are new there.

    The sweep bears a name of its own, a ULID.
    """
    sweep = ulid.new()
    added = queue_of(store).put(
        sweep,
        todo.groups,
        repeats=todo.repeats,
        within_trained=todo.within_trained,
        explicit=explicit,
        force=force,
    )
    return sweep, added


@contextmanager
def _shared_folder() -> Iterator[Path]:
    """A folder for the time of a sweep in the working folder, which all nodes share.

    Raises:
        UsageError: None can be made there.
    """
    try:
        made = TemporaryDirectory(prefix=".streamcli-", dir=os.getcwd())
    except OSError as problem:
        raise UsageError(
            f"the working folder can't be written to ({problem.strerror}), where --workers makes a "
            "folder for what they say: start the sweep in another."
        ) from problem
    with made:
        yield Path(made.name)


@dataclass
class HandOut:
    """A plan that workers carry out, and what became of its runs.

    Attributes:
        plan: The runs.
        place: The results database, a path or URL.
        store: The same, opened.
        ended: Is told of each run that ended: its name, and how.
        say: Is told what the user must know.
        sweep: The name that the runs bear.
        run_ids: The finished runs.
        counts: How many ended in which way.
        reasons: The names of those that failed, by reason.
        before: How many of them were finished before.
        deaths: How many workers were killed.
    """

    plan: Plan
    place: str
    store: Store
    ended: Callable[..., None]
    say: Say
    sweep: str = ""
    run_ids: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {DONE: 0, LEFT_OUT: 0, FAILED: 0})
    reasons: dict[str, list[str]] = field(default_factory=dict)
    before: int = 0
    deaths: int = 0
    _known: set[Cell] = field(default_factory=set)

    @classmethod
    def of(cls, todo: Plan, place: str, ended: Callable[..., None], say: Say) -> Self:
        """For a plan and a database, which is opened."""
        return cls(todo, place, Store.open(place), ended, say)

    def carry_out(self, executor: str, workers: int, *, explicit: bool, force: bool) -> None:
        """Enqueue the runs, start workers, and wait until all have ended.

        Raises:
            Interrupted: It was stopped; the workers are, and what waits is taken from the queue.
            UsageError: Others have runs of the plan in the queue, so many workers don't fit, or the
                working folder can't be written to.
        """
        signals.listen()
        with _shared_folder() as folder:
            self._carry_out(executor, workers, folder, explicit=explicit, force=force)

    def _carry_out(
        self, executor: str, workers: int, folder: Path, *, explicit: bool, force: bool
    ) -> None:
        self.sweep, added = put(self.store, self.plan, explicit, force)
        queue = queue_of(self.store)
        started: list[executors.Started] = []
        try:
            if added < len(self.plan):
                raise UsageError(
                    f"{len(self.plan) - added} of these runs wait in the queue already: let "
                    "streamcli worker make them, or take them out with streamcli worker --clear."
                )
            threads = max((arm.threads or 1 for arm in self.plan.arms), default=1)
            gpus = int(any(arm.device.startswith("cuda") for arm in self.plan.arms))
            place = str(addresses.located(self.place).render_as_string(hide_password=False))
            job = executors.Job(self.sweep, place, workers, threads, gpus, folder)
            started = executors.start(executor, job)
            self._wait(queue, executor, job, started)
        except KeyboardInterrupt as stop:
            raise Interrupted("interrupted.") from stop
        finally:
            with signals.ignored():
                executors.stop(started, idle=not self.left)
                with suppress(StreamError):  # what waits is then shown by worker --status
                    self._look(queue)
                    queue.clear(self.sweep)

    def runs(self) -> pd.DataFrame:
        """The finished runs, made now or before."""
        from streamcli.results import frames

        found = frames.runs(self.store, run_id=self.run_ids)
        ours = set(found.loc[found["sweep"] == self.sweep, "run_id"])
        self.before = sum(name not in ours for name in self.run_ids)
        return found

    def _wait(
        self, queue: Queue, executor: str, job: executors.Job, started: list[executors.Started]
    ) -> None:
        """Look after the workers until every run has ended, or none of them goes on."""
        said = set[str]()
        while True:
            codes = [each.ended() for each in started]
            for line in (line for each in started for line in each.said()):
                if line not in said:
                    said.add(line)
                    self.say(line)
            left = patiently(lambda: self._look(queue), "The sweep waits", self.say)
            if not left or all(code is not None and code >= 0 for code in codes):
                return
            for place, code in enumerate(codes):
                if code is not None and code < 0:  # killed, for memory perhaps
                    self.deaths += 1
                    if self.deaths > DEATHS * job.workers:
                        raise StreamError(f"{self.deaths} workers were killed: none takes on.")
                    self.say(f"a worker was ended by signal {-code}; another takes its place.")
                    started[place] = executors.again(executor, job, place)
            time.sleep(POLL_S)

    def _look(self, queue: Queue) -> int:
        """Take note of what has ended; how many runs have not."""
        for group in queue.groups(self.sweep):
            self._note(group)
        return len(self.plan) - len(self._known)

    def _note(self, group: Claim) -> None:
        cells = list(rounds(group.arms, group.repeats))
        for number, (how, what) in sorted(group.ended.items()):
            cell = Cell(group.group_id, number)
            if cell in self._known:
                continue
            self._known.add(cell)
            name = self.plan.name(*cells[number])
            self.counts[how] += 1
            if how == DONE:
                self.run_ids.append(what)
            if how == FAILED:
                self.reasons.setdefault(what, []).append(name)
            self.ended(name, how if how == DONE else f"{how}: {what}", always=how == FAILED)

    def summary(self) -> list[str]:
        """What became of the runs: one line for all, then one for each reason of failure."""
        done = self.counts[DONE] - self.before
        before = {DONE: done, "finished before (--force runs them again)": self.before}
        counts = {**before, **{how: self.counts[how] for how in (LEFT_OUT, FAILED)}}
        counts["not made"] = self.left
        return summed_up(len(self.plan), counts, self.reasons)

    @property
    def failed(self) -> int:
        """How many runs failed."""
        return self.counts[FAILED]

    @property
    def left(self) -> int:
        """How many runs have not ended, since no worker goes on."""
        return len(self.plan) - len(self._known)
