"""A probe in words, tables and heat maps: for a terminal, a pipe, a page and a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from core.sinks import FAR, FIRST, PIECE, Probe
from streamcli.harmless import visible
from streamcli.render import output
from streamcli.render.figures import style
from streamcli.render.figures.drawn import Drawn
from streamcli.render.records import alone
from streamcli.render.tables import Sheet
from streamcli.results.columns import ALL, PROBES, Column, format_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


LEAST = 0.01  # of all heads, below which there are no sinks to speak of
SHOWN = 8  # tokens in the table of sinks
WIDE = 3  # characters of a cell that has room for percents
LEFT, GAP = 6, 4  # columns before a heat map in the terminal, and between two
SHADES = ((255, 255, 255), (66, 146, 198), (8, 48, 107))  # of none, half and all attention
DARK = 0.5  # share from which a cell is so dark that its number is white
CELL = 22  # pixels of a cell's height on paper
LARGEST = 620  # pixels of a heat map's height
TITLE = "Attention to the first tokens"
LISTED = "probe_id created_at model dataset n_sink window sink_rate mass_before mass_after suffices"


def terminal(found: Probe, what: str) -> None:
    """Print what was found: in words, the heat maps, and two tables."""
    console = output.wide_console()
    console.print(Text(f"probe: {visible(what)}", style="bold"))
    for sentence in words(found):
        console.print(visible(sentence), markup=False, highlight=False)
    console.print()
    width = min(console.width, 110)
    rows, unit = _maps(found, width)
    for row in rows:
        console.print(row, no_wrap=True, crop=True)
    legend = f"Attention to the first {found.n_sink} tokens in {unit} by layer and head; . is 0."
    console.print(f"{legend} {_caption(found)}\n", style="dim", markup=False, highlight=False)
    for sheet in (_by_sinks(found), *_tokens(found)):
        output.page(sheet)


def words(found: Probe) -> list[str]:
    """What was found and what to do, a sentence or two on each."""
    return [_sinks(found), _recommended(found), *_elsewhere(found)]


def _sinks(found: Probe) -> str:
    layers, heads = found.before.shape
    first = "the first token gets" if found.n_sink == 1 else f"the first {found.n_sink} get"
    return (
        f"{'Sinks' if found.sink_rate >= LEAST else 'No sinks'}: {_percent(found.sink_rate)} of "
        f"{layers * heads} heads give the first token more than {found.threshold:g} of their "
        f"attention. On average {first} {_percent(found.before.mean())}, and "
        f"{_percent(found.after.mean())} once tokens are evicted."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.{1 if share < 0.1 else 0}f} %"


def _recommended(found: Probe) -> str:
    """Which S to keep, by the perplexities."""
    budget, s = found.n_sink + found.window, found.suffices
    ppl = found.perplexities
    if s == 0:
        return (
            f"Keep none: at {budget} keys no number of sinks betters the perplexity of a window "
            f"alone, {ppl[0]:.2f}, by more than 1 %."
        )
    return (
        f"Keep {s}: at {budget} keys no larger number betters its perplexity, {ppl[s]:.2f}, by "
        f"more than 1 %; without sinks it is {ppl[0]:.2f}."
    )


def _elsewhere(found: Probe) -> list[str]:
    """The first of the sinks that a stream would not keep."""
    far = [sink for sink in found.sinks if sink.position >= max(1, found.suffices)]
    far = [sink for sink in far if sink.heads >= LEAST]
    if not far:
        return ["No other token is a sink of 1 % of the heads."]
    counted = "1 token is a sink" if len(far) == 1 else f"{len(far)} tokens are sinks"
    return [
        f"Further on {counted} of 1 % of the heads or more, first of all {far[0].text!r} at "
        f"{far[0].position:,} ({_percent(far[0].heads)}): these leave with the window."
    ]


def listing(rows: list[dict[str, Any]], place: str) -> Sheet:
    """Recorded probes, a line each."""
    columns = [(ALL | PROBES)[name].headed for name in LISTED.split()]
    return alone(rows, "probe", columns, place)


def _by_sinks(found: Probe) -> Sheet:
    """The perplexity by S."""
    best = min(found.perplexities.values())
    columns = [
        *(ALL[name].headed for name in ("n_sink", "window", "ppl")),
        Column("over_best", "vs best", "percent", ""),
        Column("mark", "", "text", ""),
    ]
    budget = found.n_sink + found.window
    rows = [
        [
            *map(format_value, columns[:-1], (s, budget - s, ppl, ppl / best - 1)),
            "suffices" if s == found.suffices else "",
        ]
        for s, ppl in found.perplexities.items()
    ]
    note = f"Perplexity of {found.scored_tokens:,} tokens, as `streamcli run` has it."
    return Sheet(f"By number of sinks, at {budget} keys", columns, rows, [note])


def _tokens(found: Probe) -> list[Sheet]:
    """The tokens that are sinks, those of most heads first."""
    if not found.sinks:
        return []
    columns = [
        Column("position", "position", "count", ""),
        Column("text", "token", "text", ""),
        Column("heads", "heads (%)", "fixed", "", digits=1),
        Column("mass", "attention (%)", "fixed", "", digits=1),
    ]
    rows = [
        (sink.position, repr(sink.text), 100 * sink.heads, 100 * sink.mass)
        for sink in found.sinks[:SHOWN]
    ]
    number = len(found.sinks)
    first = f"the first {SHOWN} of {number:,}" if number > SHOWN else f"all {number:,}"
    note = (
        f"Of queries {FAR} tokens or more behind: the share of heads whose mean attention to the "
        f"token is beyond {found.threshold:g}, and that attention averaged over all heads. "
        f"{first[0].upper()}{first[1:]} that are a sink of any head."
    )
    cells = [list(map(format_value, columns, row)) for row in rows]
    return [Sheet(f"Sinks among {found.tokens:,} tokens", columns, cells, [note])]


def _titles(found: Probe) -> tuple[str, str]:
    return "before eviction", f"after, {found.n_sink} + {found.window} keys"


def _caption(found: Probe) -> str:
    """How the heat maps were made."""
    return (
        f"Means over queries of a text of {found.tokens:,} tokens: before eviction over those from "
        f"token {FIRST} on, which see all before them; after, over those that see {found.n_sink} "
        f"sinks and a window of {found.window:,} once a token has left. Sinks are counted over "
        f"{found.pieces} texts of {PIECE} tokens, all queries (Gu et al., arXiv 2410.10781)."
    )


def _maps(found: Probe, width: int) -> tuple[list[Text], str]:
    """Both heat maps, side by side where the terminal is wide enough, and their unit."""
    heads = found.before.shape[1]
    cell = next((n for n in (WIDE, 2) if 2 * (LEFT + n * heads) + GAP <= width), 1)
    unit = "%" if cell == WIDE else "tenths"
    halves = [
        _map(values, title, cell)
        for values, title in zip((found.before, found.after), _titles(found), strict=True)
    ]
    if 2 * (LEFT + cell * heads) + GAP > width:
        return [*halves[0], Text(), *halves[1]], unit
    wide = max(len(row) for row in halves[0])
    rows = []
    for left, right in zip(*halves, strict=True):
        left.pad_right(wide - len(left) + GAP)
        rows.append(left.append_text(right))
    return rows, unit


def _map(values: NDArray[np.float32], title: str, cell: int) -> list[Text]:
    """One heat map: a row a layer, a number a head, on a colour where the terminal has any."""
    rows = [Text(f"{'layer':<{LEFT}}{title}", style="bold")]
    most = 100 if cell == WIDE else 10
    for number, layer in enumerate(values):
        row = Text(f"{number:>{LEFT - 1}} ")
        for share in map(float, layer):
            whole = min(most - 1, round(share * most))
            shown = str(whole) if whole else "."
            ink = "rgb(255,255,255)" if share > DARK else "rgb(0,0,0)"
            row.append(f"{shown:>{cell}}", style=f"{ink} on rgb{_colour(share)}")
        rows.append(row)
    return rows


def _colour(share: float) -> str:
    """Red, green and blue of a share, the larger the darker."""
    place = 2 * min(1.0, max(0.0, share))
    pale, deep = SHADES[:2] if place < 1 else SHADES[1:]
    parts = (
        round(a + (b - a) * (place if place < 1 else place - 1))
        for a, b in zip(pale, deep, strict=True)
    )
    return f"({','.join(map(str, parts))})"


def drawn(found: Probe, what: str) -> Drawn:
    """Both heat maps as a figure."""
    from plotly.subplots import make_subplots

    layers, heads = found.before.shape
    figure = make_subplots(cols=2, horizontal_spacing=0.06, shared_yaxes=True)
    for place, (values, title) in enumerate(
        zip((found.before, found.after), _titles(found), strict=True), start=1
    ):
        figure.add_heatmap(
            z=100 * values,
            coloraxis="coloraxis",
            xgap=1,
            ygap=1,
            name=title,
            hovertemplate="layer %{y}, head %{x}: %{z:.1f} %<extra></extra>",
            row=1,
            col=place,
        )
    style.headings(figure, [f"{title[0].upper()}{title[1:]}" for title in _titles(found)])
    style.finish(
        figure,
        TITLE,
        f"{what}; share of each head's attention to the first {found.n_sink} tokens together",
        height=min(LARGEST, max(220, CELL * layers)),
        legend=False,
    )
    figure.update_layout(
        coloraxis={
            "colorscale": [[share, f"rgb{_colour(share)}"] for share in (0, 0.5, 1)],
            "cmin": 0,
            "cmax": 100,
            "colorbar": {"title": {"text": "%"}, "thickness": 12, "outlinewidth": 0},
        }
    )
    ticks = {"showgrid": False, "mirror": True}
    figure.update_xaxes(title_text="head", tickvals=_ticks(heads), **ticks)
    figure.update_yaxes(autorange="reversed", tickvals=_ticks(layers), **ticks)
    figure.update_yaxes(title_text="layer", col=1)
    return Drawn("probe", TITLE, figure, f"{' '.join(words(found))} {_caption(found)}")


def _ticks(number: int) -> list[int]:
    """About eight whole numbers below ``number``."""
    step = next(each for each in (1, 2, 4, 5, 8, 10, 16, 20, 50, 100, number) if number <= 9 * each)
    return list(range(0, number, step))
