"""Benchmarks as tables of words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamcli.render.tables import Sheet
from streamcli.results.columns import COLUMNS, Column, format_value

if TYPE_CHECKING:
    from streamcli.jobs.bench import Timed


def sheet(what: str, asked: dict[str, Any], timed: Timed) -> Sheet:
    """The arms of a benchmark, each beside its floor and the others."""
    columns = [
        Column("arm", "method", "text", ""),
        COLUMNS["engine"],
        COLUMNS["window"],
        Column("ms_per_token", "ms/token", "significant", ""),
        Column("interval", "95 % interval", "text", ""),
        Column("floor_ms", "floor (ms)", "significant", ""),
        Column("ratio_to_floor", "to floor", "ratio", ""),
    ]
    rows = [_flat(row) for row in timed.rows]
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith("to ")):
        columns.append(Column(name, name, "ratio", ""))
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith("speed-up")):
        columns.append(Column(name, name, "ratio", ""))
    if any(row["compile_s"] for row in rows):
        columns.append(Column("compile_s", "compiling (s)", "significant", ""))
    cells = [[format_value(column, row.get(column.name)) for column in columns] for row in rows]
    title = f"bench {what}: {timed.model}, {timed.where}, {asked['rounds']} rounds"
    notes = [
        *timed.notes,
        *_few(asked["rounds"]),
        "Arms are timed in turn; figures are medians over rounds, ratios are taken round by round.",
        f"This machine reads {timed.read_gb_per_s:.1f} GB/s and multiplies matrices at "
        f"{timed.gflops_per_s:,.0f} GFLOP/s; the floor is what a step must read or compute at "
        "these rates, medians over rounds too (core/measure/floors.py). "
        "to: this time over that one's.",
    ]
    return Sheet(title, columns, cells, notes)


def _few(rounds: int) -> list[str]:
    from core.measure.bench import ENOUGH

    said = f"{rounds} rounds are too few for an interval of 95 %: take {ENOUGH} or more."
    return [said] if rounds < ENOUGH else []


def startup(rows: list[dict[str, Any]], rounds: int) -> Sheet:
    """How long whole commands take."""
    columns = [
        Column("command", "command", "text", ""),
        Column("s", "median (s)", "significant", ""),
        Column("low_s", "95 % from (s)", "significant", ""),
        Column("high_s", "to (s)", "significant", ""),
    ]
    cells = [[format_value(column, row[column.name]) for column in columns] for row in rows]
    note = "A run imports torch and loads the bundled model; what comes after it reads the runs."
    return Sheet("bench startup", columns, cells, [note, *_few(rounds)])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row as cells: its interval in words, its ratios by the name of a column."""
    ends = (row["ms_per_token_low"], row["ms_per_token_high"])
    interval = " to ".join(format_value(COLUMNS["ms_per_token"], each) for each in ends)
    ratios = {f"to {name}": each[0] for name, each in row["ratios"].items()}
    faster = {f"speed-up on {name}": each[0] for name, each in row["speed_ups"].items()}
    return {
        **row,
        "interval": interval,
        "compile_s": row["compile_s"] or None,
        **ratios,
        **faster,
    }
