"""What stands above and below a figure: what was run, where, when, by which code, how often."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from streamcli.render import notes
from streamcli.render.figures import style
from streamcli.render.figures.drawn import TITLES, Drawn
from streamcli.render.figures.panels import Chosen, Point
from streamcli.results.columns import COLUMNS, format_value, moment

if TYPE_CHECKING:
    import plotly.graph_objects as go

JUDGED = "Bars of perplexity: 95 % interval of its change against re-computation."
MARKS = {
    "time": "their median",
    "perplexity": "the latest",
    "value": "the median of times and the latest of perplexities",
}


def finished(
    name: str,
    figure: go.Figure,
    chosen: Chosen,
    caption: str,
    *,
    height: int,
    words: str = "",
    legend: bool = True,
) -> Drawn:
    """The figure under its title and ``subtitle``, with its caption; see ``style.finish``."""
    title, above = TITLES[name], subtitle(chosen, words)
    style.finish(figure, title, above, height=height, legend=legend)
    return Drawn(name, title, figure, caption)


def subtitle(chosen: Chosen, words: str = "") -> str:
    """Model, texts, budget and mode, in words."""
    model, modes = chosen.points[0].run["model"], _names(p.run["mode"] for p in chosen.points)
    texts = _names(p.run["dataset"] for p in chosen.points)
    words = chosen.budget_in_words or words
    if " and " in modes:  # each panel names its own
        modes = ""
    parts = [f"{model} on {texts}", words.replace(" ", "\N{NO-BREAK SPACE}"), modes]
    return ", ".join(filter(None, parts))


def circumstances(chosen: Chosen) -> str:
    """How many tokens, in what format, on which machine, when and by which code."""
    every = chosen.points
    texts = dict.fromkeys(
        f"{p.run['dataset']}: {p.run['scored_tokens']:,} tokens scored"
        f"{_documents(p.run['documents'])}{_mode(p, chosen)}"
        for p in every
    )
    where = _names(_where(p.run) for p in every)
    days = sorted({_day(p.run["created_at"]) for p in every})
    when = days[0].strftime("%d %B %Y").lstrip("0")
    if days[-1] != days[0]:
        when += f" to {days[-1].strftime('%d %B %Y').lstrip('0')}"
    dirty = any(point.run["git_dirty"] for point in every)
    code = _names(
        format_value(COLUMNS["git_commit"], p.run["git_commit"])
        for p in every
        if p.run["git_commit"]
    )
    code = code and f" at commit {code}{' with local changes' if dirty else ''}"
    caption = f"{'; '.join(texts)}. {where}. Run {when}{code}."
    if chosen.others:
        caption += (
            " Other runs are not shown: choose with --model, --dataset, --mode, --since or --sweep."
        )
    return caption


def bars(every: list[Point], what: str) -> str:
    """What the bars are: of perplexity, intervals where there are any; of times, repeats."""
    if what == "time" or not any(point.judged for point in every):
        return repeats(every, what)
    return JUDGED if what == "perplexity" else f"{JUDGED} {repeats(every, 'time')}"


def repeats(every: list[Point], what: str) -> str:
    """What the error bars are, or that there are none."""
    counts = sorted({point.repeats for point in every if point.repeats > 1})
    busy = "" if what == "perplexity" else doubted(every)
    if not counts:
        return f"No configuration was repeated, so there are no error bars.{busy}"
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    single = any(point.repeats == 1 for point in every)
    alone = "; a mark without a bar was run once" if single else ""
    mark = MARKS[what]
    return f"Error bars: lowest to highest {what} of {span} repeats, a mark {mark}{alone}.{busy}"


def doubted(every: list[Point]) -> str:
    """What a table says of times that are too long."""
    rows = [
        {**point.run, "variant": point.variant, "compared_waited": point.times.waited}
        for point in every
    ]
    return "".join(f" {note[0].upper()}{note[1:]}" for note in notes.doubted(rows))


def _where(run: Mapping[str, Any]) -> str:
    device = run["gpu"] or "GPU" if str(run["device"]).startswith("cuda") else run["cpu"]
    threads = f", {_count(run['threads'], 'thread')}" if run["threads"] else ""
    batch = f", {run['batch_size']} streams side by side" if run["batch_size"] > 1 else ""
    return f"{run['dtype']} on {run['device']}{threads}{batch} ({device}; {run['host']})"


def _names(names: Iterable[str]) -> str:
    every = list(dict.fromkeys(names))
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _documents(number: int | None) -> str:
    return f" in {number:,} documents" if (number or 1) > 1 else ""


def _mode(point: Point, chosen: Chosen) -> str:
    one = len({each.run["mode"] for each in chosen.points}) == 1
    return "" if one else f" in {point.run['mode']}"


def _day(stamp: str) -> datetime:
    return moment(str(stamp)[:10])
