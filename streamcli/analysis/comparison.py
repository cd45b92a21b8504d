"""Which runs may stand in one table, and how each does against a baseline, re-computation.

Runs share a comparison only where model, weights, softmax, configuration files, token ids, mode,
rows in step, number format, device, threads and machine are the same; a speed-up or a perplexity
ratio also needs the same budget: attended keys, or MiB where these were asked for.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from core import registry
from core.config import SAMPLE, options
from core.registry import BASELINE, MODES
from streamcli.analysis import distances
from streamcli.results.columns import CLOCK, COLUMNS, HASHES, SHARED, format_value, missing

if TYPE_CHECKING:
    import pandas as pd

Row: TypeAlias = dict[str, Any]

SAME = SHARED
# What a title tells only where another table has the same title.
UNTITLED = (*(name for name in HASHES if name in SAME), "context_tokens", "host")
SINKS = 4  # that are suggested where no run says how many
CLOSE = 0.01  # mean attended keys may differ by so much under one budget: how a stream begins
# What else tells two configurations of one method apart, and how it is called.
VARIANTS = {name: column.variant for name, column in COLUMNS.items() if column.variant}
OWN = "param"  # the column with the options that a method alone has


@dataclass(frozen=True)
class Comparison:
    """Runs that may be compared.

    Attributes:
        same: What they share, by column name; also ``scored_tokens``, and in words what sets them
            ``apart`` from others whose title would be the same.
        runs: One row a configuration, its latest run, with ``ppl_change`` (fraction) and
            ``speed_up`` (ratio) against the baseline with the same keys, whose ``baseline_run_id``
            it names, and ``compared_ms``, the time a token that ``speed_up`` is of: that of the
            rule in ``repeats``, if it was given with the runs, else the run's own, as is
            ``compared_waited``, the share of it that was spent waiting; ``budget`` is
            ``equal``, ``other`` (keys of no baseline) or ``none`` (no bound), ``variant`` tells
            alike rows apart, in words.
        older: Runs left out because a later one has the same configuration.
        baseline: The method that the others are held against.
        keys: The budgets that may be compared: those of the baseline; without one, of most rows.
        mib: Likewise, of rows that were asked for by MiB.
    """

    same: dict[str, Any]
    runs: pd.DataFrame
    older: int
    baseline: str = BASELINE
    keys: tuple[int, ...] = ()
    mib: tuple[float, ...] = ()

    @cached_property
    def rows(self) -> list[Row]:
        """The runs, each by column name; not to be changed."""
        return rows_of(self.runs)


def rows_of(runs: pd.DataFrame) -> list[Row]:
    """The rows of a frame, each by column name, None where there is no whole number or flag.

    As ``to_dict("records")`` gives them, in a seventh of its time where rows are few.
    """
    import pandas as pd

    names, none = list(runs.columns), pd.NA
    rows = runs.to_numpy(dtype=object).tolist()
    return [dict(zip(names, [None if v is none else v for v in row], strict=True)) for row in rows]


def comparisons(runs: pd.DataFrame, baseline: str = BASELINE) -> list[Comparison]:
    """Sort finished runs, newest first, into comparisons, in the order of their latest run."""
    return told_apart([compared(group, baseline) for group in groups(runs)])


def told_apart(found: list[Comparison]) -> list[Comparison]:
    """The same, each with what sets it apart from others that share all that a title tells."""
    alike: dict[tuple[str, ...], list[Comparison]] = {}
    for each in found:
        told = (str(each.same[n]) for n in (*SAME, "scored_tokens") if n not in UNTITLED)
        alike.setdefault(tuple(told), []).append(each)
    words: dict[int, str] = {}
    for others in alike.values():
        names = [n for n in UNTITLED if len({str(each.same[n]) for each in others}) > 1]
        for each in others:
            parts = [f"{COLUMNS[n].title} {format_value(COLUMNS[n], each.same[n])}" for n in names]
            words[id(each)] = ", ".join(parts)
    return [replace(each, same=each.same | {"apart": words[id(each)]}) for each in found]


def in_order(found: Iterable[Comparison]) -> list[Comparison]:
    """Comparisons mode by mode, each mode's as they were: what is no streaming measure is last."""
    return sorted(found, key=lambda each: mode_place(str(each.same["mode"])))


def mode_place(name: str) -> tuple[bool, int]:
    """Where a mode stands: in the order of the registry, one that reads a context at once last."""
    names = list(MODES)
    place = names.index(name) if name in names else len(names)
    return name in MODES and MODES[name].context, place


def stands_in(same: Row, name: str) -> str:
    """What was asked for where another ``model`` or ``dataset`` took its place; else nothing."""
    typed = same.get(f"requested_{name}")
    known = "" if missing(typed) else str(typed)
    return "" if known.endswith(str(same[name])) else known


def groups(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The runs that may stand in one table, in the order of their latest run."""
    return [group for _, group in runs.groupby(list(SAME), sort=False, dropna=False)]


def compared(group: pd.DataFrame, baseline: str) -> Comparison:
    """The runs of one group, each held against the baseline with the same budget."""
    import pandas as pd

    every = rows_of(group)  # a frame of a hundred columns takes long to copy, so it is done once
    firsts: dict[str, int] = {}
    for at, row in enumerate(every):
        firsts.setdefault(row["config_key"], at)
    order = sorted(firsts.values(), key=lambda place: _place(every[place]))
    latest, rows = group.iloc[order], [every[place] for place in order]
    first = rows[0]
    same = {name: first[name] for name in (*SAME, "scored_tokens", "documents", "cpu")}
    for name in ("requested_model", "requested_dataset"):  # nothing where some asked for another
        same[name] = first[name] if len({row[name] for row in rows}) == 1 else ""
    runs = int(group["runs"].sum()) if "runs" in group else len(group)
    if (time := "compared_ms") not in latest:
        own = time_column(str(same["mode"]))
        rows = [row | {time: row[own], "compared_waited": row["waited"]} for row in rows]
    bases = [row for row in rows if row["method"] == baseline]
    standard = _Budgets(bases or _most_common(rows))
    held = [standard.of(row) if bases else None for row in rows]
    told = [distances.horizon(row) for row in rows]
    latest = latest.assign(
        compared_ms=[row[time] for row in rows],
        compared_waited=[row["compared_waited"] for row in rows],
        ppl_change=[_ratio(r["ppl"], b and b["ppl"]) - 1 for r, b in zip(rows, held, strict=True)],
        ppl_change_low=math.nan,
        ppl_change_high=math.nan,
        clusters=None,
        speed_up=[
            _ratio(b[time] if b and same_clock(r, b) else None, r[time])
            for r, b in zip(rows, held, strict=True)
        ],
        baseline_run_id=[b["run_id"] if b else None for b in held],
        budget=[_budget(row, standard) for row in rows],
        variant=_variants(rows),
        horizon=pd.array([each and each.tokens for each in told], "Int64"),
        horizon_open=pd.array([each and each.open for each in told], "boolean"),
    )
    older = runs - len(latest)
    return Comparison(same, latest, older, baseline, standard.keys, standard.mib)


def _place(row: Row) -> tuple[Any, ...]:
    """Where a run stands in its table: what has no budget last, then by keys, method and sinks."""
    keys, mib = row["attended_keys"], number(row["budget_mib"]) if by_bytes(row) else 0
    at = registry.place(str(row["method"]))
    return not has_budget(row), mib, math.inf if keys is None else keys, at, row["n_sink"]


def command(row: Row, method: str) -> str:
    """What records the run of ``method`` that may be compared with ``row``."""
    asked = {}
    for name in ("model", "dataset"):  # as it was typed, unless a stand-in took its place
        typed = "" if stands_in(row, name) else str(row.get(f"requested_{name}") or "")
        asked[name] = typed or str(row[name])
    asked |= {"method": method, "mode": str(row["mode"])}
    if has_budget(row):
        sinked = registry.method(method).budget == "sinks and window"
        sinks = int(row["n_sink"]) or (SINKS if sinked else 0)
        asked["n-sink"] = str(sinks)
        if missing(row.get("budget_mib")):
            asked["window"] = str(int(row["attended_keys"]) - 1 - sinks)
        else:
            asked["budget-mib"] = f"{row['budget_mib']:.10g}"
    for each in options():
        sample = each.about.group == SAMPLE and each.kind is int and not each.about.several
        named = each.name == "threads" or (sample and each.name != "chunk_size")
        value: Any = row.get(each.name)
        if named and not missing(value) and value != each.default:
            asked[each.flag[2:]] = str(int(value))
    if row["batch_size"] != 1:
        asked["batch-size"] = str(row["batch_size"])
    if not missing(row.get("softmax_type")):
        asked["softmax-type"] = str(row["softmax_type"])
    if row["dtype"] != "float32":
        asked["dtype"] = str(row["dtype"])
    flags = [word for name, value in asked.items() for word in (f"--{name}", value)]
    flags += ["--concatenate"] if row.get("concatenate") is True else []
    return shlex.join(["streamcli", "run", *flags])


def time_column(mode: str) -> str:
    """The column that tells a mode's time a token: a mean over chunks, or a median of steps."""
    return registry.mode(mode).time


TIMES = tuple(dict.fromkeys(time_column(mode) for mode in MODES))


def same_budget(row: Row, other: Row) -> bool:
    """Whether two runs' queries see as many keys: at most, and on average.

    The mean tells a cache that saw-tooths up to L keys from one that stays at L. Runs that were
    asked for by MiB have the budget of those with as many MiB, whatever keys these hold.
    """
    if by_bytes(row) or by_bytes(other):
        return size(row) == size(other)
    if number(row["attended_keys"]) != number(other["attended_keys"]):
        return False
    means = [number(each["attended_keys_mean"]) for each in (row, other)]
    return any(map(math.isnan, means)) or abs(means[0] - means[1]) <= CLOSE * max(means)


def by_bytes(row: Row) -> bool:
    """Whether a run's window was made to fit so many MiB."""
    return not missing(row.get("budget_mib"))


def size(row: Row) -> tuple[str, float]:
    """What bounds a run: so many MiB where these were asked for, else keys."""
    if by_bytes(row):
        return "MiB", number(row["budget_mib"])
    return "keys", number(row["attended_keys"])


def same_clock(row: Row, other: Row) -> bool:
    """Whether two runs' times may be compared: one machine, processor, threads and mode."""
    return all(str(row[name]) == str(other[name]) for name in CLOCK)


def has_budget(row: Mapping[str, Any]) -> bool:
    """Whether the keys that a run's queries see are bounded: all methods' but such as dense."""
    spec = registry.recorded(str(row["method"]))
    if not spec.where:  # of a package that is gone: what the record says
        return row.get("eviction") != "none"
    return spec.has_budget


def saw_tooths(row: Row) -> bool:
    """Whether a run's cache grows for some steps between evictions."""
    return str(row.get("eviction")).startswith("every-")


class _Budgets:
    """The newest of some rows for each budget, to be looked up in a time that does not grow."""

    def __init__(self, rows: list[Row]) -> None:
        self._newest: dict[tuple[str, float], dict[float, Row]] = {}
        for row in sorted(rows, key=lambda row: str(row["run_id"])):
            means = self._newest.setdefault(size(row), {})
            means[number(row["attended_keys_mean"])] = row

    @property
    def keys(self) -> tuple[int, ...]:
        """Every number of keys, in order."""
        return tuple(sorted(int(each) for unit, each in self._newest if unit == "keys"))

    @property
    def mib(self) -> tuple[float, ...]:
        """Every number of MiB, in order."""
        return tuple(sorted(each for unit, each in self._newest if unit == "MiB"))

    def of(self, row: Row) -> Row | None:
        """The newest row with the budget of ``row``."""
        alike = self._newest.get(size(row), {}).values()
        return _newest(base for base in alike if same_budget(row, base))


def _newest(rows: Iterable[Row]) -> Row | None:
    return max(rows, key=lambda row: str(row["run_id"]), default=None)


def _budget(row: Row, standard: _Budgets) -> str:
    if not has_budget(row):
        return "none"
    return "equal" if standard.of(row) else "other"


def _most_common(rows: list[Row]) -> list[Row]:
    """The rows of the budget that most share, the smallest of several."""
    shared: dict[tuple[object, float], list[Row]] = {}
    for row in rows:
        if has_budget(row):
            budget = size(row), number(row["attended_keys_mean"])
            shared.setdefault(budget, []).append(row)
    firsts = [alike[0] for alike in shared.values()]
    sizes = [
        sum(len(each) for each in shared.values() if same_budget(first, each[0]))
        for first in firsts
    ]
    if not firsts:
        return []
    most = firsts[sizes.index(max(sizes))]
    return [row for each in shared.values() if same_budget(most, each[0]) for row in each]


def own_options(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each row the options that its method alone has, those that not all of its rows share."""
    options = [{} if missing(row.get(OWN)) else json.loads(str(row[OWN])) for row in rows]
    held: dict[tuple[str, str], set[Any]] = {}
    for row, own in zip(rows, options, strict=True):
        for name, value in own.items():
            held.setdefault((str(row["method"]), name), set()).add(value)
    return [
        ", ".join(f"{n} {x}" for n, x in own.items() if len(held[str(row["method"]), n]) > 1)
        for row, own in zip(rows, options, strict=True)
    ]


def _variants(rows: list[Row]) -> list[str]:
    """For each row what tells it from others of its method, sinks and window; empty where alone."""
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        kinds.setdefault(_kind(row), []).append(row)
    differing = {
        kind: [n for n in VARIANTS if len({_text(other, n) for other in alike}) > 1]
        for kind, alike in kinds.items()
    }
    variants = []
    for row, of_method in zip(rows, own_options(rows), strict=True):
        differ = list(differing[_kind(row)])
        own = registry.recorded(str(row["method"])).evict_every or math.inf
        late = number(row.get("evict_every")) > own
        if late and "evict_every" not in differ:
            differ.insert(0, "evict_every")
        words = [VARIANTS[n].format(_text(row, n)) for n in differ if _text(row, n)]
        variants.append(", ".join(filter(None, [of_method, *words])))
    return variants


def _kind(row: Row) -> tuple[str, ...]:
    return tuple(_text(row, name) for name in ("method", "n_sink", "window"))


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if isinstance(value, str | bool):
        return str(value)
    found = number(value)
    return "" if math.isnan(found) else f"{found:.10g}"


def number(value: Any) -> float:
    """A value as a float, NaN where there is none."""
    try:
        return float(value)
    except TypeError:  # None, or pandas' NA
        return math.nan


def _ratio(over: Any, under: Any) -> float:
    bottom = number(under)
    return number(over) / bottom if bottom else math.nan
