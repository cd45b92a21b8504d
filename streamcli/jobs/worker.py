"""A worker: it takes one group after the other from the queue, makes its runs and records them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from core.config import RunConfig
from core.errors import Interrupted, StreamError, UsageError
from streamcli.jobs import signals
from streamcli.jobs.claims import Claims, queue_of
from streamcli.jobs.plan import Plan
from streamcli.jobs.record import Recorder
from streamcli.jobs.sweep import Sweep
from streamcli.render import output
from streamcli.render.progress import Board, watch
from streamcli.results.queue import FAILED, Cell, Claim, Queue

POLL_S = 2.0


def make(place: str, sweep: str | None, *, forever: bool, quiet: bool) -> None:
    """Make what waits in a database, and say what became of it; raises as ``work`` does."""
    recorder = Recorder(place, False, output.say, watch)
    worker = Worker(recorder, lambda runs: Board(runs, quiet=quiet), sweep, forever)
    try:
        worker.work()
    except Interrupted as stop:
        raise Interrupted(f"{stop} What it had claimed waits for other workers.") from stop
    finally:
        if not quiet:
            output.say(worker.summary())
    worker.settle()


@dataclass
class Worker:
    """What makes the runs that wait in the queue of a database.

    Attributes:
        recorder: Makes and records the runs; keeps the model from one group to the next.
        board: Shows the progress of the runs of a group.
        sweep: The one sweep that it works on; None for all.
        forever: Whether it waits for more where nothing waits.
        groups: What became of the groups that it has had.
    """

    recorder: Recorder
    board: Callable[[list[RunConfig]], Board]
    sweep: str | None = None
    forever: bool = False
    groups: list[Sweep] = field(default_factory=list)

    def work(self) -> None:
        """Make runs until none waits and what others have claimed is in the hands of the living.

        Raises:
            Interrupted: It was stopped; what it had claimed waits again.
            StreamError: A run failed, or the database gave out.
        """
        signals.listen()
        queue = queue_of(self.recorder.store)
        with queue.beating():
            try:
                while self._goes_on(queue):
                    pass
            except KeyboardInterrupt as stop:
                raise Interrupted("interrupted.") from stop
            finally:
                Claims(queue, self.recorder.ledger).release()

    def _goes_on(self, queue: Queue) -> bool:
        """Make the runs of one group, or wait a moment for one; whether there may be more."""
        claim = self.recorder.ledger.until_told(lambda: queue.claim(self.sweep))
        if claim:
            self._make(queue, claim)
        elif self.forever or queue.undecided:
            time.sleep(POLL_S)
        else:
            return False
        return True

    def _make(self, queue: Queue, claim: Claim) -> None:
        ledger = self.recorder.ledger
        try:
            arms = claim.arms
        except UsageError as error:  # a method of a package that is not here
            ledger.until_told(partial(self._give_up, queue, claim, str(error)))
            raise
        self.recorder.explicit, self.recorder.sweep = claim.explicit, claim.sweep
        todo = Plan((arms,), claim.repeats, claim.within_trained)
        with self.board([arm for arm, _ in todo]) as board:
            self.recorder.watch = board.watch
            places = Claims.of(queue, ledger, [claim])
            made = Sweep(
                todo, self.recorder, board.ended, claim.force, anywhere=True, claims=places
            )
            self.groups.append(made)
            made.carry_out()
        if self.recorder.stopped:
            raise self.recorder.stopped

    def _give_up(self, queue: Queue, claim: Claim, why: str) -> None:
        for number in range(len(claim)):
            queue.note(Cell(claim.group_id, number), FAILED, why)

    def summary(self) -> str:
        """What became of the runs that it had."""
        counts = {
            "done": sum(each.made for each in self.groups),
            "finished before": sum(each.skipped for each in self.groups),
            "made by others": sum(each.elsewhere for each in self.groups),
            "left out": sum(each.left_out for each in self.groups),
            "failed": self.failed,
        }
        counted = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        number = len(self.groups)
        return f"{number} group{'' if number == 1 else 's'} of runs: {counted or 'none made'}."

    @property
    def failed(self) -> int:
        """How many runs failed."""
        return sum(len(names) for each in self.groups for names in each.failed.values())

    def settle(self) -> None:
        """Say in the end what is not as it should be.

        Raises:
            StreamError: A result is not recorded, or a run failed.
        """
        self.recorder.settle()
        if self.failed:
            raise StreamError(f"{self.failed} runs failed: streamcli worker --status.")
