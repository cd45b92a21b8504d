"""Conclusions in words: what streaming costs and what it buys, each read off the rows of one table.

A sentence says only what rows hold, with the digits that the table shows; where a row is missing,
it names the command that records it. None generalises: what holds here may not hold elsewhere.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from core import registry
from core.registry import BASELINE, STREAMING, WINDOW
from streamcli.analysis.comparison import (
    Comparison,
    command,
    has_budget,
    same_budget,
)
from streamcli.analysis.repeats import OF_ROUNDS, RULE
from streamcli.analysis.statistics import ROUNDS
from streamcli.results.columns import ALL, COLUMNS, Column, format_ends, format_value, missing

Row: TypeAlias = dict[str, Any]
CHANGE, RATIO, TIME = ALL["ppl_change"], ALL["speed_up"], ALL["compared_ms"]
FEW = 2  # budgets that have a sentence each; of more, only the extremes have one


def words(comparison: Comparison) -> list[str]:
    """Sentences on one comparison, the first on perplexity and time; there is always one."""
    rows: list[Row] = comparison.rows
    mode = str(comparison.same["mode"])
    streaming = [row for row in rows if row["method"] == STREAMING]
    if not streaming:
        typed = command(rows[0], STREAMING)
        return [f"None of these runs is of streaming: record one with `{typed}`."]
    held = [(row, base) for row in streaming if (base := _baseline(rows, row))]
    sentences = [_cost(row, base, mode) for row, base in held]
    if len(held) > FEW:
        sentences = [_costs([row for row, _ in held])]
    alone = [row for row in streaming if not _baseline(rows, row)]
    if alone:
        sentences.append(_unknown(alone))
    for row in streaming if len(streaming) <= FEW else ():
        sentences += _peers(rows, row, mode)
    return [*sentences, *_memory(rows, streaming[-1])]


def caution(found: list[Comparison]) -> str:
    """How far the sentences may be trusted, one line for all of them."""
    most = max((int(each.runs["runs"].max()) for each in found if "runs" in each.runs), default=1)
    of = f"Of up to {most} runs of a configuration, {RULE}" if most > 1 else "Each is of one run"
    of += f", and {OF_ROUNDS}" if most >= ROUNDS else ""
    return (
        f"{of}; what is compared is on one machine and one text. "
        "`streamcli compare` tells which differences are more than chance."
    )


def _cost(row: Row, base: Row, mode: str) -> str:
    """What streaming costs and buys with one budget."""
    sentence = (
        f"With {_keys(row)}{_variant(row)}, streaming has a perplexity of {_ppl(row)} against "
        f"{_ppl(base)} of re-computation, {_apart(row['ppl_change'])}{_within(row)}"
    )
    if not _there(row[TIME.name], base[TIME.name], row["speed_up"]):
        return f"{sentence}."
    ms, base_ms = (format_value(TIME, each[TIME.name]) for each in (row, base))
    ratio, step = format_value(RATIO, row["speed_up"]), registry.mode(mode).step_words
    return f"{sentence}; {step} takes {ms} ms against {base_ms} ms, {ratio} the speed here."


def _costs(rows: list[Row]) -> str:
    """The same over many budgets, by their extremes."""
    keys = sorted(int(row["attended_keys"]) for row in rows)
    sentence = (
        f"Over {len(rows)} settings with {_range(f'{keys[0]:,}', f'{keys[-1]:,}')} keys, "
        "streaming's perplexity against re-computation with as many keys changes by "
        f"{_extremes(CHANGE, rows)}"
    )
    known = any(_there(row["speed_up"]) for row in rows)
    return f"{sentence}{f', and its speed is {_extremes(RATIO, rows)} here' if known else ''}."


def _extremes(column: Column, rows: list[Row]) -> str:
    values = [row[column.name] for row in rows if _there(row[column.name])]
    low, high = (format_value(column, each(values, default=None)) for each in (min, max))
    return _range(low, high)


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _variant(row: Row) -> str:
    """What else tells a row apart."""
    return f" ({row['variant']})" if row["variant"] else ""


def _unknown(rows: list[Row]) -> str:
    """What to run where a budget has no baseline."""
    others = len(rows) - 1
    more = f", and of {others} more setting{'s' * (others > 1)}," if others else ""
    return (
        f"What streaming costs with {_keys(rows[0])}{more} can't be told without re-computation "
        f"with as many keys: `{command(rows[0], BASELINE)}`."
    )


def _peers(rows: list[Row], row: Row, mode: str) -> list[str]:
    """What the sinks do, and who else keeps the same keys."""
    sentences = []
    window = _alike(rows, row, WINDOW)
    if window and row["n_sink"]:
        apart = _apart(window["ppl"] / row["ppl"] - 1)
        than = "as streaming's" if apart.startswith("the same") else "than streaming's"
        sentences.append(
            f"Without sinks, {_keys(window)} give a perplexity of {_ppl(window)}, {apart} {than}."
        )
    step = registry.mode(mode).step_words
    for method, spec in registry.METHODS.items():
        peer = _alike(rows, row, method) if spec.peer and spec.exact else None
        if peer and peer["n_sink"] == row["n_sink"]:
            ms = format_value(TIME, peer[TIME.name])
            sentences.append(
                f"{method} keeps as many: perplexity {_ppl(peer)}; {step} takes {ms} ms."
            )
    return sentences


def _memory(rows: list[Row], row: Row) -> list[str]:
    """What the cache takes, beside one that forgets nothing."""
    dense = next((each for each in rows if not has_budget(each)), None)
    if not dense or not _there(dense["kv_mib"], row["kv_mib"]):
        return []
    mib, dense_mib = (format_value(COLUMNS["kv_mib"], each["kv_mib"]) for each in (row, dense))
    return [
        f"A cache for {_keys(row)} takes {mib} MiB however long the stream; a dense one takes "
        f"{dense_mib} MiB by the end of this one, for a perplexity of {_ppl(dense)}."
    ]


def _baseline(rows: list[Row], row: Row) -> Row | None:
    """The row of re-computation that ``row`` is held against."""
    return next((base for base in rows if base["run_id"] == row["baseline_run_id"]), None)


def _alike(rows: list[Row], row: Row, method: str) -> Row | None:
    """The row of a method that sees as many keys, where there is just one."""
    alike = [each for each in rows if each["method"] == method and same_budget(each, row)]
    return alike[0] if len(alike) == 1 else None


def _apart(change: float) -> str:
    text = format_value(CHANGE, change)
    size = text.lstrip("+-")
    if size == "0.00%":
        return "the same to 0.01%"
    return f"{size} {'lower' if text.startswith('-') else 'higher'}"


def _within(row: Row) -> str:
    """The interval of a change, where there is one."""
    return format_ends(row["ppl_change_low"], row["ppl_change_high"])


def _keys(row: Row) -> str:
    return f"{int(row['attended_keys']):,} keys"


def _ppl(row: Row) -> str:
    return format_value(COLUMNS["ppl"], row["ppl"])


def _there(*values: Any) -> bool:
    """Whether none is missing: None, NaN or pandas' NA."""
    return not any(map(missing, values))
