"""Comparisons in, tables of words out: for a terminal and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from streamcli.results.columns import COLUMNS, Column, format_value
from streamcli.results.comparison import Comparison, time_column

CHANGE = Column("ppl_change", "vs recompute", "percent", "Perplexity against re-computation")
SPEED_UP = Column("speed_up", "speed-up", "ratio", "Time a token of re-computation over this one's")
NO_BUDGET = {"dense": ("n_sink", "window"), "recompute": ("n_sink", "window")}


@dataclass(frozen=True)
class Sheet:
    """A table in words.

    Attributes:
        title: What the rows share.
        columns: Title and alignment of each column.
        rows: The cells.
        notes: What a reader must know.
    """

    title: str
    columns: list[Column]
    rows: list[list[str]]
    notes: list[str]


def sheet(comparison: Comparison) -> Sheet:
    """One comparison as a table."""
    mode = str(comparison.same["mode"])
    columns = _columns(mode)
    rows = [_cells(row, columns) for row in comparison.runs.to_dict("records")]
    notes = [*_notes(comparison, mode)]
    return Sheet(_title(comparison.same), columns, rows, notes)


def rich_table(page: Sheet) -> Table:
    """For a terminal."""
    table = Table(
        title=page.title, title_justify="left", title_style="bold", caption_justify="left"
    )
    for column in page.columns:
        table.add_column(column.title, justify=column.align, no_wrap=True)
    for row in page.rows:
        table.add_row(*row)
    return table


def markdown(page: Sheet) -> str:
    """A pipe table with its title above and its notes below."""
    head = "| " + " | ".join(column.title for column in page.columns) + " |"
    rule = "|" + "|".join("---:" if c.align == "right" else ":---" for c in page.columns) + "|"
    body = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in page.rows]
    notes = [f"- {note}" for note in page.notes]
    return "\n".join([f"**{page.title}**", "", head, rule, *body, *([""] if notes else []), *notes])


def _columns(mode: str) -> list[Column]:
    time = COLUMNS[time_column(mode)]
    time = replace(time, title="ms/token" if mode == "decode-loop" else "ms/token (mean)")
    names = ("method", "n_sink", "window", "attended_keys", "ppl")
    rest = ("kv_mib", "peak_mem_mib")
    listed = [*(COLUMNS[n] for n in names), CHANGE, time, SPEED_UP, *(COLUMNS[n] for n in rest)]
    return [
        replace(c, title=f"{c.title} ({c.unit})" if c.unit == "MiB" else c.title) for c in listed
    ]


def _cells(row: dict[Any, Any], columns: list[Column]) -> list[str]:
    unused = NO_BUDGET.get(row["method"], ())
    return [
        "-" if column.name in unused else format_value(column, row[column.name])
        for column in columns
    ]


def _title(same: dict[str, Any]) -> str:
    device = f"{same['threads']} CPU threads" if same["device"] == "cpu" else same["device"]
    return (
        f"{same['model']} on {same['dataset']} ({int(same['scored_tokens']):,} tokens scored), "
        f"{same['mode']}, {same['dtype']}, {device}"
    )


def _notes(comparison: Comparison, mode: str) -> list[str]:
    timed = (
        "ms/token is the median decode step with a full cache"
        if mode == "decode-loop"
        else "ms/token is elapsed time over tokens: a throughput, not a latency"
    )
    notes = [f"keys: the most a query sees, itself included; {timed}."]
    for text in comparison.runs["notes"].dropna():
        notes.extend(line for line in text.splitlines() if line not in notes)
    if comparison.older:
        notes.append(f"{comparison.older} older runs of the same configurations are not shown.")
    return notes
