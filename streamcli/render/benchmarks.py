"""Benchmarks as tables of words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from core.registry import method
from streamcli.render.records import alone
from streamcli.render.tables import Sheet
from streamcli.results.columns import ALL, BENCHMARKS, Column, format_value

if TYPE_CHECKING:
    from core.measure.profiling import Profile

TIME = BENCHMARKS["ms_per_token"]
LISTED = ("benchmark_id", "created_at", "bench", "model", "threads", "cpu")


@dataclass(frozen=True)
class Timed:
    """What a benchmark found.

    Attributes:
        what: Which benchmark.
        rounds: Rounds, in each of which every arm was timed once.
        rows: An arm each: plain values, units in the names.
        command: What was typed.
        model: What was timed, in words.
        where: On what.
        notes: What a reader must know.
        read_gb_per_s: How fast this machine reads, gigabytes a second.
        gflops_per_s: How fast it multiplies matrices.
        weights_mib: What the weights take.
    """

    what: str
    rounds: int
    rows: list[dict[str, Any]]
    command: str
    model: str
    where: str
    notes: tuple[str, ...]
    read_gb_per_s: float
    gflops_per_s: float
    weights_mib: float


def sheet(timed: Timed) -> Sheet:
    """The arms of a benchmark, each beside its floor and the others."""
    known, rows = ALL | BENCHMARKS, [_flat(row) for row in timed.rows]
    sizes = {name: {row[name] for row in rows} for name in ("window", "batch_size", "length")}
    kept = {row["n_sink"] + row["window"] for row in rows}
    if len(kept) == 1:  # S counts as part of W where a method has no sinks
        del sizes["window"]
    names = [
        *("arm", "engine"),
        *(name for name, values in sizes.items() if len(values) > 1),
        *(TIME.name, "interval", "floor_ms", "ratio_to_floor", "tokens_per_s"),
        *("kv_mib", "step_mib"),
    ]
    columns = [known[name].headed for name in names]
    if timed.what == "prompt":
        columns[names.index(TIME.name)] = replace(TIME, title="first token (ms)")
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith("to ")):
        columns.append(Column(name, name, "ratio", ""))
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith("speed-up")):
        columns.append(Column(name, name, "ratio", ""))
    if any(row["compile_s"] for row in rows):
        columns.append(ALL["compile_s"].headed)
    cells = [[format_value(column, row.get(column.name)) for column in columns] for row in rows]
    same = [f"S + W = {each:,}" for each in kept if len(kept) == 1]
    about = [timed.model, timed.where, *same]
    title = f"bench {timed.what}: {', '.join(about)}, {timed.rounds} rounds"
    notes = [
        *cautions(timed),
        *_of_prompts(timed.what, rows),
        "Arms are timed in turn; figures are medians over rounds, ratios are taken round by round.",
        "step: the most memory that a step's own tensors take at once, beside weights and KV.",
        f"This machine reads {timed.read_gb_per_s:.1f} GB/s and multiplies matrices at "
        f"{timed.gflops_per_s:,.0f} GFLOP/s, medians over rounds too; the floor is the least time "
        "that a step can take at these rates (core/measure/floors.py). to NAME: this time divided "
        "by that of NAME.",
    ]
    return Sheet(title, columns, cells, notes)


def cautions(timed: Timed) -> list[str]:
    """What was noted of a benchmark, and whether its rounds are too few; of its figure, too."""
    return [*timed.notes, *_few(timed.rounds)]


def listing(rows: list[dict[str, Any]], place: str) -> Sheet:
    """Recorded benchmarks, a line each."""
    columns = [(ALL | BENCHMARKS)[name].headed for name in LISTED]
    return alone(rows, "benchmark", columns, place)


def _of_prompts(what: str, rows: list[dict[str, Any]]) -> list[str]:
    """What sets the method that holds nothing apart where a prompt is read."""
    rereads = [row["arm"] for row in rows if method(row["method"]).memory == "none"]
    if what != "prompt" or not rereads:
        return []
    return [f"{rereads[0]} encodes the last S + W + 1 tokens of a prompt alone, the others all."]


def _few(rounds: int) -> list[str]:
    from core.measure.bench import ENOUGH

    note = f"{rounds} rounds are too few for an interval of 95 %: take {ENOUGH} or more."
    return [note] if rounds < ENOUGH else []


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


def costs(looked: Profile) -> Sheet:
    """The five largest costs of a profile."""
    columns = [
        Column("name", "operation", "text", ""),
        Column("ms", "ms a forward", "significant", ""),
        Column("share", "share (%)", "fixed", "", digits=1),
        Column("calls", "calls a forward", "significant", ""),
    ]
    shown = [(each.name, each.ms, 100 * each.share, each.calls) for each in looked.costs[:5]]
    rows = [list(map(format_value, columns, values)) for values in shown]
    forwards = f"{looked.forwards} forward{'s' * (looked.forwards > 1)}"
    note = (
        f"Own time of each operation, over {forwards} of a run like this one, which is not "
        "recorded: looking takes time."
    )
    return Sheet("the five largest costs", columns, rows, [note])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row as cells: its interval in words, its ratios by the name of a column."""
    ends = (row["ms_per_token_low"], row["ms_per_token_high"])
    interval = " to ".join(format_value(TIME, each) for each in ends)
    ratios = {f"to {name}": each[0] for name, each in row["ratios"].items()}
    faster = {f"speed-up on {name}": each[0] for name, each in row["speed_ups"].items()}
    return {
        **row,
        "interval": interval,
        "compile_s": row["compile_s"] or None,
        **ratios,
        **faster,
    }
