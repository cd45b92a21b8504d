"""Published figures and ours, as tables and as records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from core.registry import BASELINE
from streamcli.analysis.comparison import Row
from streamcli.analysis.published import SEED, Published, SeedTable, Series, figures
from streamcli.render.notes import MARK
from streamcli.render.tables import Sheet, title
from streamcli.results.columns import ALL, COLUMNS, Column, format_value

FIGURES = ("ppl", "total_s", "speed_up")
PPL, TOTAL, SPEED_UP = (ALL[name] for name in FIGURES)
OURS = ("run_id", "model", "dataset", "scored_tokens", *FIGURES)


def seed(each: SeedTable) -> Sheet:
    """A table of the seed report with our figures in the last columns."""
    known, theirs = figures(), each.published
    columns = [
        COLUMNS["method"],
        *(replace(c, title=f"published {t}") for c, t in ((PPL, "ppl"), (TOTAL, "s"))),
        replace(SPEED_UP, title="published speed-up"),
        *(replace(c, title=f"ours {t}") for c, t in ((PPL, "ppl"), (TOTAL, "s"))),
        replace(SPEED_UP, title="ours speed-up"),
    ]
    rows = []
    for method in known.methods:
        figure, mine = theirs.get(method), each.rows.get(method, {})
        printed = figure.as_printed() if figure else ("-", "-", "-")
        texts = [format_value(c, mine.get(n)) for c, n in zip(columns[4:], FIGURES, strict=True)]
        rows.append([f"{method}{MARK if figure and figure.why else ''}", *printed, *texts])
    notes = ["Seconds (s) are for the whole text; a speed-up is recompute's over the method's."]
    if theirs:
        printed_so = (each.mode, each.dataset) in known.printed
        odd = "; the speed-ups that it printed are not those of its seconds" if printed_so else ""
        notes.append(f"published: {known.sources[SEED].name}{odd}.")
    else:
        notes.append("Of this table of the seed report no figures are at hand.")
    if any(figure.why for figure in theirs.values()):
        notes.append(f"{MARK} an artefact, see the last table.")
    if each.ours:
        notes.append(f"ours: {title(each.ours.same)}.")
        keys = {m: int(row["attended_keys"]) for m, row in each.rows.items() if m in known.methods}
        if len(set(keys.values())) > 1:
            seen = ", ".join(f"{method} {count:,}" for method, count in keys.items())
            notes.append(f"ours, the most keys that a token sees: {seen}.")
    else:
        command = f"streamcli sweep --datasets {each.dataset} --modes {each.mode}"
        notes.append(f"ours: nothing is recorded yet; {command} does it.")
    return Sheet(f"{each.mode} on {known.texts[each.dataset].name}", columns, rows, notes)


def artefacts(found: Sequence[SeedTable]) -> Sheet:
    """The published figures that are not what they seem, with what the method really gives."""
    columns = [
        COLUMNS["mode"],
        Column("text", "text", "text", "Text"),
        Column("published", "seed's kvpress", "text", "Perplexity and time as published"),
        Column("really", "kvpress here", "text", "What the method gives in this database"),
        Column("why", "why the seed's is not it", "text", "Why the published figure is another"),
    ]
    known = figures()
    ours = {(each.mode, each.dataset): each.rows for each in found}
    rows = []
    for figure in known.artefacts:
        mine = ours.get((figure.mode, figure.dataset), {})
        rows.append(
            [
                figure.mode,
                known.texts[figure.dataset].name,
                "{} in {} s".format(*figure.as_printed()),
                _really(figure, mine),
                figure.why,
            ]
        )
    quoted = {
        key: [_series(each) for each in known.series if each.source == key] for key in known.sources
    }
    for each in known.speed_ups:
        over = "re-computation" if each.over == BASELINE else each.over
        quoted[each.source].append(
            f"a token up to {each.value:g}x faster than {over} ({each.model}, {each.setting})"
        )
    notes = [
        f"{known.sources[key].name}: perplexity of {'; '.join(words)}."
        for key, words in quoted.items()
        if words
    ]
    return Sheet("Published figures of kvpress that are artefacts", columns, rows, notes)


def records(found: Sequence[SeedTable]) -> list[dict[str, Any]]:
    """Every published figure and ours, as objects keyed by column name."""
    known, made = figures(), []
    for each in found:
        for method in known.methods:
            figure, mine = each.published.get(method), each.rows.get(method, {})
            made.append(
                {
                    "mode": each.mode,
                    "text": known.texts[each.dataset].name,
                    "method": method,
                    "published_ppl": figure and figure.ppl,
                    "published_total_s": figure and figure.total_s,
                    "published_speed_up": figure and figure.speed_up,
                    "source": figure and known.sources[SEED].name,
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
    words = _both(row["ppl"], row["total_s"])
    if as_run is not None:
        words += (
            f"; run as the seed did ({figure.really}): {_both(as_run['ppl'], as_run['total_s'])}"
        )
    return words


def _series(each: Series) -> str:
    """A series in words: what it is of, what varies, and the perplexities."""
    parts = (each.model, each.text, each.setting, each.by and f"by {each.by}")
    keys, values = "/".join(each.values), "/".join(map(_perplexity, each.values.values()))
    return f"{', '.join(filter(None, parts))} {keys}: {values}"


def _perplexity(value: float) -> str:
    """As published: two decimals, none on whole thousands."""
    return f"{value:.2f}" if value % 1 or value < 1000 else f"{value:.0f}"
