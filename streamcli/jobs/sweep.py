"""Carrying out a plan: what is finished is skipped, what fails is noted, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from core.config import RunConfig
from core.errors import Interrupted, StreamError
from core.facts import RunFacts
from streamcli.jobs.claims import Claims, queue_of
from streamcli.jobs.ledger import Unrecordable
from streamcli.jobs.plan import Plan, rounds
from streamcli.jobs.record import Recorder
from streamcli.results.queue import DONE, FAILED, LEFT_OUT, Ended, Taken


def summed_up(runs: int, counts: dict[str, int], failed: dict[str, list[str]]) -> list[str]:
    """What became of runs, a line for all, then a line for each reason why some failed.

    Args:
        runs: How many there are.
        counts: How many ended in each way, in words.
        failed: The names of those that failed, by reason.
    """
    counted = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    lines = [f"{runs} runs: {counted}."]
    for reason, names in failed.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"failed: {names[0]}{more}: {reason}")
    return lines


@dataclass
class Sweep:
    """A plan and what became of its runs.

    Attributes:
        plan: The runs.
        recorder: Makes and records them.
        ended: Is told of each run, in order: its name, how it ended and in how many seconds.
        force: Whether what is finished is run again.
        anywhere: Whether what other machines have made is not made again here, as in a worker.
        claims: The places of the runs in the queue, given for a group that a worker has claimed.
        run_ids: The finished runs of the plan's configurations, made now or before.
        names: The run of each configuration, the latest where there are several.
        made: How many were made now.
        skipped: How many were finished before.
        left_out: How many have a budget beyond the length that the model was trained on.
        elsewhere: How many other processes make, or have made meanwhile.
        failed: The names of those that failed, by reason.
    """

    plan: Plan
    recorder: Recorder
    ended: Callable[..., None]
    force: bool
    anywhere: bool = False
    claims: Claims | None = None
    run_ids: dict[str, None] = field(default_factory=dict)
    names: dict[RunConfig, str] = field(default_factory=dict)
    made: int = 0
    skipped: int = 0
    left_out: int = 0
    elsewhere: int = 0
    failed: dict[str, list[str]] = field(default_factory=dict)
    _group: Sequence[RunConfig] = ()
    _held: ExitStack = field(default_factory=ExitStack)

    def carry_out(self) -> None:
        """Make every run, or as many as the results database lets begin.

        Raises:
            Interrupted: The person or a scheduler stopped it.
            Unrecordable: The results database let none begin.
        """
        try:
            for group in self.plan.groups:
                with self._only_here(group):
                    for arm, turn in rounds(group, self.plan.repeats):
                        self._make(arm, turn)
        except Unrecordable as error:
            if not self.run_ids:
                raise
            self.recorder.stopped = error

    def _make(self, arm: RunConfig, turn: int) -> None:
        """Make one run, and tell how it ended."""
        name, began = self.plan.name(arm, turn), time.monotonic()
        try:
            how = self._one(arm, turn)
            self.ended(name, how, time.monotonic() - began if how == "done" else None)
        except (Interrupted, Unrecordable):
            raise
        except StreamError as error:
            known = self.failed.setdefault(str(error), [])
            self.ended(name, f"failed{', as before' if known else f': {error}'}", always=True)
            known.append(name)
            self._note(arm, turn, FAILED, str(error))

    def summary(self) -> list[str]:
        """What became of the runs: one line for all, then one for each reason of failure."""
        failed = sum(map(len, self.failed.values()))
        counts = {
            "done": self.made,
            "finished on this machine before (--force runs them again)": self.skipped,
            "left out (a budget beyond the length that the model was trained on)": self.left_out,
            "left to other processes, which make them": self.elsewhere,
            "failed": failed,
        }
        counts["not begun"] = len(self.plan) - sum(counts.values())
        return summed_up(len(self.plan), counts, self.failed)

    def _one(self, arm: RunConfig, turn: int) -> str:
        """Make one run unless there is no need; how that ended."""
        there = self.recorder.has_database
        if there and (how := self._by_others(arm, turn)):
            return how
        known = None if self.anywhere else self.recorder.foreknown(arm)
        if there and known and (how := self._needless(arm, turn, known.config, known.facts)):
            return how
        prepared = self.recorder.prepare(arm)
        if how := self._needless(arm, turn, prepared.config, prepared.facts):
            return how
        cell = self.claims.cell(arm, turn) if self.claims else None
        try:
            self.names[arm] = self.recorder.run(prepared, turn, cell)
        except Taken:
            self.elsewhere += 1
            return "made by another worker meanwhile"
        self.run_ids[self.names[arm]] = None
        self.made += 1
        if self.names[arm] in self.recorder.ledger.kept:  # the database took neither
            self._note(arm, turn, DONE, self.names[arm])
        return "done"

    def _needless(
        self, arm: RunConfig, turn: int, config: RunConfig, facts: RunFacts
    ) -> str | None:
        """Count a run that need not be made, now that it is known what it would be made from.

        Args:
            arm: What was asked for.
            turn: Its round.
            config: The configuration as resolved.
            facts: What was found of its model and text.

        Returns:
            How it ended; None where it is to be made.
        """
        if self._is_beyond(config, facts):
            self.left_out += 1
            why = f"trained on {facts.trained_length} positions"
            self._note(arm, turn, LEFT_OUT, why)
            return f"left out: {why}"
        if how := self._by_others(arm, turn):
            return how
        if self.force:
            return None
        found = self.recorder.finished(config, facts, anywhere=self.anywhere)
        if len(found) < self.plan.repeats and turn not in found.values():
            return None
        self.run_ids |= dict.fromkeys(found)
        self.names[arm] = max(found)
        self.skipped += 1
        of_turn = [name for name, number in found.items() if number == turn]
        self._note(arm, turn, DONE, max(of_turn, default=self.names[arm]))
        return "finished before"

    def _by_others(self, arm: RunConfig, turn: int) -> str | None:
        """Count a run of the queue that others make, or have made; how it ended.

        Raises:
            StreamError: It failed.
        """
        self._hold()
        if self.claims is None:
            return None
        if host := self.claims.elsewhere.get((arm.key, turn)):
            self.elsewhere += 1
            return f"left to another process on {host}"
        ended = self.claims.ended(arm, turn)
        return self._ended_before(arm, ended) if ended else None

    def _ended_before(self, arm: RunConfig, ended: Ended) -> str:
        """Count a run of the queue that another worker has made.

        Raises:
            StreamError: It failed.
        """
        if ended.how == FAILED:
            raise StreamError(ended.what)
        if ended.how == LEFT_OUT:
            self.left_out += 1
            return f"left out: {ended.what}"
        self.run_ids[ended.what] = None
        self.names[arm] = ended.what
        self.skipped += 1
        return "finished before"

    @contextmanager
    def _only_here(self, group: Sequence[RunConfig]) -> Iterator[None]:
        """Within it no other process makes a run of this group, from when the first may begin."""
        if self.claims:  # a worker's, who has it
            yield
            return
        with ExitStack() as self._held:
            self._group = group
            try:
                yield
            finally:
                self.claims = None

    def _hold(self) -> None:
        if self.claims or self.force:
            return
        ledger = self.recorder.ledger
        queue = queue_of(ledger.store)
        self._held.enter_context(queue.beating())
        self._held.callback(Claims(queue, ledger).release)
        self.claims = Claims.hold(queue, ledger, self._group, self.plan.repeats)

    def _note(self, arm: RunConfig, turn: int, how: str, what: str) -> None:
        """Record in the queue how a run ended that has no row of its own, or had one before."""
        if self.claims:
            self.claims.note(arm, turn, how, what)

    def _is_beyond(self, config: RunConfig, facts: RunFacts) -> bool:
        """Whether a preset asked for more keys than the model was trained on."""
        trained = facts.trained_length
        budget = config.spec.has_budget and config.attended_keys
        return self.plan.within_trained and bool(trained and budget and budget > trained)
