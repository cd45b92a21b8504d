"""Where text goes: data to stdout, words to stderr."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from streamcli.render import tables
from streamcli.results.comparison import Comparison

if TYPE_CHECKING:
    import pandas as pd


PIPE_WIDTH = 500  # a table takes what it needs of it


def say(text: str) -> None:
    """One line for the person, on stderr."""
    print(f"streamcli: {text}", file=sys.stderr)


def say_recorded(place: str, flag: str | None) -> None:
    """Where the rows are, and what to type next; ``flag`` is the value of --db, if it was given."""
    say(f"recorded in {place}; next: streamcli report{f' --db {flag}' if flag else ''}")


def page(sheet: tables.Sheet) -> None:
    """One table and its notes; on a narrow terminal the table closes up, but stays whole."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    table = tables.rich_table(sheet)
    if Console(width=PIPE_WIDTH).measure(table).maximum > console.width:
        table = tables.rich_table(sheet, gap=1)
    needed = Console(width=PIPE_WIDTH).measure(table).minimum
    console.print(table, width=max(needed, console.width), crop=False)
    for note in sheet.notes:
        console.print(f"[dim]{escape(note)}[/dim]", highlight=False)
    console.print()


def terminal(found: list[Comparison]) -> None:
    """Every comparison as a table."""
    for comparison in found:
        page(tables.sheet(comparison))


def passing(text: str) -> None:
    """A sign of life on a terminal's stderr, overwritten by the next one."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def markdown(found: list[Comparison]) -> None:
    """Every comparison as a Markdown table."""
    print("\n\n".join(tables.markdown(tables.sheet(comparison)) for comparison in found))


def json_lines(runs: pd.DataFrame) -> None:
    """Each run as one JSON object whose keys are the column names, one a line."""
    for row in runs.to_dict("records"):
        print(json.dumps({name: _plain(value) for name, value in row.items()}))


def _plain(value: Any) -> Any:
    """A value that JSON has; what is missing, or no number, is null."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return None if type(value).__name__ == "NAType" else value
