"""What grows with the cache: perplexity and time against its size, and against the sinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.registry import BASELINE, DECODE, STREAMING
from streamcli.render.figures import captions, panels, style
from streamcli.render.figures.drawn import Drawn, Traces, nothing
from streamcli.render.figures.panels import Chosen, Point

if TYPE_CHECKING:
    import plotly.graph_objects as go

ROW, GAP = 220, 0.24  # pixels a panel with its gap, and the share of it that is gap
SWEEP = "sweep --methods streaming window recompute --windows 60 124 252 --modes decode-loop"
SINKS = "sweep --preset sinks"
Line = dict[str, list[Point]]  # points by label, along the axis


def window(found: list[Point], traces: Traces) -> Drawn:
    """Perplexity and below it time, against S + W, text by text."""
    name = "window"
    chosen = panels.choose(found, _ablation)
    if not chosen.panels:
        return nothing(name, "no method was run at two cache sizes", SWEEP)
    figure = _grid(2 * len(chosen.panels), chosen)
    for number, panel in enumerate(chosen.panels):
        lines = _lines(panel, lambda point: point.kept)
        sizes = [point.kept for point in _flat(lines)]
        dense = [point for point in panel if not point.bounded][:1]
        for row, measure in enumerate(("ppl", "ms"), start=2 * number + 1):
            _plot(figure, lines, lambda p: p.kept, measure, row)
            _level(figure, dense, sizes, measure, row)
            figure.update_xaxes(**_sizes(sizes), row=row, col=1)
            _y_axis(figure, [*_flat(lines), *dense], measure, row)
    figure.update_xaxes(title_text="cache size S + W (tokens)", row=2 * len(chosen.panels), col=1)
    caption = (
        f"Perplexity and time a token against the tokens that the cache keeps, S = "
        f"{_sinks(chosen)} (window: 0). {captions.circumstances(chosen)} "
        f"{captions.bars(chosen.points, 'value')}"
    )
    return _finished(name, figure, chosen, f"S = {_sinks(chosen)}", caption)


def latency(found: list[Point], traces: Traces) -> Drawn:
    """Time a decode step against the keys that a query sees, both logarithmic."""
    name = "latency"
    bounded = [p for p in found if p.run["mode"] == DECODE and p.bounded]
    chosen = panels.choose(bounded, _ablation)
    if not chosen.panels:
        return nothing(name, "no method was timed in decode-loop at two cache sizes", SWEEP)
    figure = _grid(len(chosen.panels), chosen)
    for row, panel in enumerate(chosen.panels, start=1):
        lines = _lines(panel, _keys)
        _plot(figure, lines, _keys, "ms", row)
        figure.update_xaxes(**_sizes([_keys(point) for point in _flat(lines)]), row=row, col=1)
        _y_axis(figure, _flat(lines), "ms", row)
    figure.update_xaxes(title_text="keys a query sees, S + W + 1", row=len(chosen.panels), col=1)
    caption = (
        "Median decode step with a full cache against the most keys that a query sees, S = "
        f"{_sinks(chosen)} (window: 0). {captions.circumstances(chosen)} "
        f"{captions.repeats(chosen.points, 'time')}"
    )
    return _finished(name, figure, chosen, f"S = {_sinks(chosen)}", caption)


def sinks(found: list[Point], traces: Traces) -> Drawn:
    """Perplexity against S, a line a budget S + W where that is kept, else a window."""
    name = "sinks"
    chosen = panels.choose(found, _sink_ablation)
    if not chosen.panels:
        return nothing(name, "no budget was run with two numbers of sinks", SINKS)
    figure = _grid(len(chosen.panels), chosen)
    even = _even(chosen.points)
    sizes = sorted({_size(p, even=even) for p in chosen.points})
    symbol = "S + W" if even else "W"
    counts = sorted({int(p.run["n_sink"]) for p in chosen.points})
    for row, panel in enumerate(chosen.panels, start=1):
        lines = {
            f"{symbol} = {size:,}": sorted(
                (p for p in panel if _size(p, even=even) == size), key=lambda p: p.run["n_sink"]
            )
            for size in sizes
        }
        for number, (label, points) in enumerate(lines.items()):
            _line(
                figure,
                points,
                [counts.index(p.run["n_sink"]) for p in points],
                "ppl",
                row,
                name=label,
                number=number,
                dash=style.DASHES[number % len(style.DASHES)],
            )
        ends = [len(counts) - 1 + 0.3, -0.3]
        figure.update_xaxes(
            range=ends[::-1],
            tickvals=list(range(len(counts))),
            ticktext=[str(count) for count in counts],
            row=row,
            col=1,
        )
        _y_axis(figure, panel, "ppl", row)
    figure.update_xaxes(title_text="sinks S", row=len(chosen.panels), col=1)
    grows = "is the same for all S" if even else "grows with S"
    caption = (
        f"Perplexity of {STREAMING} against the number of sinks, {symbol} as in the legend, so "
        f"that the budget S + W {grows}. {captions.circumstances(chosen)} "
        f"{captions.bars(chosen.points, 'perplexity')}"
    )
    return _finished(name, figure, chosen, STREAMING, caption)


def _ablation(same: list[Point]) -> list[Point]:
    """The methods that were run at two cache sizes and more, at one S, and dense beside them."""
    sizes: dict[str, list[Point]] = {}
    taken = [p for p in panels.at_common_sinks(same) if p.spec.memory != "grows" or not p.bounded]
    for point in taken:
        sizes.setdefault(point.label, []).append(point)
    several = [label for label, points in sizes.items() if len(points) > 1]
    if set(several) <= {BASELINE}:  # what others are held against says nothing alone
        return []
    return [p for p in taken if p.label in several or (several and not p.bounded)]


def _sink_ablation(same: list[Point]) -> list[Point]:
    """Streaming at every budget with two numbers of sinks or more; without one, at every W."""
    taken = [p for p in same if p.method == STREAMING and not p.lazy and p.run["window"]]
    for even in (True, False):
        by_size: dict[int, dict[int, Point]] = {}
        for point in taken:
            by_size.setdefault(_size(point, even=even), {}).setdefault(
                int(point.run["n_sink"]), point
            )
        several = [by_s for by_s in by_size.values() if len(by_s) > 1]
        if several:
            return [point for by_s in several for point in by_s.values()]
    return []


def _even(points: list[Point]) -> bool:
    """Whether every budget S + W here was run with two numbers of sinks or more."""
    sinks: dict[int, set[int]] = {}
    for point in points:
        sinks.setdefault(point.kept, set()).add(int(point.run["n_sink"]))
    return all(len(each) > 1 for each in sinks.values())


def _size(point: Point, *, even: bool) -> int:
    return point.kept if even else int(point.run["window"])


def _lines(panel: list[Point], x: Callable[[Point], int]) -> Line:
    """A line a bounded method, the newest point at each place."""
    lines: dict[str, dict[int, Point]] = {}
    bounded = [point for point in panel if point.bounded]
    order = {p.label: n for n, p in enumerate(panels.one_a_label(bounded))}
    for point in sorted(bounded, key=lambda p: order[p.label]):
        lines.setdefault(point.label, {}).setdefault(x(point), point)
    return {label: [by_x[at] for at in sorted(by_x)] for label, by_x in lines.items()}


def _flat(lines: Line) -> list[Point]:
    return [point for line in lines.values() for point in line]


def _keys(point: Point) -> int:
    return int(point.run["attended_keys"])


def _sinks(chosen: Chosen) -> int:
    named = [p for p in chosen.points if p.spec.budget != "window" and p.bounded]
    return panels.commonest(int(p.run["n_sink"]) for p in named)


def _grid(rows: int, chosen: Chosen) -> go.Figure:
    """Panels one below the other, for a phone; the first of a text bears its name."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=rows, cols=1, vertical_spacing=GAP / rows)
    each = rows // len(chosen.panels)
    names = ([panels.heading(panel), *[""] * (each - 1)] for panel in chosen.panels)
    style.headings(figure, [name for of_text in names for name in of_text])
    return figure


def _plot(
    figure: go.Figure, lines: Line, x: Callable[[Point], int], measure: str, row: int
) -> None:
    for number, (label, points) in enumerate(lines.items()):
        _line(figure, points, list(map(x, points)), measure, row, name=label, number=number)


def _line(
    figure: go.Figure,
    points: list[Point],
    xs: list[int],
    measure: str,
    row: int,
    *,
    name: str,
    number: int,
    dash: str | None = None,
) -> None:
    """One line, the ``number``-th of its panel: nested in those before where they coincide."""
    if not points:
        return
    method, nth = points[0].method, points[0].nth
    values = [getattr(point, measure) for point in points]
    ranges = [getattr(point, f"{measure}_bar") for point in points]
    line = style.line(method, max(1.4, 3.8 - 0.8 * number), nth)
    style.add(
        figure,
        name,
        row=row,
        x=xs,
        y=values,
        mode="lines+markers",
        line=line | ({"dash": dash} if dash else {}),
        marker=style.marker(method, max(7, 12 - 2 * number), nth),
        error_y=style.error(ranges, values),
        hovertemplate=f"{name}, %{{x}}: %{{y:.5g}}<extra></extra>",
    )


def _level(figure: go.Figure, dense: list[Point], xs: list[int], measure: str, row: int) -> None:
    """What holds everything has no size: a line across."""
    for point in dense:
        style.add(
            figure,
            point.label,
            row=row,
            x=[min(xs) / 2, max(xs) * 2],
            y=[getattr(point, measure)] * 2,
            mode="lines",
            line=style.line(point.method, nth=point.nth),
            hovertemplate=f"{point.label}, everything kept: %{{y:.5g}}<extra></extra>",
        )


def _sizes(values: list[int]) -> dict[str, object]:
    """A logarithmic axis with a tick at each size, or at fewer where they would touch."""
    found, kept = sorted(set(values)), list[int]()
    for value in found:
        if not kept or value > 1.35 * kept[-1]:
            kept.append(value)
    ticks = {"tickvals": kept[-6:], "ticktext": [f"{value:,}" for value in kept[-6:]]}
    return style.scale(found, log=True) | ticks


def _y_axis(figure: go.Figure, points: list[Point], measure: str, row: int) -> None:
    ends = [end for point in points for end in getattr(point, f"{measure}_bar")]
    least = style.LEAST if measure == "ppl" else 0
    title = {"ppl": "perplexity", "ms": "ms a token"}[measure]
    figure.update_yaxes(
        **style.axis(ends, title, log=style.wide(ends), least=least), row=row, col=1
    )


def _finished(name: str, figure: go.Figure, chosen: Chosen, budget: str, caption: str) -> Drawn:
    height = 60 + ROW * len(list(figure.select_yaxes()))
    return captions.finished(name, figure, chosen, caption, height=height, words=budget)
