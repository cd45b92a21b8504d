"""What a benchmark found against the size of the cache, or the length of the stream or prompt."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from streamcli.render.benchmarks import Timed, cautions
from streamcli.render.figures import style
from streamcli.render.figures.drawn import Drawn

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLES = {
    "prompt": "Time and memory to the first token",
    "length": "Time and memory a token by length of the stream",
}
TITLE = "Time and memory a token by size of the cache"
KEYS = "keys a query sees, S + W + 1"
TOKENS = {"prompt": "tokens of the prompt", "length": "tokens of the stream before"}


def draw(name: str, timed: Timed) -> Drawn:
    """Time above, and below what it holds and takes beside the weights.

    Args:
        name: What the file will be called.
        timed: A benchmark of arms at two sizes or lengths at least.
    """
    from plotly.subplots import make_subplots

    rows = timed.rows
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.12)
    along = "length" if rows[0]["length"] else "attended_keys"
    lines = _lines([row for row in rows if not row["twin"]])
    for (label, method, dash), found in lines.items():
        xs = [row[along] for row in found]
        times = [row["ms_per_token"] for row in found]
        ends = [(row["ms_per_token_low"], row["ms_per_token_high"]) for row in found]
        memory = [row["kv_mib"] + row["step_mib"] for row in found]
        drawn: dict[str, Any] = {
            "x": xs,
            "name": label,
            "legendgroup": label,
            "mode": "lines+markers",
        }
        drawn |= {"marker": style.marker(method, 8), "line": style.line(method) | {"dash": dash}}
        figure.add_scatter(y=times, error_y=style.error(ends, times), row=1, col=1, **drawn)
        figure.add_scatter(y=memory, showlegend=False, row=2, col=1, **drawn)
    _axes(figure, rows, along)
    held = f"{timed.weights_mib:,.0f} MiB of weights"
    title = TITLES.get(rows[0]["bench"], TITLE)
    style.finish(figure, title, f"{timed.model}, {timed.where}", height=520, legend=True)
    noted = " ".join(f"{note[0].upper()}{note[1:].removesuffix('.')}." for note in cautions(timed))
    caption = (
        f"Above, the median over {timed.rounds} rounds with its 95 % interval; below, keys and "
        "values held between steps and the most that a step's own tensors take at one moment, "
        f"beside {held}. {noted}"
    )
    return Drawn(name, title, figure, caption)


def _lines(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """The rows of each arm, engine and batch along the axis, with its label, method and dash."""

    def arm(row: dict[str, Any]) -> tuple[str, str, int]:
        return row["arm"], row["engine"], row["batch_size"]

    batches, seen = {row["batch_size"] for row in rows}, dict[str, int]()
    found = {}
    for (name, engine, batch), group in groupby(sorted(rows, key=arm), arm):
        several = len({row["engine"] for row in rows if row["arm"] == name}) > 1
        words = [name, *([engine] if several else []), *([f"{batch} rows"] * (len(batches) > 1))]
        line = list(group)
        method = line[0]["method"]
        seen[method] = seen.get(method, -1) + 1
        found[", ".join(words), method, style.DASHES[seen[method] % len(style.DASHES)]] = line
    return found


def _axes(figure: go.Figure, rows: list[dict[str, Any]], along: str) -> None:
    xs = sorted({row[along] for row in rows})
    ticks = {"tickvals": xs, "ticktext": [f"{x:,}" for x in xs]}
    for row in (1, 2):
        figure.update_xaxes(**style.scale(xs, log=True) | ticks, row=row, col=1)
    figure.update_xaxes(title_text=TOKENS.get(rows[0]["bench"], KEYS), row=2, col=1)
    times = [row[end] for row in rows for end in ("ms_per_token_low", "ms_per_token_high")]
    memory = [row["kv_mib"] + row["step_mib"] for row in rows]
    what = "ms to the first token" if rows[0]["bench"] == "prompt" else "ms a token"
    for number, (values, title) in enumerate([(times, what), (memory, "MiB beside weights")], 1):
        shown = style.axis(values, title, log=style.wide(values), least=0)
        figure.update_yaxes(**shown, row=number, col=1)
