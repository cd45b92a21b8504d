"""Runs, one or many, and the state of their database, as tables of words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from streamcli.analysis.comparison import time_column
from streamcli.render.tables import Sheet, unused_sizes
from streamcli.results.columns import COLUMNS, Column, format_value

if TYPE_CHECKING:
    import pandas as pd

    from streamcli.jobs.rerun import Change
    from streamcli.results.maintenance import Finding
    from streamcli.results.schema import Run

WHAT = Column("what", "", "text", "What is told")
VALUE = Column("value", "", "text", "Its value")
SHORTEST = 10  # characters of a ULID that tell the millisecond
TIME = Column(
    "time", "ms/token", "significant", "Time a token: a median of steps, a mean of chunks"
)
BUDGET = Column("budget", "S+W", "text", "Sinks and window")
LISTED = (
    *(COLUMNS[name] for name in ("run_id", "created_at", "status", "model", "dataset", "mode")),
    *(COLUMNS["method"], BUDGET, COLUMNS["ppl"], TIME),
)
MAY_SHARE = ("status", "model", "dataset", "mode")
GROUPS = {  # in the order of a page; what is in none of them comes under the third
    "What ran": (
        *("run_id", "status", "created_at"),
        *("model", "requested_model", "model_revision", "weights_sha256", "files_sha256"),
        *("parameters", "layers", "proof"),
        *("trained_length", "dataset", "requested_dataset", "dataset_form", "dataset_revision"),
        *("tokens_sha256", "bos", "documents", "method", "mode", "n_sink", "window", "evict_every"),
        *("chunk_size", "context_tokens", "timed_tokens", "max_tokens", "batch_size", "dtype"),
        *("device", "threads", "engine", "seed", "source", "trust", "config_key", "repeat"),
    ),
    "What it found": (
        *("scored_tokens", "ppl", "nll_nats", "word_ppl", "byte_ppl", "bits_per_byte"),
        *("ms_per_token", "ms_per_token_p50", "ms_per_token_p95", "ms_per_token_p99"),
        *("tokens_per_s", "total_s", "total_is_estimate", "elapsed_s", "prefill_s", "time_growth"),
        *("warmup_tokens", "kv_mib", "kv_formula_mib", "peak_mem_mib", "attended_keys"),
        *("attended_keys_min", "attended_keys_mean", "attended_keys_max", "keys_before"),
        *("keys_after", "positions", "eviction"),
    ),
    "Where it comes from": (),
    "In words": ("error", "notes", "tags", "comment"),
}
DOCUMENT = (
    Column("position", "document", "plain", "Place in reading order"),
    Column("name", "name", "text", "Its title, number or file"),
    COLUMNS["scored_tokens"],
    COLUMNS["ppl"],
    Column("nll_nats", "nats", "fixed", "Sum over its scored tokens", digits=2),
    Column("words", "words", "count", "Words of the scored text"),
    Column("utf8_bytes", "bytes", "count", "UTF-8 bytes of the scored text"),
)


def listing(runs: pd.DataFrame, place: str, total: int) -> Sheet:
    """Runs, a line each, in their order; ``total`` is how many there are to list."""
    rows = runs.to_dict("records")
    length = _telling([str(row["run_id"]) for row in rows])
    begin = 5 if len({row["created_at"][:4] for row in rows}) == 1 else 0  # years, if several
    for row in rows:
        row["run_id"] = row["run_id"][:length]
        row["created_at"] = row["created_at"][begin:16].replace("T", " ")
        row["budget"] = None if unused_sizes(row) else f"{row['n_sink']}+{row['window']}"
        row["time"] = row[time_column(row["mode"])]
    columns = list(LISTED)
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
    words = ("error", "tags", "comment")
    said = [(row["run_id"], "; ".join(row[name] for name in words if row[name])) for row in rows]
    remarks = [f"{run_id}: {text}" for run_id, text in said if text]
    return Sheet(title, columns, cells, [*remarks, note])


def details(run: dict[str, Any], documents: pd.DataFrame) -> list[Sheet]:
    """One run: everything that it has a value for, in groups, and its documents."""
    grouped = {name for names in GROUPS.values() for name in names}
    rest = tuple(name for name in COLUMNS if name not in grouped)
    sheets = []
    for title, names in GROUPS.items():
        rows = [_told(COLUMNS[name], run[name]) for name in names or rest if not _same(run, name)]
        if rows := [row for row in rows if row[1] not in ("", "-")]:
            columns = [Column("what", title, "text", ""), VALUE, WHAT]
            sheets.append(Sheet("", columns, rows, []))
    rows = []
    for row in documents.to_dict("records"):
        mean = row["nll_nats"] / max(1, row["scored_tokens"])
        row["ppl"] = math.exp(mean) if mean < 700 else mean  # NaN and infinity stay
        rows.append([format_value(column, row[column.name]) for column in DOCUMENT])
    return sheets + ([Sheet("", list(DOCUMENT), rows, [])] if rows else [])


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


def check(found: Iterable[Finding], place: str) -> Sheet:
    """What is wrong with a database."""
    columns = [Column("run", "run", "text", "Which run"), Column("what", "finding", "text", "")]
    return Sheet(place, columns, [[each.run_id or "-", each.what] for each in found], [])


def number_of(number: int) -> str:
    """So many runs, in words."""
    return f"{number:,} run{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Bytes in a unit that suits them."""
    mib = number / 2**20
    return f"{mib:,.1f} MiB" if mib >= 1 else f"{number / 2**10:,.0f} KiB"


def _telling(run_ids: list[str]) -> int:
    """How many characters tell these names apart."""
    for length in range(SHORTEST, len(max(run_ids, default=""))):
        if len({name[:length] for name in run_ids}) == len(run_ids):
            return length
    return len(max(run_ids, default=""))


def _told(column: Column, value: Any) -> list[str]:
    text = format_value(column, value)
    return [column.title, f"{text} {column.unit}".strip() if text != "-" else text, column.help]


def _same(run: dict[str, Any], name: str) -> bool:
    """Whether it tells no more than that what was asked for is what ran."""
    return name.startswith("requested_") and run[name] == run[name.removeprefix("requested_")]


def repetition(before: Run, after: Run, scores: str, changes: Iterable[Change]) -> Sheet:
    """A run beside its repetition."""
    columns = [
        WHAT,
        Column("before", "recorded", "text", "As it was"),
        Column("after", "now", "text", "As it is"),
        Column("verdict", "difference", "text", "How they differ"),
    ]
    time = time_column(before.mode)
    rows = []
    hashes = ("weights_sha256", "files_sha256", "tokens_sha256")
    for name in (*hashes, "scored_tokens", "ppl", time, "peak_mem_mib"):
        was, now = getattr(before, name), getattr(after, name)
        rows.append([_titled(name), *(format_value(COLUMNS[name], v) for v in (was, now))])
        rows[-1].append(scores if name == "scored_tokens" else _difference(name, was, now))
    for each in changes:
        column = COLUMNS.get(each.what, Column(each.what, each.what, "text", ""))
        cells = (format_value(column, value) for value in (each.before, each.after))
        rows.append([column.title, *cells, each.verdict])
    title = f"{before.run_id} again, as {after.run_id}"
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
    return format_value(Column("", "", "percent", ""), now / was - 1)
