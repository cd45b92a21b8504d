"""Published figures as tables and as records, with ours beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from streamcli.analysis import published
from streamcli.analysis.comparison import Row
from streamcli.analysis.published import Beside, Published
from streamcli.render.compared import RATIO
from streamcli.render.tables import MARK, Sheet, title
from streamcli.results.columns import COLUMNS, Column, format_value

PPL, TOTAL = COLUMNS["ppl"], COLUMNS["total_s"]
OURS = ("run_id", "model", "dataset", "scored_tokens", "ppl", "total_s", "speed_up")


def seed(each: Beside) -> Sheet:
    """A table of the seed report with our figures in the last columns."""
    theirs = {figure.method: figure for figure in published.of(each.mode, each.dataset)}
    columns = [
        COLUMNS["method"],
        *(replace(c, title=f"published {t}") for c, t in ((PPL, "ppl"), (TOTAL, "s"))),
        replace(RATIO, title="published speed-up"),
        *(replace(c, title=f"ours {t}") for c, t in ((PPL, "ppl"), (TOTAL, "s"))),
        replace(RATIO, title="ours speed-up"),
    ]
    rows = []
    for method in published.METHODS:
        figure, mine = theirs.get(method), each.rows.get(method, {})
        printed = published.as_printed(figure) if figure else ("-", "-", "-")
        names = ("ppl", "total_s", "speed_up")
        texts = [format_value(c, mine.get(n)) for c, n in zip(columns[4:], names, strict=True)]
        rows.append([f"{method}{MARK if figure and figure.why else ''}", *printed, *texts])
    notes = ["Seconds (s) are for the whole text; a speed-up is recompute's over the method's."]
    if theirs:
        printed_so = (each.mode, each.dataset) in published.PRINTED
        odd = "; the speed-ups that it printed are not those of its seconds" if printed_so else ""
        notes.append(f"published: {published.SEED}{odd}.")
    else:
        notes.append("Of this table of the seed report no figures are at hand.")
    if any(figure.why for figure in theirs.values()):
        notes.append(f"{MARK} an artefact, see the last table.")
    if each.ours:
        notes.append(f"ours: {title(each.ours.same)}.")
        keys = {
            m: int(row["attended_keys"]) for m, row in each.rows.items() if m in published.METHODS
        }
        if len(set(keys.values())) > 1:
            seen = ", ".join(f"{method} {count:,}" for method, count in keys.items())
            notes.append(f"ours, the most keys that a token sees: {seen}.")
    else:
        command = f"streamcli sweep --datasets {each.dataset} --modes {each.mode}"
        notes.append(f"ours: nothing is recorded yet; {command} does it.")
    return Sheet(f"{each.mode} on {published.TEXTS[each.dataset]}", columns, rows, notes)


def artefacts(found: Sequence[Beside]) -> Sheet:
    """The published figures that are not what they seem, with what the method really gives."""
    columns = [
        COLUMNS["mode"],
        Column("text", "text", "text", "Text"),
        Column("published", "seed's kvpress", "text", "Perplexity and time as published"),
        Column("really", "kvpress here", "text", "What the method gives in this database"),
        Column("why", "why the seed's is not it", "text", "Why the published figure is another"),
    ]
    ours = {(each.mode, each.dataset): each.rows for each in found}
    rows = []
    for figure in published.ARTEFACTS:
        mine = ours.get((figure.mode, figure.dataset), {})
        rows.append(
            [
                figure.mode,
                published.TEXTS[figure.dataset],
                "{} in {} s".format(*published.as_printed(figure)),
                _really(figure, mine),
                figure.why,
            ]
        )
    quoted: dict[str, list[str]] = {}
    for each in published.QUOTED:
        keys, values = "/".join(each.values), "/".join(_perplexity(v) for v in each.values.values())
        quoted.setdefault(each.source, []).append(f"{each.what} {keys}: {values}")
    quoted[published.PAPER].append(published.PAPER_SPEED_UP)
    notes = [f"{source}: perplexity of {'; '.join(said)}." for source, said in quoted.items()]
    return Sheet("Published figures of kvpress that are artefacts", columns, rows, notes)


def records(found: Sequence[Beside]) -> list[dict[str, Any]]:
    """Every published figure with ours beside it, as objects keyed by column name."""
    made = []
    for each in found:
        theirs = {figure.method: figure for figure in published.of(each.mode, each.dataset)}
        for method in published.METHODS:
            figure, mine = theirs.get(method), each.rows.get(method, {})
            made.append(
                {
                    "mode": each.mode,
                    "text": published.TEXTS[each.dataset],
                    "method": method,
                    "published_ppl": figure and figure.ppl,
                    "published_total_s": figure and figure.total_s,
                    "published_speed_up": figure and published.speed_up(figure),
                    "source": figure and published.SEED,
                    "artefact": (figure and figure.why) or None,
                }
                | {name: mine.get(name) for name in OURS}
            )
    return made


def _both(ppl: float, total_s: float) -> str:
    return f"{format_value(PPL, ppl)} in {format_value(TOTAL, total_s)} s"


def _really(figure: Published, mine: dict[str, Row]) -> str:
    """What the method gives here, and what doing as the seed did gives; or how to measure it."""
    row, as_run = mine.get(figure.method), mine.get(figure.really)
    if row is None:
        return (
            f"- (streamcli run --dataset {figure.dataset} --method {figure.method} "
            f"--mode {figure.mode})"
        )
    told = _both(row["ppl"], row["total_s"])
    if as_run is not None:
        told += (
            f"; run as the seed did ({figure.really}): {_both(as_run['ppl'], as_run['total_s'])}"
        )
    return told


def _perplexity(value: float) -> str:
    """As published: two decimals, none on whole thousands."""
    return f"{value:.2f}" if value % 1 or value < 1000 else f"{value:.0f}"
