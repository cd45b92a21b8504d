"""Which runs of a sweep are in the queue, and what this process and others make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from core import process
from core.config import RunConfig
from core.errors import StreamError
from streamcli.jobs import plan, processes, signals
from streamcli.jobs.ledger import Ledger
from streamcli.results.queue import Cell, Claim, Ended, Queue
from streamcli.results.store import Store


def queue_of(store: Store) -> Queue:
    """The queue of a database, for this process."""
    return Queue(store, processes.host(), process.name(), process.ended)


@dataclass
class Claims:
    """The runs of one group of a plan that are in the queue.

    Attributes:
        queue: The queue.
        ledger: Where runs are recorded, with patience.
        elsewhere: The hosts of what others make: configuration and round.
        cells: The places of those runs that were enqueued, and how those ended that have.
    """

    queue: Queue
    ledger: Ledger
    elsewhere: dict[tuple[str, int], str] = field(default_factory=dict)
    cells: dict[tuple[str, int], tuple[Cell, Ended | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, queue: Queue, ledger: Ledger, claims: Iterable[Claim]) -> Self:
        """Those of groups that this worker has claimed."""
        made = cls(queue, ledger)
        for claim in claims:
            for number, (arm, turn) in enumerate(plan.rounds(claim.arms, claim.repeats)):
                cell = Cell(claim.group_id, number)
                made.cells[arm.key, turn] = cell, claim.ended.get(number)
        return made

    @classmethod
    def hold(cls, queue: Queue, ledger: Ledger, group: Sequence[RunConfig], repeats: int) -> Self:
        """Claim what of a group waits in the queue and hold the rest: no other makes it as well.

        Raises:
            Unrecordable: The database did not answer for minutes.
        """
        claims, elsewhere = ledger.until_told(lambda: queue.hold(group, repeats))
        made = cls.of(queue, ledger, claims)
        made.elsewhere = elsewhere
        return made

    def cell(self, arm: RunConfig, turn: int) -> Cell | None:
        """The place of a run in the queue, None where it has none."""
        return self.cells.get((arm.key, turn), (None, None))[0]

    def ended(self, arm: RunConfig, turn: int) -> Ended | None:
        """How a run ended, where another worker has made it before."""
        return self.cells.get((arm.key, turn), (None, None))[1]

    def note(self, arm: RunConfig, turn: int, how: str, what: str) -> None:
        """Record how a run ended, where its row does not tell.

        Raises:
            Unrecordable: The database did not take it for minutes.
        """
        if cell := self.cell(arm, turn):
            self.ledger.until_told(lambda: self.queue.note(cell, how, what))

    def release(self) -> None:
        """Give back what is left; where that can't be done, others find that this process ended."""
        with signals.ignored(), suppress(StreamError):
            self.queue.release()
