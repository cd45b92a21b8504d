"""The paper's tables on any model: the runs that make them, and what was found.

Each is read as one stream from document to document, as the paper and its scripts do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core import registry
from core.config import RunConfig
from streamcli.analysis import paired
from streamcli.analysis.comparison import Row
from streamcli.analysis.paper import SINKS, TABLES, Cell, Found, Wanted
from streamcli.jobs import scores
from streamcli.jobs.ledger import Ledger
from streamcli.jobs.plan import Plan
from streamcli.settings import Settings

if TYPE_CHECKING:
    from streamcli.render.figures import Drawn


def plan(asked: Settings) -> Plan:
    """Every run that the tables need, once; a cache beyond the trained length is left out."""
    arms = {_arm(asked, cell): None for each in TABLES for cell in each.cells.values()}
    return Plan((tuple(arms),), 1, within_trained=True)


def found(asked: Settings, names: dict[RunConfig, str], ledger: Ledger) -> list[Found]:
    """The tables with the runs that were made.

    Args:
        asked: What was asked for.
        names: The run of each configuration of the plan, as far as there is one.
        ledger: Where the runs are.
    """
    rows = {row["run_id"]: row for row in ledger.runs(list(names.values())).to_dict("records")}
    of = {arm: rows.get(name) for arm, name in names.items()}
    return [_found(each, ledger, lambda cell: of.get(_arm(asked, cell))) for each in TABLES]


def along(asked: Settings, names: dict[RunConfig, str], ledger: Ledger, name: str) -> Drawn:
    """The runs of the first table along the stream, called ``name``; see ``found``."""
    import numpy as np

    from streamcli.render.figures import draw

    def trace(run_id: str) -> tuple[Any, Any]:
        return ledger.run(run_id)[1], np.empty(0, np.float32)

    made = [names[arm] for cell in TABLES[0].cells.values() if (arm := _arm(asked, cell)) in names]
    drawn = draw("stream", ledger.runs(made), trace)
    return replace(drawn, name=name)


def _found(wanted: Wanted, ledger: Ledger, run: Callable[[dict[str, Any]], Row | None]) -> Found:
    made = {name: run(cell) for name, cell in wanted.cells.items()}
    base = made[wanted.base]
    held = {name: (row, base) for name, row in made.items() if row and base and row is not base}
    nll, lengths = scores.of_pairs(ledger.store, list(held.values())) if held else ({}, {})
    differences = {name: paired.difference(*pair, nll, lengths) for name, pair in held.items()}
    return Found(wanted, [Cell(name, row, differences.get(name)) for name, row in made.items()])


def _arm(asked: Settings, cell: dict[str, Any]) -> RunConfig:
    """A run's configuration; what a method has not is as everywhere."""
    spec = registry.method(cell["method"])
    size = {"n_sink": SINKS, "window": None} | cell
    if spec.budget == "none":
        size = {**size, "n_sink": SINKS, "window": None}
    return asked.config(mode=registry.CHUNKED, timed_tokens=None, context_tokens=None, **size)
