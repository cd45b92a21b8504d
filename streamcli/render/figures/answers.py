"""How far back each method still knows: accuracy by distance, beside chance and the cache's end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from streamcli.analysis import distances
from streamcli.render.figures import captions, panels, style
from streamcli.render.figures.drawn import Drawn, Traces, nothing
from streamcli.render.figures.panels import Chosen, Point
from streamcli.results.columns import COLUMNS, format_value

if TYPE_CHECKING:
    import plotly.graph_objects as go

APART = 1.04  # between the marks of two methods, so that their bars don't lie on each other
TOP = 1.08  # of the axis of shares
ASKING = "sweep --datasets recall --methods streaming window recompute dense --modes chunked"


def recall(found: list[Point], traces: Traces) -> Drawn:
    """Accuracy by distance in tokens, a line a method, one panel a text."""
    from plotly.subplots import make_subplots

    name = "recall"
    asked = [point for point in found if distances.spans(point.run["answers"])]
    chosen = panels.choose_budget(asked, lambda panel: [p for p in panel if not p.lazy])
    if not chosen.panels:
        return nothing(name, "no run read a text that asks for what it told", ASKING)
    figure = make_subplots(rows=len(chosen.panels), cols=1, vertical_spacing=0.16)
    style.headings(figure, map(panels.heading, chosen.panels))
    for row, panel in enumerate(chosen.panels, start=1):
        for place, point in enumerate(panel):
            _line(figure, point, APART ** (place - (len(panel) - 1) / 2), row)
        _mark(figure, panel, chosen, row)
    figure.update_yaxes(title_text="right answers", range=[-0.03, TOP], tickformat=".0%")
    title = "tokens since it was told (log)"
    figure.update_xaxes(title_text=title, row=len(chosen.panels), col=1)
    caption = (
        "Share of questions whose true answer was the likeliest of its candidates, by how many "
        "tokens before it was told; a mark stands for the distances between the ticks beside it, "
        f"the first for all up to {distances.NEAREST}; bars are 95 % intervals by Wilson, as if "
        "questions were independent. "
        f"{_counts(chosen)}{_horizons(chosen)}{captions.circumstances(chosen)}"
    )
    return captions.finished(name, figure, chosen, caption, height=300 * len(chosen.panels))


def _line(figure: go.Figure, point: Point, aside: float, row: int) -> None:
    spans = distances.spans(point.run["answers"])
    shares = [span.accuracy for span in spans]
    style.add(
        figure,
        point.label,
        row=row,
        x=[span.middle * aside for span in spans],
        y=shares,
        mode="lines+markers",
        line=style.line(point.method, 1.8, point.nth),
        marker=style.marker(point.method, 8, point.nth),
        error_y=style.error([span.ends for span in spans], shares),
        customdata=[[span.words, span.right, span.asked] for span in spans],
        hovertemplate="%{customdata[0]} tokens: %{customdata[1]} of %{customdata[2]}<extra>"
        f"{point.label}</extra>",
        cliponaxis=False,
    )


def _mark(figure: go.Figure, panel: list[Point], chosen: Chosen, row: int) -> None:
    """Ticks where spans end, a line at chance, and one where the cache ends."""
    ticks = distances.ends(distances.spans(point.run["answers"]) for point in panel)
    figure.update_xaxes(
        type="log",
        range=[math.log10(ticks[0] / 2.2), math.log10(ticks[-1] * 1.1)],
        tickvals=ticks,
        ticktext=[f"{tick:,}" for tick in ticks],
        row=row,
        col=1,
    )
    chance = float(panel[0].run["chance"])
    share = format_value(COLUMNS["chance"], chance)
    words = style.REMARK | {"text": f"chance: {share}"}
    left = {"annotation": words, "annotation_position": "top left"}
    figure.add_hline(y=chance, line=style.DOTTED, **left, row=row, col=1)
    kept = chosen.kept
    if ticks[0] / 2 < kept < ticks[-1]:
        figure.add_vline(x=kept, line=style.DOTTED, row=row, col=1)
        words = style.REMARK | {"text": f"cache: {kept:,}", "yanchor": "top", "showarrow": False}
        # of a logarithmic axis, an annotation's place is a logarithm and a line's is not
        figure.add_annotation(words, x=math.log10(kept), y=TOP, row=row, col=1)


def _horizons(chosen: Chosen) -> str:
    """Where each line falls to chance."""
    parts = [
        f"{point.label} {found.words}"
        for point in chosen.points
        if (found := distances.horizon(point.run))
    ]
    if not parts:
        return ""
    return (
        "Above chance by exact intervals up to this many tokens (+: all that was asked): "
        f"{'; '.join(parts)}. "
    )


def _counts(chosen: Chosen) -> str:
    """How many questions each mark is of."""
    counts = [
        span.asked for point in chosen.points for span in distances.spans(point.run["answers"])
    ]
    low, high = min(counts), max(counts)
    return f"A mark is of {low:,} to {high:,} questions. " if low < high else ""
