"""Methods side by side at one budget: runtime, perplexity, both in every mode, and accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.registry import BASELINE, DECODE
from core.registry import look as look_of
from streamcli.render.figures import captions, panels, style
from streamcli.render.figures.drawn import Drawn, Traces, nothing
from streamcli.render.figures.panels import Chosen, Point
from streamcli.render.notes import MARK
from streamcli.results.columns import COLUMNS, format_value

if TYPE_CHECKING:
    import plotly.graph_objects as go

ROW = 30  # pixels a method
GAP = 84  # pixels between panels: ticks, axis title, heading
ASK = "sweep --datasets choice --methods streaming window dense --modes chunked"
COMPARE = "sweep --methods streaming window recompute dense --modes decode-loop"


@dataclass(frozen=True)
class Measure:
    """What is drawn of a point."""

    title: str
    value: Callable[[Point], float]
    low_high: Callable[[Point], tuple[float, float]]
    column: str

    def text(self, point: Point) -> str:
        """The value in words, as the tables write it."""
        value = self.value(point)
        if 1000 <= value < 1e6:
            return f"{value:,.0f}"
        return format_value(COLUMNS[self.column], value)


PPL = Measure("perplexity", lambda p: p.ppl, lambda p: p.ppl_bar, "ppl")
RIGHT = Measure(
    "right answers",
    lambda p: float(p.run["accuracy"]),
    lambda p: (float(p.run["accuracy_low"]), float(p.run["accuracy_high"])),
    "accuracy",
)
MS = Measure("ms a token", lambda p: p.ms, lambda p: p.ms_bar, "ms_per_token")


def decode_runtime(found: list[Point], traces: Traces) -> Drawn:
    """Bars of the median decode step, from zero, one panel a text."""
    return _decode(
        "decode-runtime",
        found,
        MS,
        "Median time of a decode step once the cache is full",
        bars=True,
    )


def decode_perplexity(found: list[Point], traces: Traces) -> Drawn:
    """Dots, since no bar could begin at zero, one panel a text."""
    return _decode(
        "decode-perplexity",
        found,
        PPL,
        "Token perplexity over all scored tokens; the dotted line is re-computation",
        bars=False,
    )


def main(found: list[Point], traces: Traces) -> Drawn:
    """Perplexity to the left and time to the right, one row of panels a text and mode."""
    name = "main"
    chosen = panels.choose_budget(found, _comparable, modes_apart=False)
    if not chosen.panels:
        return nothing(name, "no two methods were run at one budget", "sweep")
    figure = _grid([len(panel) for panel in chosen.panels], columns=2)
    titles = []
    for row, panel in enumerate(chosen.panels, start=1):
        for column, measure in enumerate((PPL, MS), start=1):
            _dots(figure, panel, measure, row, column, paired=True)
        figure.update_yaxes(showticklabels=False, col=2, row=row)
        titles += [f"{panels.heading(panel)}, {panel[0].run['mode']}", ""]
    longest = max(len(point.label) for point in chosen.points)
    style.headings(figure, titles, left=6 * longest)
    caption = _caption(
        chosen,
        "Perplexity and time a token (a median step in decode-loop and kvpress-official, elapsed "
        "time over tokens in chunked); panels are not to be compared with each other.",
    )
    return _finished(name, figure, chosen, caption)


def accuracy(found: list[Point], traces: Traces) -> Drawn:
    """Shares of right answers with their intervals, one panel a text that asks."""
    name = "accuracy"
    chosen = panels.choose_budget([p for p in found if p.run["accuracy"] is not None], _comparable)
    if not chosen.panels:
        return nothing(name, "no two methods read a text that asks, at one budget", ASK)
    figure = _grid([len(panel) for panel in chosen.panels], columns=1)
    for row, panel in enumerate(chosen.panels, start=1):
        _dots(figure, panel, RIGHT, row, 1)
        ticks = {"tickmode": "linear", "tick0": 0, "dtick": 0.2, "tickformat": ".0%"}
        whole = {"type": "linear", "range": [0, 1.12], "title_text": RIGHT.title}
        figure.update_xaxes(tickvals=None, ticktext=None, **ticks, **whole, row=row, col=1)
        figure.add_vline(x=float(panel[0].run["chance"]), line=style.DOTTED, row=row, col=1)
    style.headings(figure, map(panels.heading, chosen.panels))
    caption = (
        "Share of questions whose true answer was the likeliest of its candidates; the dotted line "
        "is guessing, bars are 95 % intervals by Wilson, as if questions were independent; all "
        "answered the same ones, so `streamcli compare` tells smaller differences apart."
        f"{_larger(chosen)} {captions.circumstances(chosen)}"
    )
    return _finished(name, figure, chosen, caption)


def _decode(name: str, found: list[Point], measure: Measure, what: str, *, bars: bool) -> Drawn:
    chosen = panels.choose_budget([p for p in found if p.run["mode"] == DECODE], _comparable)
    if not chosen.panels:
        return nothing(name, "no two methods were run at one budget in decode-loop", COMPARE)
    figure = _grid([len(panel) for panel in chosen.panels], columns=1)
    for row, panel in enumerate(chosen.panels, start=1):
        (_bars if bars else _dots)(figure, panel, measure, row, 1)
    style.headings(figure, map(panels.heading, chosen.panels))
    caption = _caption(chosen, f"{what}.", measure)
    return _finished(name, figure, chosen, caption)


def _comparable(panel: list[Point]) -> list[Point]:
    return panel if len({(point.method, point.variant) for point in panel}) > 1 else []


def _grid(rows: list[int], columns: int) -> go.Figure:
    """Subplots whose heights are as the numbers of their methods."""
    from plotly.subplots import make_subplots

    height = ROW * sum(rows) + GAP * (len(rows) - 1)
    figure = make_subplots(
        rows=len(rows),
        cols=columns,
        row_heights=[float(number) for number in rows],
        vertical_spacing=GAP / height if len(rows) > 1 else 0,
        horizontal_spacing=0.08,
    )
    return figure.update_layout(height=height)


def _bars(figure: go.Figure, panel: list[Point], measure: Measure, row: int, column: int) -> None:
    for point in panel:
        look, value = look_of(point.method), measure.value(point)
        ink = style.ON_BLACK if look.colour == style.BLACK else style.INK
        hatch = {"shape": look.hatch, "fillmode": "overlay", "size": 7, "solidity": 0.12}
        figure.add_bar(
            name=point.label,
            x=[value],
            y=[point.label],
            orientation="h",
            error_x=style.error([measure.low_high(point)], [value], ink),
            marker={
                "color": look.colour,
                "line": {"color": style.INK, "width": 0.8},
                "pattern": hatch | {"fgcolor": "#FFF"},
            },
            showlegend=False,
            hovertemplate="%{y}: %{x:.4g} ms<extra></extra>",
            row=row,
            col=column,
        )
    _values(figure, panel, measure, row, column)
    most = max(measure.low_high(point)[1] for point in panel)
    _rows(figure, panel, row, column, dotted=False)
    figure.update_xaxes(
        range=[0, 1.2 * most], nticks=6, title_text=measure.title, row=row, col=column
    )


def _dots(
    figure: go.Figure,
    panel: list[Point],
    measure: Measure,
    row: int,
    column: int,
    *,
    paired: bool = False,
) -> None:
    for point in panel:
        value = measure.value(point)
        figure.add_scatter(
            name=point.label,
            x=[value],
            y=[point.label],
            mode="markers",
            marker=style.marker(point.method, 11, point.nth),
            error_x=style.error([measure.low_high(point)], [value]),
            showlegend=False,
            hovertemplate="%{y}: %{x:.5g}<extra></extra>",
            row=row,
            col=column,
        )
    _values(figure, panel, measure, row, column)
    _rows(figure, panel, row, column, dotted=True)
    ends = [end for point in panel for end in measure.low_high(point)]
    log = style.wide(map(measure.value, panel))
    room, most = (0.9, 3) if paired else (0.3, 6)
    least = style.LEAST if measure is PPL else 0
    axis = style.axis(ends, measure.title, log=log, room=room, most=most, least=least)
    figure.update_xaxes(**axis, row=row, col=column)
    for base in [p for p in panel if p.method == BASELINE and measure is PPL][:1]:
        figure.add_vline(x=base.ppl, line=style.DOTTED, row=row, col=column)


def _values(figure: go.Figure, panel: list[Point], measure: Measure, row: int, column: int) -> None:
    """Each value in words, to the right of its mark."""
    figure.add_scatter(
        x=[measure.low_high(point)[1] for point in panel],
        y=[point.label for point in panel],
        text=[f"\N{EM SPACE}{measure.text(point)}" for point in panel],
        mode="text",
        textposition="middle right",
        textfont={"size": 12},
        cliponaxis=False,
        showlegend=False,
        hoverinfo="skip",
        row=row,
        col=column,
    )


def _rows(figure: go.Figure, panel: list[Point], row: int, column: int, *, dotted: bool) -> None:
    labels, over = [point.label for point in panel], _over(panel)
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=labels,
        tickvals=labels,
        ticktext=[f"{label}{MARK}" if label in over else label for label in labels],
        range=[len(labels) - 0.5, -0.5],
        ticks="",
        showgrid=dotted,
        griddash="dot",
        row=row,
        col=column,
    )


def _caption(chosen: Chosen, what: str, measure: Measure | None = None) -> str:
    bars = captions.bars(
        chosen.points,
        "value" if measure is None else "perplexity" if measure is PPL else "time",
    )
    return f"{what}{_larger(chosen)} {captions.circumstances(chosen)} {bars}"


def _larger(chosen: Chosen) -> str:
    """What the mark on a label means, where there is one."""
    marked = [item for panel in chosen.panels for item in _over(panel).items()]
    over = dict.fromkeys(f"{label} up to {most:,}" for label, most in marked)
    return f" {MARK} sees more keys than the others: {', '.join(over)}." if over else ""


def _over(panel: list[Point]) -> dict[str, int]:
    """The most keys that a token sees, of those in a panel with more than the fewest."""
    keys = {point.label: int(point.run["attended_keys"]) for point in panel}
    return {label: most for label, most in keys.items() if most > min(keys.values())}


def _finished(name: str, figure: go.Figure, chosen: Chosen, caption: str) -> Drawn:
    height = int(figure.layout.height)
    return captions.finished(name, figure, chosen, caption, height=height, legend=False)
