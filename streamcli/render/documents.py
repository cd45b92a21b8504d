"""Reports as documents: Markdown and LaTeX of tables, CSV and JSON of rows."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamcli import harmless
from streamcli.analysis.comparison import TIMES, Row, rows_of, time_column
from streamcli.render import notes, output, tables
from streamcli.render.tables import Sheet
from streamcli.results.columns import ADDED, ALL, COLUMNS

if TYPE_CHECKING:
    import pandas as pd

COMPARED = "compared_ms"
TIMED = "ms/token and speed-up are of the median decode step; in chunked mode, of the mean"
NOTHING = "No finished run matches; record one with `streamcli run`."


@dataclass(frozen=True)
class Section:
    """A table of a report, the rows behind it in the same order, and what it shows in words."""

    sheet: Sheet
    rows: pd.DataFrame
    words: Sequence[str] = ()


def names(rows: pd.DataFrame, asked: Sequence[str] = ()) -> list[str]:
    """The columns of an export: those asked for, or all of a run and what comparing adds."""
    return list(asked) or [*COLUMNS, *(name for name in ADDED if name in rows)]


def flat(rows: pd.DataFrame, columns: Sequence[str], title: str) -> Sheet:
    """Rows one by one, with exactly these columns.

    Of a configuration that was run several times, the time a token is by the rule on repeats.
    """
    chosen = [ALL[name].headed for name in columns]
    records = [_by_rule(row) for row in rows_of(rows)]
    texts = [tables.values(row, chosen) for row in records]
    cells = [[row[name] for name in columns] for row in texts]
    said = notes.changes(records) if notes.CHANGE in columns else []
    repeated = notes.repeated(records)
    if COMPARED in columns or (repeated and not {*TIMES}.isdisjoint(columns)):
        said.append(f"{TIMED}{repeated}.")
    return Sheet(title, chosen, cells, said)


def _by_rule(row: Row) -> Row:
    """A row of a report, with the time of its repeats in place of the latest run's own."""
    value = row.get(COMPARED)
    return row if value is None else row | {time_column(str(row["mode"])): value}


def json_list(rows: Iterable[dict[Any, Any]]) -> str:
    """One list of objects keyed by column name, an object a line; what is missing is null."""
    lines = [json.dumps({k: output.plain(v) for k, v in row.items()}) for row in rows]
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"


def csv_table(rows: pd.DataFrame, columns: Sequence[str]) -> str:
    """As RFC 4180 has it, with a header, every digit of a number, and nothing where it is missing.

    Flags are ``true`` and ``false``, as in JSON.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows[list(columns)].itertuples(index=False, name=None):
        writer.writerow(map(_csv_cell, row))
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        return harmless.csv_cell(value)
    value = output.plain(value)
    return str(value).lower() if isinstance(value, bool) else value


def markdown(sections: Sequence[Section], caution: str = "", above: Section | None = None) -> str:
    """Pipe tables, each with its title above and its notes and conclusions below.

    Where ``above``, an overview, stands over them, it says in a table what conclusions say in
    words, and these are left out. How far they may be trusted, ``caution``, is said once.
    """
    words = [
        f"In words: {' '.join(each.words)}" if each.words and not above else "" for each in sections
    ]
    over = above.sheet if above else None
    sheets = [each.sheet for each in sections]
    parts = [tables.markdown_pages(sheets, words, over)] if sections else []
    concluded = any(words) and caution
    return "\n\n".join([*(parts or [NOTHING]), *([caution] if concluded else [])]) + "\n"


LATEX_HEAD = r"% \usepackage{booktabs,threeparttable} in the preamble, then \input this file."


def latex(sections: Sequence[Section]) -> str:
    """Tables for a paper, set with booktabs and threeparttable; each float has its own notes."""
    if not sections:
        return f"% {NOTHING}\n"
    used: dict[str, int] = {}
    parts = [LATEX_HEAD]
    for section in sections:
        slug = re.sub(r"\(.*?\)|[^a-z0-9]+", "-", section.sheet.title.lower()).strip("-")
        used[slug] = used.get(slug, 0) + 1
        label = slug if used[slug] == 1 else f"{slug}-{used[slug]}"
        parts.append(_latex_table(section.sheet, label))
    return "\n\n".join(parts) + "\n"


def _latex_table(sheet: Sheet, label: str) -> str:
    aligned = "".join("r" if column.align == "right" else "l" for column in sheet.columns)
    head = " & ".join(latex_text(column.title) for column in sheet.columns)
    body = [" & ".join(map(_latex_cell, row)) + r" \\" for row in sheet.rows]
    notes = [rf"\item {latex_text(note)}" for note in sheet.notes]
    if notes:
        notes = [r"\begin{tablenotes}\footnotesize", *notes, r"\end{tablenotes}"]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\small",
        r"\begin{threeparttable}",
        rf"\caption{{{latex_text(sheet.title)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{@{{}}{aligned}@{{}}}}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *notes,
        r"\end{threeparttable}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _latex_cell(text: str) -> str:
    if text == "-":
        return "--"
    # a leading bracket would be read as an argument of the \\ before it
    return re.sub(r"^-(?=\d)", "$-$", re.sub(r"^\[", "{[}", latex_text(text)))


SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "\u00d7": r"$\times$",
    "\u2212": r"$-$",
    "\u2019": "'",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


LETTERS = "\u00df\u00c6\u00d8\u00e6\u00f8"  # that TeX's first fonts have, beside accented ones


def latex_text(text: str) -> str:
    """Words as LaTeX sets them; what pdfLaTeX has no glyph for is named, such as [U+4E2D]."""
    text = "".join(map(_latex_character, harmless.visible(" ".join(text.split()))))
    return text.replace("--", "-{}-")  # two hyphens would join


def _latex_character(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    accented = character <= "\u00ff" and unicodedata.decomposition(character)[:2] == "00"
    if character.isascii() or accented or character in LETTERS:
        return character
    return f"[U+{ord(character):04X}]"
