"""A report as one page that needs nothing else: tables, conclusions, figures and provenance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamcli import __version__
from streamcli.analysis.comparison import rows_of
from streamcli.render import output, tables
from streamcli.render.documents import Section
from streamcli.results.columns import (
    COLUMNS,
    FOUND,
    HASHES,
    HEADINGS,
    TABLE,
    chosen,
    format_value,
    reading,
)

if TYPE_CHECKING:
    from streamcli.render.figures import Drawn

TEMPLATES = Path(__file__).parent / "templates"
# What a page tells of a run beside its table: all but its figures.
PROVENANCE = tuple(
    name
    for heading, groups in HEADINGS.items()
    for name in reading(chosen(*groups, stored=True))
    if heading != FOUND and name not in TABLE
)
FIRST = ("decode-perplexity", "decode-runtime")  # the figures that answer: cost, and time
IN_FULL = (*HASHES, "git_commit", "workdir_commit")


def page(
    sections: Sequence[Section],
    drawn: Sequence[Drawn],
    *,
    place: str,
    when: str,
    above: Section | None = None,
    caution: str = "",
    remarks: Sequence[str] = (),
) -> str:
    """The page, whole: its style, its script and Plotly's are in it.

    Args:
        sections: What it shows, in order; none gives a page that says what to type.
        drawn: Its figures; one without a figure says why.
        place: How the database is named.
        when: When the page was made, in words.
        above: The overview of several tables.
        caution: How far the sentences may be trusted.
        remarks: What else the reader must know, such as what was left out.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters["with_code"] = _with_code
    order = [*FIRST, *(each.name for each in drawn)]
    figures = [_figure(each) for each in sorted(drawn, key=lambda each: order.index(each.name))]
    sheets, notes = tables.together([each.sheet for each in sections])
    apart = [replace(each, sheet=sheet) for each, sheet in zip(sections, sheets, strict=True)]
    return made.get_template("report.html").render(
        overview=_section(above, "overview") if above else None,
        sections=[_section(each, f"table-{number}") for number, each in enumerate(apart, start=1)],
        notes=notes,
        notes_title=tables.SHARED_TITLE,
        figures=figures,
        plotly=_plotly() if any(each["json"] for each in figures) else "",
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "report.js").read_text(encoding="utf-8"),
        facts=_facts(sections, place),
        caution=caution,
        remarks=remarks,
        when=when,
        version=__version__,
    )


def _figure(drawn: Drawn) -> dict[str, Any]:
    """A figure as JSON, and what its subtitle says, which the page sets itself."""
    if drawn.figure is None:
        return {"drawn": drawn, "json": "", "about": "", "first": False}
    about = drawn.figure.layout.title.subtitle.text or ""
    return {
        "drawn": drawn,
        "first": drawn.name in FIRST,
        "json": _script_safe(drawn.figure.to_json()),
        "about": re.sub(r"\s*<[^>]*>\s*", " ", about),
    }


def _section(section: Section, name: str) -> dict[str, Any]:
    records = rows_of(section.rows)
    columns = section.sheet.columns
    return {
        "id": name,
        "sheet": section.sheet,
        "words": section.words,
        "rows": [
            {
                "run_id": row.get("run_id", ""),
                "cells": [
                    (column, text, _key(row.get(column.name), text))
                    for column, text in zip(columns, texts, strict=True)
                ],
            }
            for row, texts in zip(records, section.sheet.rows, strict=True)
        ],
        "provenance": [_provenance(row) for row in records if row.get("run_id")],
    }


def _key(value: Any, text: str) -> Any:
    """What a cell is sorted by; nothing where it shows that there is nothing."""
    value = output.plain(value)
    return "" if text == "-" or value is None else value


def _provenance(row: dict[str, Any]) -> dict[str, Any]:
    def shown(name: str) -> str:
        column = COLUMNS[name]
        return str(row[name]) if name in IN_FULL and row[name] else format_value(column, row[name])

    facts = [(COLUMNS[n], shown(n)) for n in PROVENANCE if n in row and shown(n) != "-"]
    commit = format_value(COLUMNS["git_commit"], row.get("git_commit"))
    changed = output.plain(row.get("git_dirty"))
    settings = [
        f"{column.symbol} = {output.plain(row.get(name))}"
        for name, column in COLUMNS.items()
        if column.symbol
        and name not in tables.unused_sizes(row)
        and output.plain(row.get(name)) is not None
    ]
    return {
        "run_id": row["run_id"],
        "name": " ".join([str(row.get("method", "")), ", ".join(settings)]).strip(),
        "commit": f"{commit}, files changed" if changed else commit,
        "began": str(row.get("created_at", ""))[:16].replace("T", " "),
        "facts": facts,
    }


def _facts(sections: Sequence[Section], place: str) -> list[tuple[str, str]]:
    """What the page is about, in a few words."""
    facts = [
        (title, ", ".join(_several(sections, name)))
        for title, name in (("Model", "model"), ("Text", "dataset"), ("Mode", "mode"))
    ]
    began = _several(sections, "created_at")
    days = sorted({text[:10] for text in began})
    if days:
        facts.append(("Runs begun", days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"))
    facts.append(("Rows", f"{sum(len(e.rows) for e in sections if 'run_id' in e.rows):,}"))
    facts.append(("Database", place))
    return [(title, text) for title, text in facts if text]


def _several(sections: Sequence[Section], name: str) -> list[str]:
    found = dict.fromkeys(
        str(value)
        for each in sections
        if name in each.rows
        for value in each.rows[name].dropna().unique()
    )
    return list(found)


def _with_code(text: str) -> Any:
    """Words in which options, and what stands between backticks, are code."""
    from markupsafe import Markup

    made = Markup("")
    for place, part in enumerate(re.split(r"(`[^`]+`|(?<!\S)--[a-z-]+)", text)):
        wrap = "{}"
        if place % 2:
            wrap = "<code>{}</code>" if part[0] == "`" else '<code class="option">{}</code>'
        made += Markup(wrap).format(part.strip("`"))
    return made


def _script_safe(text: str) -> Any:
    """JSON that may stand in a script element: no ``<`` ends it."""
    from markupsafe import Markup

    return Markup(text.replace("<", "\\u003c"))


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
