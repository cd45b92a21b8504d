"""What finished runs say of those that are yet to be made: which are there, how long one takes.

Needs no model: what a configuration leaves open is taken from the runs of the same model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeAlias

from core.config import RunConfig
from streamcli.results.columns import COLUMNS, Origin, chosen

Run: TypeAlias = Any  # a row of ``NEEDED``, by attribute

NEWEST = 5  # runs whose median is the estimate
NEEDED = (  # columns of a run that tell what another may take
    *chosen(origin=Origin.CONFIG),
    *(name for name in COLUMNS if name.startswith("requested_")),
    *("config_key", "trained_length", "elapsed_s"),
)


@dataclass(frozen=True)
class Outlook:
    """What is known of an arm of a sweep before it is run.

    Attributes:
        arm: Its configuration, as far as it is settled.
        finished: Runs of it that are there already.
        left: Runs of it that would be made.
        run_s: What one of them may take in seconds; None where no run is similar.
        trained_length: Positions that the model was trained on; None where it has not run before.
    """

    arm: RunConfig
    finished: int
    left: int
    run_s: float | None
    trained_length: int | None

    @property
    def is_beyond(self) -> bool:
        """Whether its budget is known to exceed the length that the model was trained on."""
        if self.trained_length is None or not self.arm.spec.has_budget or self.arm.window is None:
            return False
        return self.arm.attended_keys > self.trained_length


@dataclass(frozen=True)
class History:
    """The finished runs of some models on one machine.

    Attributes:
        runs: By method and mode, newest first.
        trained: Trained length by model, both as it was asked for and as what really ran.
    """

    runs: dict[tuple[str, str], list[Run]] = field(default_factory=dict)
    trained: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, runs: Iterable[Run]) -> History:
        """What these runs tell, the newest first."""
        history = cls()
        for run in runs:
            history.runs.setdefault((run.method, run.mode), []).append(run)
            for name in (run.model, run.requested_model):
                history.trained.setdefault(name, run.trained_length)
        return history

    def outlook(self, arm: RunConfig, repeats: int, *, force: bool) -> Outlook:
        """What ``arm`` is up to, of which ``repeats`` runs are wanted, or with ``force`` made."""
        trained = self.trained.get(arm.model)
        if trained:
            arm = arm.fitted(trained)
        runs = self.runs.get((arm.method, arm.mode), [])
        runs = [run for run in runs if _named(arm.model, run, "model")]
        finished = min(repeats, sum(_is(arm, run) for run in runs))
        left = repeats if force else repeats - finished
        return Outlook(arm, finished, left, _seconds(arm, runs), trained)


def _seconds(arm: RunConfig, runs: list[Run]) -> float | None:
    """The time of similar runs in proportion to the tokens read, of the nearest window."""
    work = (arm.dtype, arm.timed_tokens, arm.batch_size)
    alike = [
        run
        for run in runs
        if run.elapsed_s and (run.dtype, run.timed_tokens, run.batch_size) == work
    ]
    if arm.max_tokens is None or not alike:
        return None
    kept = (arm.window or 0) + arm.n_sink
    apart = [abs(run.window + run.n_sink - kept) for run in alike]
    least = min(apart)
    nearest = [run for run, far in zip(alike, apart, strict=True) if far == least]
    rates = [float(run.elapsed_s) / run.max_tokens for run in nearest[:NEWEST]]
    return float(median(rates) * arm.max_tokens)


def _named(name: str, run: Run, column: str) -> bool:
    """Whether a run's model or dataset was asked for by ``name``, or really was that."""
    row = run._mapping
    return name in (row[column], row[f"requested_{column}"])


def _is(arm: RunConfig, run: Run) -> bool:
    """Whether a run has this configuration; what loading settles counts only where it was named."""
    budget = (arm.n_sink, arm.window)
    if arm.budget_mib is not None and arm.window is None and run.budget_mib == arm.budget_mib:
        budget = (arm.n_sink, run.window)  # which is the most that fits
    if (run.n_sink, run.window) != budget or not _named(arm.dataset, run, "dataset"):
        return False
    known = arm.resolved(
        window=run.window,
        model=run.model,
        dataset=run.dataset,
        device=run.device if arm.device == "auto" else arm.device,
        threads=arm.threads or run.threads,
        engine=run.engine if arm.engine == "auto" else arm.engine,
        max_tokens=arm.max_tokens or run.max_tokens,
    )
    return bool(known.key == run.config_key)
