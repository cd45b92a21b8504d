"""Every figure by name: finished runs in, a Plotly figure and its caption out.

A figure's module is imported when it is drawn, so that the help, which lists them, loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from core.errors import StreamError, unknown
from streamcli.harmless import visible
from streamcli.render.figures.drawn import TITLES, Drawn, Traces

if TYPE_CHECKING:
    import pandas as pd

    from streamcli.analysis.repeats import Key, Times

__all__ = ["NAMES", "TITLES", "Drawn", "Traces", "draw", "draw_all"]

MODULES = {
    "decode-runtime": "methods",
    "decode-perplexity": "methods",
    "main": "methods",
    "window": "sizes",
    "sinks": "sizes",
    "summary": "trades",
    "stream": "streams",
    "latency": "sizes",
    "memory": "streams",
    "pareto": "trades",
    "pareto-memory": "trades",
    "accuracy": "methods",
    "recall": "answers",
}
NAMES = tuple(MODULES)


def draw(name: str, runs: pd.DataFrame, traces: Traces) -> Drawn:
    """Draw one figure.

    Args:
        name: One of ``NAMES``.
        runs: Finished runs with the columns of ``results.columns.COLUMNS``; repeats are rows.
        traces: From a run's name to the nats of its scored tokens and the ms of its steps.

    Raises:
        UsageError: No such figure.
    """
    return draw_all([name], runs, traces)[0]


def draw_all(
    names: Iterable[str],
    runs: pd.DataFrame,
    traces: Traces,
    times: Mapping[Key, Times] | None = None,
) -> list[Drawn]:
    """Draw several figures of the same runs, which are sorted out once; see ``draw``.

    One that can't be drawn is a ``Drawn`` without a figure, which says why. ``times`` are those of
    repeats that are not among ``runs``, by ``analysis.repeats``.
    """
    for name in (wanted := list(names)):
        if name not in MODULES:
            raise unknown("figure", name, NAMES)
    from streamcli.render.figures import panels

    found = panels.points(runs, times)
    fit = [point for point in found if point.drawable]
    words = ""
    if unfit := len(found) - len(fit):
        words = (
            f" {unfit} of {len(found)} configurations have no finite perplexity and are not drawn."
        )
    drawn = []
    for name in wanted:
        module = import_module(f"streamcli.render.figures.{MODULES[name]}")
        try:
            figure: Drawn = getattr(module, name.replace("-", "_"))(fit, traces)
        except StreamError as error:  # such as a damaged trace, which spoils no other figure
            drawn.append(Drawn(name, TITLES[name], None, str(error)))
            continue
        drawn.append(replace(figure, caption=visible(figure.caption + words)))
    return drawn
