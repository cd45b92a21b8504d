"""The paper's tables beside what was measured here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamcli.analysis.paper import Found
from streamcli.analysis.published import Series, figures
from streamcli.render.compared import nats_of
from streamcli.render.notes import intervals
from streamcli.render.tables import Sheet
from streamcli.results.columns import COLUMNS, Column, format_value

PPL, KEYS, RUN = (COLUMNS[name] for name in ("ppl", "attended_keys", "run_id"))
SOURCE = "paper"


def sheet(found: Found) -> Sheet:
    """One table: ours, what each row differs by from one of them, and what was published."""
    wanted, theirs = found.wanted, _published(found.wanted.name)
    columns = [
        Column("name", wanted.by, "text", ""),
        KEYS,
        PPL,
        Column("difference", f"nats vs {wanted.base}", "text", ""),
        RUN,
        *(Column(each.model, each.model, "perplexity", "") for each in theirs),
    ]
    rows = []
    for cell in found.cells:
        run = cell.run or {}
        key = wanted.published.get(cell.name, cell.name)
        printed = [each.values.get(key) for each in theirs]
        values = [
            cell.name,
            format_value(KEYS, run.get("attended_keys")),
            format_value(PPL, run.get("ppl")) if cell.run else "not run",
            nats_of(cell.difference),
            str(run.get("run_id", "-")),
            *("-" if value is None else f"{value:,.2f}" for value in printed),
        ]
        rows.append(values)
    title, notes = f"{wanted.name}: {wanted.about}", _notes(found, theirs)
    return Sheet(title, columns, rows, notes, wanted.name)


def records(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Every row of every table, ours and theirs, as plain values."""
    made = []
    for each in found:
        theirs = _published(each.wanted.name)
        for cell in each.cells:
            key = each.wanted.published.get(cell.name, cell.name)
            nats = cell.difference.nats if cell.difference else None
            made.append(
                {
                    "table": each.wanted.name,
                    each.wanted.by: cell.name,
                    **{n: (cell.run or {}).get(n) for n in ("run_id", "attended_keys", "ppl")},
                    "base": each.wanted.base,
                    "difference_nats": nats and nats.estimate,
                    "difference_low_nats": nats and nats.low,
                    "difference_high_nats": nats and nats.high,
                    "published": {s.model: s.values[key] for s in theirs if key in s.values},
                }
            )
    return made


def _published(table: str) -> list[Series]:
    return [each for each in figures().series if each.table == table]


def _notes(found: Found, theirs: Sequence[Series]) -> list[str]:
    notes = []
    if found.runs:
        run = found.runs[0]
        notes.append(
            f"ours: {run['model']} on {run['dataset']}, {run['scored_tokens']:,} tokens scored as "
            f"one stream in exact chunks, {run['dtype']}."
        )
    held = [(cell.name, cell.difference) for cell in found.cells if cell.difference]
    if held:
        made = [(name, each.scope, each.clusters) for name, each in held if not each.equal]
        notes.append(f"nats: mean over all tokens, lower is better{intervals(made)}.")
    if any(cell.run is None for cell in found.cells):
        notes.append("not run: it failed, or its cache is beyond what the model was trained on.")
    alike: dict[str, list[str]] = {}
    for each in theirs:
        alike.setdefault(f"{each.text}, {each.setting}", []).append(each.model)
    settings = "; ".join(f"{', '.join(models)} on {what}" for what, models in alike.items())
    source = figures().sources[SOURCE]
    notes.append(f"published: {source.name} ({settings}). {source.differs}")
    return notes
