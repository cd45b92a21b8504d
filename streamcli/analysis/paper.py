"""The paper's tables of perplexity: which rows they have, and what runs make these.

Xiao et al. 2023, arXiv 2309.17453: tables 1, 2 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core import registry
from streamcli.analysis.comparison import Row
from streamcli.analysis.statistics import Difference

SINKS = 4


@dataclass(frozen=True)
class Wanted:
    """One table of the paper.

    Attributes:
        name: Its name there.
        about: What it shows.
        by: What varies from row to row.
        cells: What a run of a row has, by what the row is called; half the trained length is the
            budget of those that say nothing of ``window``.
        base: The row that the others are held against.
        published: What rows are called in the published series, where that is not their name.
    """

    name: str
    about: str
    by: str
    cells: dict[str, dict[str, Any]]
    base: str
    published: dict[str, str]


def _streaming(**more: Any) -> dict[str, Any]:
    return {"method": registry.STREAMING, "n_sink": SINKS, **more}


FOUR, BREAKS = "4 sinks and a window", "4 line breaks and a window"
TABLES = (
    Wanted(
        "Table 1",
        "what each way to read a long text makes of it",
        "method",
        {
            registry.DENSE: {"method": registry.DENSE},
            registry.WINDOW: {"method": registry.WINDOW, "n_sink": SINKS},
            FOUR: _streaming(),
            BREAKS: _streaming(method=registry.LINE_BREAKS),
            registry.BASELINE: {"method": registry.BASELINE, "n_sink": SINKS},
        },
        registry.BASELINE,
        {FOUR: "4+1020", BREAKS: "4 line breaks+1020"},
    ),
    Wanted(
        "Table 2",
        "how many sinks it takes, with as many keys in all",
        "sinks",
        {f"{count}": _streaming(n_sink=count) for count in (0, 1, 2, 4, 8)},
        f"{SINKS}",
        {},
    ),
    Wanted(
        "Table 6",
        "what a larger cache gains, with 4 sinks",
        "window",
        {f"{size}": _streaming(window=size) for size in (252, 508, 1020, 2044, 4092)},
        "252",
        {},
    ),
)


@dataclass(frozen=True)
class Cell:
    """A row of a table: its run, None where there is none, and what it differs from the base by."""

    name: str
    run: Row | None
    difference: Difference | None = None


@dataclass(frozen=True)
class Found:
    """A table of the paper with what was measured here."""

    wanted: Wanted
    cells: list[Cell]

    @property
    def runs(self) -> list[Row]:
        """The runs that there are."""
        return [cell.run for cell in self.cells if cell.run is not None]
