"""How figures look: one colour, marker and dash a method, one template, axes that read well.

The colours are Okabe and Ito's (https://jfly.uni-koeln.de/color), with their grey: told apart by
the colour-blind; marker, dash and hatch differ too, for print in grey.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from core.registry import look
from streamcli.harmless import visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
INK, SOFT, GRID = "#222222", "#555555", "#E6E6E6"
BLACK, ON_BLACK = "#000000", "#8C8C8C"  # a method's colour, and what is seen on it and on paper
PHONE = 380  # pixels
CHARACTER = 8  # pixels of the subtitle, rather too many
LEAST = 0.05  # of a perplexity, spanned by its axis
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
THIN: dict[str, Any] = {"color": SOFT, "width": 1}  # a line that marks a place
DOTTED = THIN | {"dash": "dot"}
REMARK: dict[str, Any] = {  # a word beside such a line
    "font": {"size": 11, "color": SOFT},
    "bgcolor": "rgba(255,255,255,0.75)",
}
EDGE = 0.08  # of an axis, before its first value
SMALL = 17  # pixels a line of the subtitle
BOTTOM, LEGEND_ROW = 58, 24  # pixels: ticks and the axis title, and a row of the legend


def marker(method: str, size: int = 10, nth: int = 0) -> dict[str, Any]:
    """A method's marker, with an outline that holds a pale colour on paper.

    That of every second of its variants, of which this is the ``nth``, is open.
    """
    edge, symbol = {"color": INK, "width": 0.8}, look(method).symbol
    if nth % 2 and not symbol.endswith("-open"):
        symbol += "-open"
    return {"color": look(method).colour, "symbol": symbol, "size": size, "line": edge}


def line(method: str, width: float = 2.2, nth: int = 0) -> dict[str, Any]:
    """A method's line; the ``nth`` of its variants has another dash."""
    dash = DASHES[nth % len(DASHES)] if nth else look(method).dash
    return {"color": look(method).colour, "dash": dash, "width": width}


def add(figure: go.Figure, name: str, *, row: int = 1, **how: Any) -> None:
    """Add lines or marks to a panel; the legend names what has this name once."""
    first = name not in {trace.name for trace in figure.data}
    named = {"name": name, "legendgroup": name, "showlegend": first}
    figure.add_scatter(**named, **how, row=row, col=1)


def error(
    low_high: Iterable[tuple[float, float]], values: Iterable[float], colour: str = INK
) -> dict[str, Any]:
    """Error bars from lowest to highest, none where both are the value."""
    pairs = list(zip(low_high, values, strict=True))
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for (_, high), value in pairs],
        "arrayminus": [value - low for (low, _), value in pairs],
        "color": colour,
        "thickness": 1.2,
        "width": 4,
        "visible": any(low < high for (low, high), _ in pairs),
    }


def finish(figure: go.Figure, title: str, subtitle: str, *, height: int, legend: bool) -> None:
    """Title, size and template, so that nothing is cut off on a phone; ``height`` is without title.

    The legend hangs below the plot, whose bottom margin has room for it at phone width.
    """
    small = _wrapped(visible(subtitle), PHONE)
    top = 44 + SMALL * len(small) + (28 if figure.layout.annotations else 8)
    rows = _legend_rows(figure, PHONE) if legend else 0
    figure.update_layout(
        template=template(),
        title={"text": title, "subtitle": {"text": "<br>".join(small)}},
        height=height + top + BOTTOM + LEGEND_ROW * rows,
        margin={"t": top, "b": BOTTOM + LEGEND_ROW * rows, "l": 62, "r": 16},
        showlegend=legend,
        legend={"y": -(BOTTOM - 6) / height},
    )


def fit(figure: go.Figure, width: int) -> go.Figure:
    """A copy ``width`` pixels wide: its legend has just its rows, its subtitle just its lines."""
    import plotly.graph_objects as go

    rows = 0
    if figure.layout.showlegend:
        rows = max(0, _legend_rows(figure, PHONE) - _legend_rows(figure, width))
    given = str(figure.layout.title.subtitle.text or "").split("<br>")
    small = _wrapped(" ".join(given), width)
    bottom, top = LEGEND_ROW * rows, SMALL * (len(given) - len(small))
    return go.Figure(figure).update_layout(
        width=width,
        height=figure.layout.height - bottom - top,
        margin={"b": figure.layout.margin.b - bottom, "t": figure.layout.margin.t - top},
        title={"subtitle": {"text": "<br>".join(small)}},
    )


def untitled(figure: go.Figure) -> tuple[str, go.Figure]:
    """The subtitle, and a copy without title, for a page that sets both itself."""
    import plotly.graph_objects as go

    lines = str(figure.layout.title.subtitle.text or "").split("<br>")
    spare = 36 + SMALL * len(lines)
    height, top = figure.layout.height - spare, figure.layout.margin.t - spare
    shown = go.Figure(figure).update_layout(title=None, height=height, margin_t=top)
    return " ".join(lines), shown


def _wrapped(subtitle: str, width: int) -> list[str]:
    """The lines of a subtitle; on a phone of about 46 characters."""
    return textwrap.wrap(subtitle, max(20, width // CHARACTER - 1), break_on_hyphens=False)


def _legend_rows(figure: go.Figure, width: int) -> int:
    """Rows that the legend takes, its entries one after the other; rather one too many."""
    rows, used = 1, 0.0
    for name in dict.fromkeys(t.name for t in figure.data if t.name and t.showlegend is not False):
        entry = 70 + 6.8 * len(name)
        rows, used = (rows + 1, entry) if used + entry > width - 50 else (rows, used + entry)
    return rows


def template() -> go.layout.Template:
    """For a paper's column and a web page: light, few lines, large enough when shrunk."""
    import plotly.graph_objects as go

    lines = {
        "showline": True,
        "linecolor": SOFT,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": SOFT,
        "gridcolor": GRID,
        "zeroline": False,
        "separatethousands": True,
        "tickangle": 0,
        "tickfont": {"size": 12},
        "title": {"font": {"size": 13}, "standoff": 8},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": INK},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "title": {
                "font": {"size": 17, "weight": 600},
                "subtitle": {"font": {"size": 13, "color": SOFT}},
                "x": 0,
                "xanchor": "left",
                "y": 1,
                "yanchor": "top",
                "yref": "container",
                "pad": {"t": 12, "l": 12},
            },
            "legend": {
                "orientation": "h",
                "x": 0.5,
                "xanchor": "center",
                "yanchor": "top",
                "font": {"size": 12},
                "itemwidth": 40,
            },
            "xaxis": lines,
            "yaxis": lines | {"automargin": True},
            "hoverlabel": {"font": {"family": FONT, "size": 12}},
            "bargap": 0.35,
        }
    )


def headings(figure: go.Figure, texts: Iterable[str], *, left: float = 0) -> None:
    """The heading of each subplot above it, ``left`` pixels before its axis, in their order."""
    for text, axis in zip(texts, figure.select_xaxes(), strict=False):
        if text:
            name = (axis.plotly_name or "xaxis").removeprefix("xaxis")
            figure.add_annotation(
                text=visible(text),
                x=0,
                y=1,
                xref=f"x{name} domain",
                yref=f"y{name} domain",
                xanchor="left",
                yanchor="bottom",
                xshift=-left,
                showarrow=False,
                font={"size": 13, "color": INK, "weight": 600},
            )


def scale(
    values: Iterable[float], *, log: bool, room: float = 0.06, most: int = 6, least: float = 0
) -> dict[str, Any]:
    """Range and ticks, ``most`` at most, of an axis, with ``room`` past the last of its values.

    It spans ``least`` of its highest value at least, so that no thousandth looks like an effect.
    """
    found = sorted(values)
    low, high = found[0], found[-1]
    if not log:
        if (short := least * abs(high) - (high - low)) > 0:
            low, high = low - short / 2, high + short / 2
        span = (high - low) or abs(high) * 0.2 or 1
        return {"range": [low - EDGE * span, high + room * span], "nticks": most}
    span = math.log10(high / low) or 0.1
    ends = [math.log10(low) - EDGE * span, math.log10(high) + room * span]
    ticks = _log_ticks(ends[0], math.log10(high) + EDGE * span, most)
    return {
        "type": "log",
        "range": ends,
        "tickvals": ticks,
        "ticktext": [f"{tick:,.10g}" if 1e-3 <= tick < 1e5 else f"{tick:.0e}" for tick in ticks],
    }


def axis(values: Iterable[float], title: str, **asked: Any) -> dict[str, Any]:
    """The same with a title, which says so where it is logarithmic."""
    words = f"{title[:-1]}, log)" if title.endswith(")") else f"{title} (log)"
    return scale(values, **asked) | {"title_text": words if asked["log"] else title}


def wide(values: Iterable[float], times: float = 3) -> bool:
    """Whether values differ so much that only a logarithmic axis shows the small ones apart."""
    found = list(values)
    return max(found) > times * min(found) > 0


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two powers of ten."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    every = math.ceil(len(decades) / most)
    tenths = [n / 10 for n in range(10, 100)]
    series = (tenths, [1, 1.5, 2, 3, 4, 5, 6, 8], [1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1])
    finer: list[float] = []
    for steps in series:
        ticks = [
            float(f"{step * 10.0**decade:.3g}")
            for decade in decades
            if len(steps) > 1 or (decade - decades[0]) % every == 0
            for step in steps
            if low <= math.log10(step * 10.0**decade) <= high
        ]
        if len(ticks) <= most:
            break
        finer = ticks
    if len(ticks) < 2 and finer:  # a round number or two of the finer ones instead
        ticks = [finer[round(n * (len(finer) - 1) / (most - 1))] for n in range(most)]
    return ticks
