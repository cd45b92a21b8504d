"""Along the stream: the score of its tokens as it goes on, and the memory that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core import registry
from streamcli.render.figures import captions, panels, style
from streamcli.render.figures.drawn import Drawn, Traces, nothing
from streamcli.render.figures.panels import Chosen, Point

if TYPE_CHECKING:
    import plotly.graph_objects as go

FULL = "cache full"
SPAN = 64  # tokens of a moving mean at least: fewer are noise
PLACES = 400  # along a line: as many as a screen tells apart
STREAM = "sweep --methods streaming window recompute dense --modes decode-loop"
MEMORY = "sweep --methods streaming dense --modes decode-loop"
# What memory depends on.
SHAPE = tuple(name for name in panels.SETTING if name not in panels.MACHINE)


def stream(found: list[Point], traces: Traces) -> Drawn:
    """Moving mean of the nats of a token, with where the cache fills and training ended."""
    from plotly.subplots import make_subplots

    name = "stream"
    # A peer's line would lie on that of streaming.
    named = [p for p in found if not p.spec.peer and registry.mode(p.run["mode"]).scores_all]
    chosen = panels.choose_budget(named, lambda panel: [p for p in panel if not p.lazy])
    if not chosen.panels:
        return nothing(name, "no run has scores along a stream", STREAM)
    figure = make_subplots(rows=len(chosen.panels), cols=1, vertical_spacing=0.14)
    style.headings(figure, map(panels.heading, chosen.panels))
    spans = []
    for row, panel in enumerate(chosen.panels, start=1):
        for point in panel:
            nll = traces(str(point.run["run_id"]))[0]
            spans.append(span := min(max(SPAN, len(nll) // 40), len(nll)))
            at, mean = moving_mean(nll, span)
            style.add(
                figure,
                point.label,
                row=row,
                x=at,
                y=mean,
                mode="lines",
                line=style.line(point.method, 2, point.nth),
                hovertemplate="token %{x:,}: %{y:.3f} nats<extra>" + point.label + "</extra>",
            )
        _mark(figure, panel, chosen, row)
    figure.update_xaxes(title_text="token of the stream", row=len(chosen.panels), col=1)
    figure.update_yaxes(title_text="nats a token")
    several = any((p.run["documents"] or 1) > 1 for p in chosen.points)
    caption = (
        f"Log-perplexity along the stream: mean of the last {_span(spans)} tokens' negative "
        "log-likelihood, drawn from where there are so many. "
        + ("Documents stand end to end, each with an empty cache at its start. " if several else "")
        + captions.circumstances(chosen)
    )
    return captions.finished(name, figure, chosen, caption, height=290 * len(chosen.panels))


def laid_over(drawn: Drawn, curves: Mapping[str, NDArray[np.float32]]) -> Drawn:
    """The figure ``stream`` with curves of others in every panel, as they are: other models' too.

    Args:
        drawn: The figure, or none.
        curves: Nats of every token by the name of the curve.
    """
    if drawn.figure is None:
        return drawn
    dashes = ("dot", "dash", "dashdot", "longdash")
    rows = range(1, 1 + len(list(drawn.figure.select_yaxes())))
    for number, (name, nll) in enumerate(curves.items()):
        at, mean = moving_mean(nll, min(max(SPAN, len(nll) // 40), len(nll)))
        line = {"color": style.SOFT, "width": 1.4, "dash": dashes[number % len(dashes)]}
        for row in rows:
            style.add(drawn.figure, name, row=row, x=at, y=mean, mode="lines", line=line)
    said = f" Grey: {', '.join(curves)}, of another source, with means over as large a part of it."
    return replace(drawn, caption=drawn.caption + said)


def moving_mean(
    nll: NDArray[np.float32], span: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Mean of the ``span`` scores up to a token, at no more than ``PLACES`` tokens.

    Score i is that of token i + 1, since token 0 is not scored; sums are in float64.
    """
    sums = np.concatenate([[0.0], np.cumsum(nll, dtype=np.float64)])
    ends = np.unique(np.linspace(span, len(nll), PLACES).round().astype(np.int64))
    return ends, (sums[ends] - sums[ends - span]) / span


def memory(found: list[Point], traces: Traces) -> Drawn:
    """Keys and values that are held, measured, and by formula along the stream."""
    import plotly.graph_objects as go

    name = "memory"
    chosen = _memory_runs(found)
    if not chosen.panels:
        return nothing(name, "no stream's memory was measured", MEMORY)
    figure = go.Figure()
    longest = max(_length(point) for point in chosen.points)
    for label, mine in _families(chosen.points).items():
        point = mine[0]
        line = _formula(mine, longest)
        figure.add_scatter(
            name=label,
            legendgroup=label,
            x=[_length(each) for each in mine],
            y=[each.run["kv_mib"] for each in mine],
            mode="markers",
            marker=style.marker(point.method, nth=point.nth),
            cliponaxis=False,
            showlegend=not line,
            hovertemplate=f"{label}: %{{y:.3f}} MiB after %{{x:,}} tokens<extra></extra>",
        )
        if line:
            figure.add_scatter(
                name=label,
                legendgroup=label,
                x=[x for x, _ in line],
                y=[y for _, y in line],
                mode="lines",
                line=style.line(point.method, nth=point.nth),
                showlegend=True,
                hoverinfo="skip",
            )
    figure.update_xaxes(title_text="tokens of the stream", range=[0, 1.05 * longest], nticks=7)
    figure.update_yaxes(title_text="keys and values held (MiB)", rangemode="tozero")
    caption = (
        "Keys and values held at the end of a stream: marks measured, lines by their formula "
        "from the shape of the model, what is held beside keys and values included. "
        f"{captions.circumstances(chosen)}"
    )
    words = "marks measured, lines by formula"
    return captions.finished(name, figure, chosen, caption, height=330, words=words)


def _mark(figure: go.Figure, panel: list[Point], chosen: Chosen, row: int) -> None:
    """Lines where the cache fills and where the trained length ends, if the stream gets there."""
    single = all((point.run["documents"] or 1) == 1 for point in panel)
    length = max(_length(point) for point in panel)
    places = {"trained length": max(int(p.run["trained_length"] or 0) for p in panel)}
    if chosen.kept:
        places = {FULL: chosen.kept} | places
    for words, place in places.items():
        if single and 0 < place < length:
            at = {"yanchor": "bottom", "y": 0} if words == FULL else {"yanchor": "top", "y": 1}
            remark = style.REMARK | {"text": f"{words}: {place:,}"} | at
            figure.add_vline(x=place, line=style.DOTTED, annotation=remark, row=row, col=1)


def _span(spans: list[int]) -> str:
    low, high = min(spans), max(spans)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _length(point: Point) -> int:
    """Tokens that were fed: all but the last, of which there is nothing to predict."""
    return int(point.run["scored_tokens"])


def _memory_runs(found: list[Point]) -> Chosen:
    """Single streams of one model's shape at one budget; which text it was is no matter here."""
    groups: dict[tuple[object, ...], list[Point]] = {}
    for point in found:
        whole = point.run["documents"] == 1 and registry.mode(point.run["mode"]).scores_all
        if whole and point.run["kv_mib"] is not None and not point.lazy:
            groups.setdefault(point.of(SHAPE), []).append(point)
    choices: list[Chosen] = []
    for group in groups.values():
        for size in dict.fromkeys(map(panels.budget, group)):
            at_it = [point for point in group if panels.fits(point, size)]
            choices.append(Chosen([at_it], size, 0))

    def worth(choice: Chosen) -> tuple[int, str]:
        shown = {(point.label, _length(point)) for point in choice.points}
        return len(shown), max(str(point.run["run_id"]) for point in choice.points)

    return max(choices, key=worth, default=panels.NOTHING).among(choices)


def _families(points: list[Point]) -> dict[str, list[Point]]:
    """The newest run of each method and length, shortest stream first."""
    order = [point.label for point in panels.one_a_label(points)]
    families: dict[str, dict[int, Point]] = {label: {} for label in order}
    for point in points:
        families[point.label].setdefault(_length(point), point)
    return {label: [by[at] for at in sorted(by)] for label, by in families.items()}


def _formula(mine: list[Point], longest: int) -> list[tuple[float, float]]:
    """The formula along the stream; empty where a method's memory depends on how it is fed."""
    point = mine[-1]
    most, length = float(point.run["kv_formula_mib"] or 0), _length(point)
    memory = point.spec.memory
    if memory == "grows" and not point.bounded:
        return [(0, 0), (longest, most / length * longest)]
    if memory in ("allocated", "none"):
        return [(0, most), (longest, most)]
    if memory == "fills" and length >= point.kept:
        return [(0, 0), (point.kept, most), (longest, most)]
    return []
