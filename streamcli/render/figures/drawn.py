"""What a figure is once it is drawn, and what each is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import plotly.graph_objects as go
    from numpy.typing import NDArray

Traces: TypeAlias = "Callable[[str], tuple[NDArray[np.float32], NDArray[np.float32]]]"

TITLES = {  # short: each is one line on a phone
    "decode-runtime": "Time a token in the decode loop",
    "decode-perplexity": "Perplexity in the decode loop",
    "main": "Every method in every mode",
    "window": "Perplexity and time by cache size",
    "sinks": "Perplexity by number of sinks",
    "summary": "Perplexity lost for time saved",
    "stream": "Log-perplexity along the stream",
    "latency": "Time a token by keys seen",
    "memory": "Cache memory by stream length",
    "pareto": "Perplexity against time a token",
    "pareto-memory": "Perplexity against cache memory",
    "accuracy": "Right answers by method",
    "recall": "Right answers by distance",
}


@dataclass(frozen=True)
class Drawn:
    """One figure.

    Attributes:
        name: Its name, which is also its file's.
        title: What it shows, as its heading says.
        figure: The figure; None where the runs hold nothing to draw.
        caption: What the runs behind it were; why there is nothing, and what would record it.
    """

    name: str
    title: str
    figure: go.Figure | None
    caption: str


def nothing(name: str, why: str, command: str) -> Drawn:
    """No figure, for want of runs that ``command`` would record."""
    return Drawn(name, TITLES[name], None, f"{why}: record them with `streamcli {command}`.")
