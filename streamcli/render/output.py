"""Where text goes: data to stdout, words to stderr."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from streamcli.render import tables
from streamcli.results.comparison import Comparison

if TYPE_CHECKING:
    import pandas as pd


def say(text: str) -> None:
    """One line for the person, on stderr."""
    print(f"streamcli: {text}", file=sys.stderr)


def say_recorded(place: str, flag: str | None) -> None:
    """Where the rows are, and what to type next; ``flag`` is the value of --db, if it was given."""
    say(f"recorded in {place}; next: streamcli report{f' --db {flag}' if flag else ''}")


def terminal(found: list[Comparison]) -> None:
    """Every comparison as a Rich table."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    for comparison in found:
        page = tables.sheet(comparison)
        console.print(tables.rich_table(page))
        for note in page.notes:
            console.print(f"[dim]{note}[/dim]", highlight=False)
        console.print()


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
