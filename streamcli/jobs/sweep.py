"""Carrying out a plan: what is finished is skipped, what fails is noted, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from core.config import RunConfig
from core.errors import Interrupted, StreamError
from core.runner import Prepared
from streamcli.jobs.ledger import Unrecordable
from streamcli.jobs.plan import Plan
from streamcli.jobs.record import Recorder


@dataclass
class Sweep:
    """A plan and what became of its runs.

    Attributes:
        plan: The runs.
        recorder: Makes and records them.
        ended: Is told of each run, in order: its name, how it ended and in how many seconds.
        force: Whether what is finished is run again.
        run_ids: The finished runs of the plan's configurations, made now or before.
        names: The run of each configuration, the latest where there are several.
        made: How many were made now.
        skipped: How many were finished before.
        left_out: How many have a budget beyond the length that the model was trained on.
        failed: The names of those that failed, by reason.
    """

    plan: Plan
    recorder: Recorder
    ended: Callable[..., None]
    force: bool
    run_ids: dict[str, None] = field(default_factory=dict)
    names: dict[RunConfig, str] = field(default_factory=dict)
    made: int = 0
    skipped: int = 0
    left_out: int = 0
    failed: dict[str, list[str]] = field(default_factory=dict)

    def carry_out(self) -> None:
        """Make every run, or as many as the results database lets begin.

        Raises:
            Interrupted: The person or a scheduler stopped it.
            Unrecordable: The results database let none begin.
        """
        for arm, turn in self.plan:
            name, began = self.plan.name(arm, turn), time.monotonic()
            try:
                how = self._one(arm, turn)
                spent_s = time.monotonic() - began if how == "done" else None
                self.ended(name, how, spent_s)
            except Interrupted:
                raise
            except Unrecordable as error:
                if not self.run_ids:
                    raise
                self.recorder.stopped = error
                return
            except StreamError as error:
                known = self.failed.setdefault(str(error), [])
                self.ended(name, f"failed{', as before' if known else f': {error}'}", always=True)
                known.append(name)

    def summary(self) -> list[str]:
        """What became of the runs: one line for all, then one for each reason of failure."""
        failed = sum(map(len, self.failed.values()))
        counts = {
            "done": self.made,
            "finished on this machine before (--force runs them again)": self.skipped,
            "left out (a budget beyond the length that the model was trained on)": self.left_out,
            "failed": failed,
            "not begun": len(self.plan) - self.made - self.skipped - self.left_out - failed,
        }
        counted = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        lines = [f"{len(self.plan)} runs: {counted}."]
        for reason, names in self.failed.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines.append(f"failed: {names[0]}{more}: {reason}")
        return lines

    def _one(self, arm: RunConfig, turn: int) -> str:
        """Make one run unless there is no need; how that ended."""
        prepared = self.recorder.prepare(arm)
        if self._is_beyond(prepared):
            self.left_out += 1
            return f"left out: trained on {prepared.facts.trained_length} positions"
        if not self.force:
            found = self.recorder.finished(prepared)
            if len(found) >= self.plan.repeats or turn in found.values():
                self.run_ids |= dict.fromkeys(found)
                self.names[arm] = max(found)
                self.skipped += 1
                return "finished before"
        self.names[arm] = self.recorder.run(prepared, turn)
        self.run_ids[self.names[arm]] = None
        self.made += 1
        return "done"

    def _is_beyond(self, prepared: Prepared) -> bool:
        """Whether a preset asked for more keys than the model was trained on."""
        trained = prepared.facts.trained_length
        budget = prepared.config.spec.has_budget and prepared.config.attended_keys
        return self.plan.within_trained and bool(trained and budget and budget > trained)
