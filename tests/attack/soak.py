"""Workers, sweeps and chance at one database for minutes: what is tried, lost, doubled and stuck.

``make soak`` runs it, once with an SQLite file and once with a PostgreSQL server of its own; it is
no test of CI. Eight writers make the runs of one queue, while a writer is killed or stopped, the
database is locked, or the server goes down and comes up again, about once a second. In the end all
that was enqueued must be done, once: ends with code 1 where it is not.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from sqlalchemy import text

from core import process
from core.errors import StreamError
from streamcli.jobs import plan
from streamcli.jobs.claims import queue_of
from streamcli.results import frames, maintenance, portable, queue, unrecorded
from streamcli.results.queue import OVER, Taken
from streamcli.results.store import Store
from tests.support import forked
from tests.support.databases import Served, served

WRITERS = 8
METHODS = ("streaming", "window", "dense")
CELL = ["dataset", "method", "seed", "repeat"]
PLAN = (
    *("--models", "bundled", "--datasets", "bundled-narrative", "bundled-encyclopedia"),
    *("--modes", "chunked", "--windows", "20", "--methods", *METHODS),
    *("--repeats", "2", "--threads", "1"),
)
EVERY_S = (0.3, 1.7)  # from one blow to the next
LOCKED_S = (0.5, 8.0)
DOWN_S = (0.5, 6.0)
AHEAD = 12  # groups that wait, below which more are enqueued
DRAIN_S = 240.0


class Soak:
    """One database under attack.

    Attributes:
        place: The database.
        control: Stops and starts its server; None for a file.
        chance: What happens, and when.
        counts: What happened, how often.
    """

    def __init__(self, place: str, control: Callable[[str], None] | None, seed: int) -> None:
        self.place, self.control, self.chance = place, control, random.Random(seed)
        self.store = Store.open(place)
        self.counts = Counter[str]()
        self.alive: list[int] = []
        self.passing: list[int] = []  # children that end by themselves
        self.plans = 0

    def attack(self, minutes: float) -> None:
        """Keep the writers busy and strike, until the time is over."""
        until = time.monotonic() + 60 * minutes
        blows = [*[self.kill] * 5, self.stop, self.lock, self.sweep]
        blows += [self.server] if self.control else []
        while time.monotonic() < until:
            self.fill()
            self.chance.choice(blows)()
            time.sleep(self.chance.uniform(*EVERY_S))

    def fill(self) -> None:
        """Replace writers that have ended, and enqueue more where little waits."""
        self.alive = [child for child in self.alive if not self.over(child)]
        self.passing = [child for child in self.passing if not self.over(child)]
        while len(self.alive) < WRITERS:
            self.alive.append(forked.start("worker", "--quiet", "--forever", "--db", self.place))
        if self.left() < AHEAD:
            self.plans += 1
            self.run("sweep", "--enqueue")

    def over(self, child: int) -> bool:
        """Whether a child has ended; how is counted."""
        found, status = os.waitpid(child, os.WNOHANG)
        if not found:
            return False
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, 130, -signal.SIGKILL):
            self.counts[f"ended with {code}"] += 1
        return True

    def left(self) -> int:
        """Groups that are not over; 0 where the database does not tell."""
        try:
            return sum(each.state != OVER for each in queue_of(self.store).groups())
        except StreamError:
            return AHEAD

    def run(self, *words: str) -> None:
        """Start a command on the newest plan."""
        words = (*words, *PLAN, "--max-tokens", "60", "--seeds", f"{self.plans}")
        self.passing.append(forked.start(*words, "--db", self.place))

    def kill(self) -> None:
        """A writer, by SIGKILL."""
        self.counts["kills"] += 1
        os.kill(self.chance.choice(self.alive), signal.SIGKILL)

    def stop(self) -> None:
        """A writer, as a user or a scheduler does it."""
        self.counts["stops"] += 1
        number = self.chance.choice((signal.SIGINT, signal.SIGTERM))
        os.kill(self.chance.choice(self.alive), number)

    def lock(self) -> None:
        """The database, by another process that writes."""
        self.counts["locks"] += 1
        seconds = self.chance.uniform(*LOCKED_S)
        child = os.fork()
        if child:
            self.passing.append(child)
            return
        try:
            with self.store.transaction(writes=True) as connection:
                if self.control:
                    connection.execute(text("LOCK TABLE runs, queue IN ACCESS EXCLUSIVE MODE"))
                time.sleep(seconds)
        except StreamError:
            pass  # it was locked already, or the server went down
        finally:
            os._exit(0)

    def sweep(self) -> None:
        """An ordinary sweep of the plan that the writers have."""
        self.counts["sweeps beside"] += 1
        self.run("sweep")

    def server(self) -> None:
        """The server, which comes back after a while."""
        assert self.control
        self.counts["server stops"] += 1
        self.control("stop")
        time.sleep(self.chance.uniform(*DOWN_S))
        self.control("start")

    def drain(self) -> None:
        """Let the writers finish what waits, and take in what went to files."""
        until = time.monotonic() + DRAIN_S
        while (self.left() or self.passing) and time.monotonic() < until:
            self.alive = [child for child in self.alive if not self.over(child)]
            self.passing = [child for child in self.passing if not self.over(child)]
            while len(self.alive) < WRITERS // 2:
                words = ("worker", "--quiet", "--forever", "--db", self.place)
                self.alive.append(forked.start(*words))
            time.sleep(0.5)
        for child in [*self.alive, *self.passing]:
            os.kill(child, signal.SIGTERM)
        for child in [*self.alive, *self.passing]:
            os.waitpid(child, 0)
        for file in unrecorded.waiting(self.store):
            try:
                portable.load(self.store, file)
                self.counts["files taken in"] += 1
            except Taken:
                self.counts["files not needed"] += 1
        self.store.reap(process.ended)

    def found(self) -> Counter[str]:
        """What became of everything that was enqueued."""
        groups = queue_of(self.store).groups()
        tried = {cell for group in groups for cell in _cells(group)}
        runs = frames.runs(self.store, status=None)
        done = runs[runs["status"] == "done"]
        times = Counter(map(tuple, done[CELL].astype(object).values.tolist()))
        stuck = [group for group in groups if group.state != OVER]
        found = Counter(
            tried=len(tried),
            done=len(done),
            lost=len(tried - times.keys()),
            doubled=sum(number - 1 for number in times.values()),
            stuck=len(stuck) + int((runs["status"] == "running").sum()),
            failed=sum(
                each.how == queue.FAILED for group in groups for each in group.ended.values()
            ),
            unsound=len(maintenance.check(self.store)),
        )
        return found


def _cells(group: queue.Claim) -> Iterator[tuple[object, ...]]:
    for arm, turn in plan.rounds(group.arms, group.repeats):
        yield arm.dataset, arm.method, arm.seed, turn


@contextmanager
def _file() -> Iterator[tuple[str, None]]:
    with tempfile.TemporaryDirectory(prefix="streamcli-soak-") as folder:
        yield f"{folder}/runs.db", None


@contextmanager
def _server() -> Iterator[Served]:
    with served("-c synchronous_commit=on") as started:
        yield started


def main() -> int:
    """Attack both kinds of database, print the counts, and say whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="of each database")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    asked = parser.parse_args()
    forked.warm()
    queue.DEATHS = 10**6  # random blows may hit one group over and over
    bad, here = 0, Path.cwd()
    for kind, opened in {"sqlite": _file, "postgresql": _server}.items():
        if asked.only not in (None, kind):
            continue
        with (
            tempfile.TemporaryFile("w+") as said,
            tempfile.TemporaryDirectory() as beside,  # what a database can't take goes here
            chdir(beside),
            opened() as (place, control),
        ):
            kept = os.dup(2)
            os.dup2(said.fileno(), 2)  # children's words go to a file
            try:
                soak = Soak(place, control, asked.seed)
                soak.attack(asked.minutes)
                soak.drain()
            finally:
                sys.stderr.flush()
                os.dup2(kept, 2)
            said.seek(0)
            words = said.read()
            found = soak.found()
            found["tracebacks"] = words.count("Traceback")
            wrong = [name for name in found if name not in ("tried", "done") and found[name]]
            bad += bool(wrong)
            told = {**found, **dict(sorted(soak.counts.items()))}
            print(f"{kind}:", ", ".join(f"{number} {name}" for name, number in told.items()))
            if wrong:
                (here / f"soak-{kind}.log").write_text(words)
                print(f"{kind}: not well: {', '.join(wrong)}; see soak-{kind}.log")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
