"""A figure's lines in the terminal, each by a letter and a colour, so that a pipe has it too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from core.errors import UsageError
from streamcli.render import output

if TYPE_CHECKING:
    from plotly.graph_objects import Scatter

    from streamcli.render.figures import Drawn

ROWS, LEFT, WIDEST = 16, 9, 110  # lines of a panel, columns for its scale, columns at most


def show(drawn: Drawn) -> None:
    """Print every panel of a figure made of lines, as wide as the terminal.

    Raises:
        UsageError: The figure is made of something else.
    """
    assert drawn.figure is not None
    lines = [each for each in drawn.figure.data if each.type == "scatter" and each.mode == "lines"]
    if not lines or len(lines) < len(drawn.figure.data):
        raise UsageError(f"{drawn.name} is not made of lines alone: choose --format html or png.")
    console = output.wide_console(piped=WIDEST)
    width = min(console.width, WIDEST)
    console.print(Text(drawn.title, style="bold"))
    titles = [each.text for each in drawn.figure.layout.annotations]
    for number, axis in enumerate(dict.fromkeys(trace.yaxis for trace in lines)):
        panel = [trace for trace in lines if trace.yaxis == axis]
        if number < len(titles):
            console.print(titles[number], markup=False, highlight=False)
        for row in _panel(panel, max(20, width - LEFT)):
            console.print(row, no_wrap=True, crop=True)
    console.print(drawn.caption, style="dim", markup=False, highlight=False)


def _panel(traces: Sequence[Scatter], width: int) -> list[Text]:
    """The rows of one panel, its scale in perplexity, and what each letter is."""
    values = [float(y) for trace in traces for y in trace.y if math.isfinite(y)]
    low, high = min(values), max(values)
    last = max(float(x) for trace in traces for x in trace.x)
    cells: list[list[tuple[str, str]]] = [[(" ", "")] * width for _ in range(ROWS)]
    letters = _letters([str(trace.name) for trace in traces])
    for trace, letter in reversed(list(zip(traces, letters, strict=True))):  # the first on top
        for x, y in zip(trace.x, trace.y, strict=True):
            if math.isfinite(y):
                column = min(width - 1, int(float(x) / last * (width - 1)))
                row = round((high - float(y)) / ((high - low) or 1) * (ROWS - 1))
                cells[row][column] = letter, str(trace.line.color)
    rows = []
    for number, drawn_row in enumerate(cells):
        nats = high - number / (ROWS - 1) * (high - low)
        scale = f"{math.exp(min(nats, 700)):.4g}" if number % 5 == 0 else ""
        text = Text(f"{scale:>{LEFT - 2}} |")
        for letter, colour in drawn_row:
            text.append(letter, style=colour)
        rows.append(text)
    rows.append(Text(f"{'':>{LEFT - 1}}+{'-' * width}"))
    end = f"token {last:,.0f}"
    rows.append(Text(f"{'':>{LEFT}}0{end:>{width - 1}}"))
    legend = Text("perplexity (log scale): ")
    for trace, letter in zip(traces, letters, strict=True):
        legend.append(f"{letter} {trace.name}  ", style=str(trace.line.color))
    return [*rows, legend]


def _letters(names: Sequence[str]) -> list[str]:
    """A letter for each name, its first that no other has."""
    taken: list[str] = []
    for name in names:
        free = (each for each in f"{name}0123456789*" if each.isalnum() and each not in taken)
        taken.append(next(free, "*"))
    return taken
