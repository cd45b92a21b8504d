"""A recorded run, to be made again: its configuration, its command line, and what came of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.config import RunConfig
from core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streamcli.results.schema import Run

MADE_IN = ("git_commit", "python", "host", "cpu", "gpu")  # what of its surroundings is told apart


@dataclass(frozen=True)
class Change:
    """One thing of a run and of its repetition, in words.

    Attributes:
        what: What it is: a column, or a package.
        before: As it was recorded; None where there was none.
        after: As it is now.
        verdict: How the two differ.
    """

    what: str
    before: Any
    after: Any
    verdict: str


def pinned(run: Run) -> RunConfig:
    """The configuration that makes ``run`` again: nothing left open, a Hub model at its commit.

    Raises:
        UsageError: It has an option that this version does not know.
    """
    options = {name: getattr(run, name) for name in RunConfig.names()}
    options["param"] = tuple(json.loads(run.param or "{}").items())
    if run.model_revision and not run.model.startswith("pypi:"):
        options["model"] = f"{run.model}@{run.model_revision}"
    return RunConfig(**options)


def words(config: RunConfig) -> list[str]:
    """The words after ``streamcli`` that run ``config``; defaults too, which a variable may set."""
    found = ["run"]
    for name in RunConfig.names():
        value, flag = getattr(config, name), f"--{name.replace('_', '-')}"
        if name == "param":
            found += [word for each, what in value for word in (flag, f"{each}={what}")]
        elif isinstance(value, bool):
            found += [flag] if value else []
        elif value is not None:
            found += [flag, str(value)]
    return found


def finished(run: Run) -> Run:
    """``run``, which is done.

    Raises:
        UsageError: It is not.
    """
    if run.status != "done":
        raise UsageError(
            f"run {run.run_id} is {run.status}: only a finished run will do "
            "(streamcli runs list --status done)."
        )
    return run


def surroundings(before: Run, after: Run) -> list[Change]:
    """What of code and machine is not what it was."""
    found = [
        Change(name, getattr(before, name), getattr(after, name), "changed")
        for name in MADE_IN
        if getattr(before, name) != getattr(after, name)
    ]
    old, new = (_versions(run.versions) for run in (before, after))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return found + [Change(name, old.get(name), new.get(name), "changed") for name in names]


def scores(before: NDArray[np.float32], after: NDArray[np.float32]) -> str:
    """How the nats of every token differ, in words; both score the same tokens."""
    import numpy as np

    if before.tobytes() == after.tobytes():
        return "bit for bit the same"
    if len(before) != len(after):
        return "not the same number of tokens"
    with np.errstate(invalid="ignore"):  # infinity less infinity
        apart = np.abs(before.astype(float) - after.astype(float))
    apart[before == after] = 0.0  # infinities too
    where = int(np.argmax(np.nan_to_num(apart, nan=math.inf)))
    return f"at most {apart[where]:.1e} nats apart (token {where:,})"


def _versions(text: str) -> dict[str, str]:
    return {name: version for name, _, version in (each.partition("==") for each in text.split())}
