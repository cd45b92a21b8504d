"""What is given for what: perplexity against time, absolute and relative to re-computation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from core.registry import BASELINE
from streamcli.analysis import paired
from streamcli.analysis.comparison import same_budget, size
from streamcli.analysis.statistics import ROUNDS
from streamcli.render.figures import captions, panels, style
from streamcli.render.figures.drawn import Drawn, Traces, nothing
from streamcli.render.figures.panels import Chosen, Point
from streamcli.results.columns import COLUMNS, format_value

if TYPE_CHECKING:
    import plotly.graph_objects as go

LEAST = (0.97, 1.03)  # shown of the ratio axis, so that no thousandth looks like an effect
SAME = 1e-4  # perplexities that differ by less are one: other orders of summing differ as much
SWEEP = "sweep --methods streaming window recompute dense --windows 60 124 252 --modes decode-loop"


# Where a number may stand, in axes' lengths from its mark, and the room that it takes there.
SIDES = {
    "top right": (0.03, 0.07),
    "top left": (-0.03, 0.07),
    "bottom right": (0.03, -0.07),
    "bottom left": (-0.03, -0.07),
}
ROOM = (0.04, 0.06)
Ends: TypeAlias = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Mark:
    """A point, where it stands, and the ends of its bars: its repeats' times, its interval."""

    point: Point
    x: float
    y: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]


def summary(found: list[Point], traces: Traces) -> Drawn:
    """Both as ratios to re-computation with the same budget: up is worse, right is faster."""
    name = "summary"
    chosen = panels.choose(found, _against_baseline)
    if not chosen.panels:
        return nothing(name, f"nothing was run beside {BASELINE} with the same keys", SWEEP)
    marks = [_ratios(panel) for panel in chosen.panels]
    figure = _figure(chosen, marks, ((1.0, 1.0), LEAST))
    for row, panel in enumerate(marks, start=1):
        figure.add_vline(x=1, line=style.THIN, row=row, col=1)
        figure.add_hline(y=1, line=style.THIN, row=row, col=1)
        xs = [1.0, *(end for mark in panel for end in mark.x_range)]
        ys = [*LEAST, *(end for mark in panel for end in mark.y_range)]
        figure.update_xaxes(**style.scale(xs, log=True, room=0.14), row=row, col=1)
        axis = style.axis(ys, "perplexity (times)", log=style.wide(ys, 2), room=0.14)
        figure.update_yaxes(**axis, row=row, col=1)
    figure.update_xaxes(title_text="speed-up (times, log)", row=len(marks), col=1)
    timed = any(mark.x_range != (mark.x, mark.x) for panel in marks for mark in panel)
    bars = " Bars of speed-up: 95 % interval by Student's t on logs." if timed else ""
    caption = (
        "Each method against re-computation of the same budget: perplexity over its "
        "perplexity, and its time a token over the method's; the lines at 1 are re-computation. "
        f"{_numbers(chosen)}{captions.circumstances(chosen)} A speed-up is the ratio of medians "
        f"over repeats, or from {ROUNDS} rounds on the geometric mean over these.{bars}"
        f"{_bars(chosen)}{captions.doubted(chosen.points)}"
    )
    return _finished(name, figure, chosen, caption)


def pareto(found: list[Point], traces: Traces) -> Drawn:
    """Every configuration by time and perplexity, with the frontier of those nothing beats."""
    return _pareto("pareto", found, "ms a token", "time a token", lambda p: (p.ms, p.ms_bar))


def pareto_memory(found: list[Point], traces: Traces) -> Drawn:
    """The same by the keys and values that are held; what holds none has no place."""
    held = [point for point in found if point.run["kv_mib"]]

    def place(point: Point) -> tuple[float, tuple[float, float]]:
        mib = float(point.run["kv_mib"])
        return mib, (mib, mib)

    title = "keys and values held (MiB)"
    return _pareto("pareto-memory", held, title, "keys and values held between steps", place)


def _pareto(
    name: str,
    found: list[Point],
    title: str,
    what: str,
    place: Callable[[Point], tuple[float, tuple[float, float]]],
) -> Drawn:
    """Perplexity against what ``place`` gives of a point, and the ends of its bar."""
    chosen = panels.choose(found, _several)
    if not chosen.panels:
        return nothing(name, "no two configurations may be compared", SWEEP)
    marks = []
    for panel in chosen.panels:
        placed = [(point, *place(point)) for point in panel]
        marks.append([Mark(p, x, p.ppl, ends, p.ppl_bar) for p, x, ends in placed])
    figure = _figure(chosen, marks)
    lined = False
    for row, held in enumerate(marks, start=1):
        best = frontier(held)
        if len(best) > 1:  # of a single mark there is no line
            style.add(
                figure,
                "frontier",
                row=row,
                x=[mark.x for mark in best],
                y=[mark.y for mark in best],
                mode="lines",
                line={"color": style.SOFT, "width": 1.4, "shape": "hv"},
                hoverinfo="skip",
            )
            lined = True
        xs = [end for mark in held for end in mark.x_range]
        ys = [end for mark in held for end in mark.y_range]
        axis = style.axis(xs, title, log=style.wide(xs, 2), room=0.14)
        figure.update_xaxes(**axis, row=row, col=1)
        log, least = style.wide(ys), style.LEAST
        axis = style.axis(ys, "perplexity", log=log, room=0.14, least=least)
        figure.update_yaxes(**axis, row=row, col=1)
    beaten = "; what lies on the grey frontier is beaten by no configuration in both"
    timed = f" {captions.repeats(chosen.points, 'time')}" if name == "pareto" else ""
    caption = (
        f"Perplexity against {what}, lower and further left is better"
        f"{beaten if lined else ''}. {_numbers(chosen)}"
        f"{captions.circumstances(chosen)}{timed}{_bars(chosen)}"
    )
    return _finished(name, figure, chosen, caption)


def frontier(marks: list[Mark]) -> list[Mark]:
    """The marks that no other beats in time without losing perplexity, from left to right."""
    best: list[Mark] = []
    for mark in sorted(marks, key=lambda each: (each.x, each.y)):
        if not best or mark.y < best[-1].y * (1 - SAME):
            best.append(mark)
    return best


def _several(same: list[Point]) -> list[Point]:
    taken = panels.at_common_sinks(same)
    return taken if len(taken) > 1 else []


def _against_baseline(every: list[Point]) -> list[Point]:
    """What has re-computation with the same keys beside it, and that re-computation."""
    same = panels.at_common_sinks(every)
    bases = _bases(same)
    with_baseline = {
        size
        for size, base in bases.items()
        if any(_size(p) == size and p.method != BASELINE and _alike(p, base) for p in same)
    }
    return [
        point
        for point in same
        if _size(point) in with_baseline
        and (base := bases[_size(point)])
        and (base is point or (point.method != BASELINE and _alike(point, base)))
    ]


def _ratios(panel: list[Point]) -> list[Mark]:
    bases, marks = _bases(panel), []
    for point in panel:
        if point.method != BASELINE:
            base = bases[_size(point)]
            runs = dict(point.run), dict(base.run)
            found, _ = paired.speed_up(*runs, point.times, base.times)
            assert found  # all of a panel are of one clock
            ends = (found.low, found.high) if found.known else (found.estimate, found.estimate)
            low, high = (end / base.ppl for end in point.ppl_bar)
            marks.append(Mark(point, found.estimate, point.ppl / base.ppl, ends, (low, high)))
    return marks


def _bases(same: list[Point]) -> dict[tuple[str, float], Point]:
    bases: dict[tuple[str, float], Point] = {}
    for point in same:
        if point.method == BASELINE:
            bases.setdefault(_size(point), point)
    return bases


def _alike(point: Point, base: Point) -> bool:
    """Whether it has the budget of ``base``, on average too, which a saw-tooth has not."""
    return same_budget(dict(point.run), dict(base.run))


def _size(point: Point) -> tuple[str, float]:
    """What bounds it; of MiB as many are the same, whatever keys they hold."""
    return size(dict(point.run))


def _figure(chosen: Chosen, marks: list[list[Mark]], shown: Ends = ()) -> go.Figure:
    """A panel a text, a trace a method and text, its budgets in a row.

    Args:
        chosen: What is drawn.
        marks: Those of every panel.
        shown: What both axes show in any case, from where to where.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=len(marks), cols=1, vertical_spacing=0.3 / len(marks))
    style.headings(figure, map(panels.heading, chosen.panels))
    for row, panel in enumerate(marks, start=1):
        numbered = _numbered(panel, shown) if _one_budget(chosen) is None else {}
        for label in [p.label for p in panels.one_a_label([mark.point for mark in panel])]:
            mine = sorted(
                (mark for mark in panel if mark.point.label == label),
                key=lambda mark: (mark.point.kept, mark.x),
            )
            _trace(figure, mine, row, numbered)
    return figure


def _one_budget(chosen: Chosen) -> int | None:
    """S + W, where all marks share it: it then stands above, and not beside each of them."""
    budgets = {point.kept for point in chosen.points if point.bounded}
    return budgets.pop() if len(budgets) == 1 else None


def _numbers(chosen: Chosen) -> str:
    return "Numbers are S + W. " if _one_budget(chosen) is None else ""


def _bars(chosen: Chosen) -> str:
    judged = any(point.judged for point in chosen.points)
    return f" {captions.bars(chosen.points, 'perplexity')}" if judged else ""


def _numbered(panel: list[Mark], shown: Ends) -> dict[int, str]:
    """On which side of a mark its budget is written, by the ``id`` of the mark.

    The first side that no other mark or number has; where none is free there is no number.
    """
    xs = _places([mark.x for mark in panel], [*(mark.x_range for mark in panel), *shown[:1]])
    ys = _places([mark.y for mark in panel], [*(mark.y_range for mark in panel), *shown[1:]])
    taken = list(zip(xs, ys, strict=True))
    found: dict[int, str] = {}
    for number, mark in enumerate(panel):
        for side, (right, up) in SIDES.items() if mark.point.bounded else ():
            at = xs[number] + right, ys[number] + up
            if all(abs(at[0] - x) > ROOM[0] or abs(at[1] - y) > ROOM[1] for x, y in taken):
                found[id(mark)] = side
                taken.append(at)
                break
    return found


def _places(values: list[float], bars: list[tuple[float, float]]) -> list[float]:
    """Where values stand on an axis from 0 to 1 that holds their bars."""
    ends = [math.log(end) for bar in bars for end in bar if end > 0]
    low, span = min(ends), max(max(ends) - min(ends), math.log1p(style.LEAST))
    return [(math.log(value) - low) / span for value in values]


def _trace(figure: go.Figure, mine: list[Mark], row: int, numbered: dict[int, str]) -> None:
    point = mine[0].point
    several = len({mark.point.kept for mark in mine}) > 1 and point.bounded
    style.add(
        figure,
        point.label,
        row=row,
        x=[mark.x for mark in mine],
        y=[mark.y for mark in mine],
        mode="markers+text" + ("+lines" if several else ""),
        text=[f"{mark.point.kept:,}" if id(mark) in numbered else "" for mark in mine],
        error_x=style.error([mark.x_range for mark in mine], [mark.x for mark in mine]),
        error_y=style.error([mark.y_range for mark in mine], [mark.y for mark in mine]),
        textposition=[numbered.get(id(mark), "top right") for mark in mine],
        textfont={"size": 10, "color": style.SOFT},
        marker=style.marker(point.method, nth=point.nth),
        line=style.line(point.method, 1.2, point.nth),
        cliponaxis=False,
        customdata=[_words(mark.point) for mark in mine],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _words(point: Point) -> str:
    budget = f", S + W = {point.kept:,}" if point.bounded else ""
    ms = format_value(COLUMNS["ms_per_token"], point.ms)
    mib = format_value(COLUMNS["kv_mib"], point.run["kv_mib"])
    return f"{point.label}{budget}: perplexity {point.ppl:.4g}, {ms} ms, {mib} MiB"


def _finished(name: str, figure: go.Figure, chosen: Chosen, caption: str) -> Drawn:
    one = _one_budget(chosen)
    words, height = f"S + W = {one:,}" if one else "numbers: S + W", 60 + 270 * len(chosen.panels)
    return captions.finished(name, figure, chosen, caption, height=height, words=words)
