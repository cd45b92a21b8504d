"""Runs, one or many, and the state of their database, as tables of words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from core.result import perplexity
from streamcli.analysis import distances
from streamcli.analysis.comparison import TIMES, time_column
from streamcli.render.notes import HORIZON, HORIZONS
from streamcli.render.tables import TOLD, Sheet, unused_sizes
from streamcli.results.columns import (
    ALL,
    COLUMNS,
    DOCUMENTS,
    HASHES,
    HEADINGS,
    PUBLIC,
    TASK,
    Column,
    Group,
    chosen,
    format_span,
    format_value,
    missing,
    reading,
)

if TYPE_CHECKING:
    import pandas as pd

    from streamcli.analysis.repetition import Change

WHAT = Column("what", "", "text", "What is told")
VALUE = Column("value", "", "text", "Its value")
ANSWERS = "answers"  # told by distance
SHORTEST = 10  # characters of a ULID that tell the millisecond
RUN = [name for name in chosen(Group.RUN) if name in PUBLIC]
LISTED = reading((*RUN, *TASK, "method", "kept", "ppl", "compared_ms"))
MAY_SHARE = ("status", *TASK)
WORDS = [name for name in chosen(Group.WORDS, stored=True) if name != "notes"]
READ = tuple(  # the columns of runs that a list of them takes
    dict.fromkeys(
        name
        for name in (
            *LISTED,
            *chosen(Group.METHOD, Group.KEYS, Group.RUN),
            *TIMES,
            *WORDS,
            "process",
        )
        if name in COLUMNS
    )
)
DOCUMENT = [*DOCUMENTS.values()][1:]
DOCUMENT.insert(DOCUMENT.index(DOCUMENTS["nll_nats"]), COLUMNS["ppl"])


UNTOLD = (
    "running, begun on another machine or in another container or by an older version, so that it "
    "can't be told here whether it has ended; streamcli runs delete RUN --force takes it away."
)


def listing(runs: pd.DataFrame, place: str, total: int, untold: int = 0) -> Sheet:
    """Runs, a line each, in their order.

    Args:
        runs: Their rows.
        place: The database.
        total: How many there are to list.
        untold: Of how many it is not known whether they are running.
    """
    rows = runs.to_dict("records")
    length = telling([str(row["run_id"]) for row in rows])
    begin = 5 if len({row["created_at"][:4] for row in rows}) == 1 else 0  # years, if several
    for row in rows:
        row["run_id"] = row["run_id"][:length]
        row["created_at"] = row["created_at"][begin:16].replace("T", " ")
        row["kept"] = None if unused_sizes(row) else f"{row['n_sink']}+{row['window']}"
        row["compared_ms"] = row[time_column(row["mode"])]
    columns = [ALL[name] for name in LISTED]
    shared = {name: rows[0][name] for name in MAY_SHARE if len({row[name] for row in rows}) == 1}
    if len(rows) > 1:  # what all have in common is said once
        columns = [column for column in columns if column.name not in shared]
    cells = [[format_value(column, row[column.name]) for column in columns] for row in rows]
    older = (
        f"; {total - len(rows):,} older ones are not shown (--limit)" if total > len(rows) else ""
    )
    found = f"{len(rows)} of {number_of(total)} of {place}{older}"
    note = f"{found}. streamcli runs show RUN tells all of one."
    title = ", ".join(shared.values() if len(rows) > 1 else ())
    by_run = [(row["run_id"], "; ".join(row[name] for name in WORDS if row[name])) for row in rows]
    remarks = [f"{run_id}: {text}" for run_id, text in by_run if text]
    return Sheet(
        title, columns, cells, [*remarks, *([f"{untold} {UNTOLD}"] if untold else []), note]
    )


def details(run: dict[str, Any], documents: pd.DataFrame) -> list[Sheet]:
    """One run: everything that it has a value for, in groups, and its documents."""
    sheets = []
    for title, groups in HEADINGS.items():
        names = [name for name in reading(chosen(*groups, stored=True)) if not _same(run, name)]
        names = [name for name in names if name != ANSWERS]
        rows = [_fact(COLUMNS[name], run[name]) for name in names]
        if rows := [row for row in rows if row[1] not in ("", "-")]:
            columns = [Column("what", title, "text", ""), VALUE, WHAT]
            sheets.append(Sheet("", columns, rows, []))
    if spans := distances.spans(run[ANSWERS]):
        by_distance = [
            [span.words, f"{span.accuracy:.0%}{format_span(*span.ends)}", f"{span.asked:,}"]
            for span in spans
        ]
        columns = [TOLD, COLUMNS["accuracy"], COLUMNS["questions"]]
        reached = distances.horizon(run)
        by_distance.append([HORIZON, reached.words if reached else "-", ""])
        sheets.append(Sheet("", columns, by_distance, [HORIZONS]))
    asks = not missing(run["questions"])
    columns = [each for each in DOCUMENT if asks or each.group is not Group.ANSWERS]
    rows = []
    for row in documents.to_dict("records"):
        row["ppl"] = perplexity(row["nll_nats"] / max(1, row["scored_tokens"]))
        rows.append([format_value(column, row[column.name]) for column in columns])
    return sheets + ([Sheet("", columns, rows, [])] if rows else [])


def stats(found: dict[str, Any], counted: Sequence[str]) -> Sheet:
    """How much a database holds, by kind."""
    columns = [WHAT, VALUE, Column("runs", "runs", "count", "How many")]
    rows = []
    for name in counted:
        for value, many in found[name].items():
            first = value == next(iter(found[name]))
            rows.append([name if first else "", str(value), f"{many:,}"])
    notes = [
        f"{found['place']}: {number_of(found['runs'])}, {found['scored_tokens']:,} tokens scored, "
        f"in {size(found['size_bytes'])}."
    ]
    if found["runs"]:
        oldest, newest = (found[name][:16].replace("T", " ") for name in ("oldest", "newest"))
        notes.append(f"The first began {oldest}, the last {newest} (UTC).")
    return Sheet("", columns, rows, notes)


def check(found: Iterable[tuple[str | None, str]], place: str) -> Sheet:
    """What is wrong with a database: a run, or None where it is no run's, and what."""
    columns = [Column("run", "run", "text", "Which run"), Column("what", "finding", "text", "")]
    return Sheet(place, columns, [[run_id or "-", what] for run_id, what in found], [])


def number_of(number: int) -> str:
    """So many runs, in words."""
    return f"{number:,} run{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Bytes in a unit that suits them."""
    mib = number / 2**20
    return f"{mib:,.1f} MiB" if mib >= 1 else f"{number / 2**10:,.0f} KiB"


def alone(rows: Sequence[dict[str, Any]], word: str, columns: list[Column], place: str) -> Sheet:
    """Recorded benchmarks or probes, ``word``, a line each, newest first."""
    length = telling([str(row[f"{word}_id"]) for row in rows])
    short = {f"{word}_id": length, "created_at": len("2026-01-31T12:00")}
    cells = [
        [format_value(each, row[each.name])[: short.get(each.name)] for each in columns]
        for row in rows
    ]
    number = f"{len(rows)} {word}{'s' * (len(rows) > 1)}"
    command = "bench" if word == "benchmark" else word
    note = f"streamcli {command} --show NAME shows one."
    return Sheet(f"{number} in {place}", columns, cells, [note])


def telling(run_ids: list[str]) -> int:
    """How many characters tell these names apart."""
    for length in range(SHORTEST, len(max(run_ids, default=""))):
        if len({name[:length] for name in run_ids}) == len(run_ids):
            return length
    return len(max(run_ids, default=""))


def _fact(column: Column, value: Any) -> list[str]:
    text = format_value(column, value)
    return [column.title, f"{text} {column.unit}".strip() if text != "-" else text, column.help]


def _same(run: dict[str, Any], name: str) -> bool:
    """Whether it tells no more than that what was asked for is what ran."""
    return name.startswith("requested_") and run[name] == run[name.removeprefix("requested_")]


def repetition(
    before: dict[str, Any], after: dict[str, Any], scores: str, changes: Iterable[Change]
) -> Sheet:
    """A run and its repetition, side by side; both by column name."""
    columns = [
        WHAT,
        Column("before", "recorded", "text", "As it was"),
        Column("after", "now", "text", "As it is"),
        Column("verdict", "difference", "text", "How they differ"),
    ]
    time = time_column(before["mode"])
    rows = []
    for name in (*HASHES, "scored_tokens", "ppl", time, "peak_mem_mib"):
        was, now = before[name], after[name]
        rows.append([_titled(name), *(format_value(COLUMNS[name], v) for v in (was, now))])
        rows[-1].append(scores if name == "scored_tokens" else _difference(name, was, now))
    for each in changes:
        column = COLUMNS.get(each.what, Column(each.what, each.what, "text", ""))
        cells = (format_value(column, value) for value in (each.before, each.after))
        rows.append([column.title, *cells, each.verdict])
    title = f"{before['run_id']} again, as {after['run_id']}"
    return Sheet(title, columns, rows, [])


def _titled(name: str) -> str:
    return "nats of every token" if name == "scored_tokens" else COLUMNS[name].heading


def _difference(name: str, was: Any, now: Any) -> str:
    if was == now:
        return "the same"
    if was is None:  # an older version's record
        return "not recorded then"
    if not isinstance(was, float) or not was or now is None or not math.isfinite(now / was):
        return "changed"
    return format_value(ALL["ppl_change"], now / was - 1)
