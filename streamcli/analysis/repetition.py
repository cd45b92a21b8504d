"""A run and its repetition: what of code, machine and scores is no longer the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcli.analysis.comparison import Row
from streamcli.results.columns import AROUND

# Versions are told package by package; changed files come with a commit of their own.
MADE_IN = tuple(name for name in AROUND if name not in ("git_dirty", "versions"))


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


def surroundings(before: Row, after: Row) -> list[Change]:
    """What of code and machine is not what it was."""
    found = [
        Change(name, before[name], after[name], "changed")
        for name in MADE_IN
        if before[name] != after[name]
    ]
    old, new = (_versions(run["versions"]) for run in (before, after))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return found + [Change(name, old.get(name), new.get(name), "changed") for name in names]


def scores(before: NDArray[np.float32], after: NDArray[np.float32]) -> str:
    """How the nats of every token differ, in words; both score the same tokens."""
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
