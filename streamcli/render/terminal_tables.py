"""Tables of words as a terminal shows them, by rich and, where nothing has to wrap, without."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamcli.render.tables import BASE, VERDICT, Sheet

SHORT = 16  # characters; a longer text may wrap
SIZES = {"attended_keys": "{} keys", "n_sink": "S = {}"}  # of a row, by its column's name
WIDE = 1000  # columns, more than any table takes
_INTERVAL = re.compile(r" (?=\[|\([+-]?[\d.,]+ to )")  # before one, in a cell


def rich_table(page: Sheet, gap: int = 2) -> Table:
    """For a terminal, with ``gap`` spaces between columns; only long words wrap, no number does."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, gap - 1, 0, 0),
    )
    for place, column in enumerate(page.columns):
        lines = [line for row in page.rows for line in row[place].split("\n")]
        longest, words = max(map(len, [*column.title.split(), *lines])), column.align == "left"
        heading = textwrap.wrap(column.title, longest, break_on_hyphens=False)
        table.add_column(
            Text(column.title if words else "\n".join(heading)),
            justify=column.align,
            no_wrap=not words,
            min_width=min(longest, SHORT) if words else longest,
        )
    for row in page.rows:
        table.add_row(*map(Text, row))
    return table


def set_plainly(page: Sheet, width: int) -> tuple[list[str], list[str]] | None:
    """The lines of headings, and those below, of a table that fits on ``width`` columns as it is.

    As ``rich_table`` sets them, in a tenth of its time; None where something would have to wrap.
    """
    texts = [text for row in page.rows for text in row]
    if any("\n" in text or "\t" in text for text in texts) or not page.columns:
        return None
    cells = list(zip(*page.rows, strict=True)) if page.rows else [()] * len(page.columns)
    headings, widths = [], []
    for column, held in zip(page.columns, cells, strict=True):
        longest = max(map(len, [*column.title.split(), *held]))
        words = column.align == "left"
        wrapped = textwrap.wrap(column.title, longest, break_on_hyphens=False)
        headings.append([column.title] if words else wrapped)
        least = min(longest, SHORT) if words else longest
        widths.append(max([least, *map(cell_len, (*headings[-1], *held))]))
    gap = next((gap for gap in (2, 1) if sum(widths) + gap * (len(widths) - 1) <= width), 0)
    if not gap:
        return None
    deepest = max(map(len, headings))
    tops = zip(*([""] * (deepest - len(each)) + each for each in headings), strict=True)
    aligns = [column.align == "left" for column in page.columns]

    def line(row: Sequence[str]) -> str:
        return (" " * gap).join(
            text + " " * (wide - cell_len(text)) if left else " " * (wide - cell_len(text)) + text
            for text, wide, left in zip(row, widths, aligns, strict=True)
        )

    rule = box.SIMPLE_HEAD.head_row_horizontal * (sum(widths) + gap * (len(widths) - 1))
    return [line(row) for row in tops], [rule, *map(line, page.rows)]


def fitted(page: Sheet, width: int) -> tuple[Table, int, list[str]]:
    """The roomiest form of a table on ``width`` columns, how many it takes, and its notes.

    First the gaps close up, then words wrap, then intervals go below their estimates, and at last
    the verdicts become notes; what is wider still is left whole.
    """
    wide = Console(width=WIDE, height=WIDE)  # without a height, a dumb terminal has 80 columns
    folded = _folded(page)
    forms = [(page, 2, False), (page, 1, False), (page, 1, True), (folded, 1, True)]
    for shown, gap, wraps in [*forms, (_without_verdicts(folded), 1, True)]:
        needed = wide.measure(rich_table(_widest(shown), gap))
        if (needed.minimum if wraps else needed.maximum) <= width:
            break
    return rich_table(shown, gap), max(needed.minimum, width), shown.notes


def _widest(page: Sheet) -> Sheet:
    """The few rows that settle how wide a table is; to measure all takes as long as to print."""
    rows = []
    for place in range(len(page.columns) if page.rows else 0):
        rows.append(max(page.rows, key=lambda row: len(row[place])))
        rows.append(max(page.rows, key=lambda row: max(map(len, row[place].split()), default=0)))
    return replace(page, rows=rows)


def _folded(page: Sheet) -> Sheet:
    return replace(page, rows=[[_INTERVAL.sub("\n", cell) for cell in row] for row in page.rows])


def _without_verdicts(page: Sheet) -> Sheet:
    if page.columns[-1].name != VERDICT:
        return page
    rows = [row[:-1] for row in page.rows]
    verdicts = [f"{_named(page, row)}: {row[-1]}" for row in page.rows if row[-1] != BASE]
    return replace(page, columns=page.columns[:-1], rows=rows, notes=[*verdicts, *page.notes])


def _named(page: Sheet, row: Sequence[str]) -> str:
    """A row in a note: its first cell, and the sizes by which a table of methods has it."""
    cells = {column.name: cell for column, cell in zip(page.columns, row, strict=True)}
    sizes = [
        words.format(cells[name]) for name, words in SIZES.items() if cells.get(name, "-") != "-"
    ]
    return f"{row[0]} ({', '.join(sizes)})" if sizes else row[0]
