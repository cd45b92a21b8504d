"""The one rule on repeats, for every table and figure: the latest perplexity, the median time.

A repeat is a run of the same configuration on the same model files, tokens, machine and processor,
at the same commit. A row stands for all of them: its perplexity, memory and notes are the latest
run's, its time a token is the median over all of them, and the share that they waited the largest.
Repeats give one perplexity, as far as code and machine are the same, but never one time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median as median_of
from typing import TYPE_CHECKING, Any, TypeAlias

from core.registry import MODES
from streamcli.analysis.comparison import TIMES, Row, number, rows_of, time_column
from streamcli.results.columns import SAME_RUN, missing

if TYPE_CHECKING:
    import pandas as pd

Round: TypeAlias = tuple[str, int]  # a sweep, and which of its turns
Key: TypeAlias = tuple[Any, ...]

REPEATED = (*SAME_RUN, "cpu", "gpu", "git_commit", "method_package")  # what repeats share
MEASURED = ("waited", *TIMES)
TIME = ("mode", "sweep", "repeat", "ppl", *MEASURED)
TIMED = (*REPEATED, *TIME)
RULE = "the perplexity is the latest's, and the time the median over those at its commit"
OF_ROUNDS = "a speed-up the geometric mean over rounds where there are 3"


@dataclass(frozen=True)
class Times:
    """The times a token of a run and its repeats, in ms: all of them, and those of rounds.

    ``ppl`` are the perplexities of as many, ``waits`` the shares that they waited, where known.
    """

    every: list[float] = field(default_factory=list)
    rounds: dict[Round, float] = field(default_factory=dict)
    ppl: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Their median, NaN where there are none."""
        return median_of(self.every) if self.every else math.nan

    @property
    def waited(self) -> float:
        """The largest share of its time that one of them waited for a processor, else NaN."""
        return max(self.waits, default=math.nan)


def key(row: Mapping[Any, Any]) -> Key:
    """What a run shares with its repeats."""
    return tuple(row[name] for name in REPEATED)


def own_times(rows: Iterable[Row]) -> dict[Key, Times]:
    """The time of each run, by its name."""
    names = [(row["run_id"], row["mode"], "", 0, *(row[each] for each in TIME[3:])) for row in rows]
    return times(names, {name[0]: (name[0],) for name in names})


def times(found: Iterable[Any], keys: Mapping[Any, Key] | None = None) -> dict[Key, Times]:
    """The times of runs and their repeats, by what repeats share.

    Args:
        found: Rows of ``TIMED``, a great many perhaps; with ``keys``, of a name and ``TIME``.
        keys: What the repeats of a name share.
    """
    every: dict[Key, Times] = {}
    kinds = 1 if keys else len(REPEATED)
    places = {mode: kinds + TIME.index(time_column(mode)) for mode in MODES}
    for row in found:
        mode, sweep, turn, ppl, waited = row[kinds : kinds + 5]
        value = number(row[places[mode]])
        if value > 0:
            key = keys[row[0]] if keys else tuple(row[:kinds])
            mine = every.get(key) or every.setdefault(key, Times())
            mine.every.append(value)
            mine.ppl.append(number(ppl))
            if not missing(waited):
                mine.waits.append(waited)
            if sweep:
                mine.rounds.setdefault((sweep, int(turn)), value)
    return every


def timed(runs: pd.DataFrame, found: Mapping[Key, Times]) -> pd.DataFrame:
    """Runs with the time a token that their rows show, and how long they and repeats waited.

    Both are a run's own where no repeat is known.
    """
    rows = rows_of(runs)
    mine = [found.get(key(row), Times()) for row in rows]
    times = [
        each.median if each.median > 0 else number(row[time_column(str(row["mode"]))])
        for row, each in zip(rows, mine, strict=True)
    ]
    waits = [
        each.waited if each.waits else number(row["waited"])
        for row, each in zip(rows, mine, strict=True)
    ]
    return runs.assign(compared_ms=times, compared_waited=waits)
