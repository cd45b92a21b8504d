"""Which runs may stand in one table, and how each does against a baseline, re-computation.

Runs share a comparison only where model, weights, token ids, mode, number format, device, threads
and machine are the same; a speed-up or a perplexity ratio also needs the same attended keys.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from core.config import LAZY
from core.registry import METHODS
from streamcli.results.columns import missing

if TYPE_CHECKING:
    import pandas as pd

Row: TypeAlias = dict[str, Any]

SAME = (
    "model",
    "weights_sha256",
    "dataset",
    "tokens_sha256",
    "mode",
    "context_tokens",
    "dtype",
    "device",
    "threads",
    "host",
)
BASELINE = "recompute"
ORDER = {name: place for place, name in enumerate(METHODS)}
BUDGETLESS = ("dense",)  # holds everything, so it meets every budget's baseline
SINKS = 4  # that are suggested where no run says how many
CLOSE = 0.01  # mean attended keys may differ by so much under one budget: how a stream begins
VARIANTS = {  # what else tells two configurations of one method apart, and how it is called
    "engine": "{}",
    "evict_every": "every {}",
    "chunk_size": "chunks of {}",
    "batch_size": "batch {}",
    "timed_tokens": "{} timed",
    "max_tokens": "{} tokens",
    "seed": "seed {}",
    "source": "source {}",
    "trust": "trust {}",
}


@dataclass(frozen=True)
class Comparison:
    """Runs that may be compared.

    Attributes:
        same: What they share, by column name; also ``scored_tokens``.
        runs: One row a configuration, its latest run, with ``ppl_change`` (fraction) and
            ``speed_up`` (ratio) against the baseline with the same keys, whose ``baseline_run_id``
            it names; ``budget`` is ``equal``, ``other`` (keys of no baseline) or ``none`` (no
            bound), ``variant`` tells alike rows apart, in words.
        older: Runs left out because a later one has the same configuration.
        baseline: The method that the others are held against.
        keys: The budgets that may be compared: those of the baseline; without one, of most rows.
    """

    same: dict[str, Any]
    runs: pd.DataFrame
    older: int
    baseline: str = BASELINE
    keys: tuple[int, ...] = ()


def comparisons(runs: pd.DataFrame, baseline: str = BASELINE) -> list[Comparison]:
    """Sort finished runs, newest first, into comparisons, in the order of their latest run."""
    return [compared(group, baseline) for group in groups(runs)]


def groups(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The runs that may stand in one table, in the order of their latest run."""
    return [group for _, group in runs.groupby(list(SAME), sort=False, dropna=False)]


def compared(group: pd.DataFrame, baseline: str = BASELINE) -> Comparison:
    """The runs of one group, each held against the baseline with the same budget."""
    latest = group.drop_duplicates("config_key").copy()
    latest["_order"] = latest["method"].map(ORDER).fillna(len(ORDER))
    latest["_dense"] = latest["method"].isin(BUDGETLESS)
    latest = latest.sort_values(["_dense", "attended_keys", "_order", "n_sink"])
    latest = latest.drop(columns=["_order", "_dense"])
    first = latest.iloc[0]
    same = {name: first[name] for name in (*SAME, "scored_tokens", "documents", "cpu")}
    every = int(group["runs"].sum()) if "runs" in group else len(group)
    rows: list[Row] = latest.to_dict("records")
    bases = [row for row in rows if row["method"] == baseline]
    standard = bases or _most_common(rows)
    held = [_base(row, bases) for row in rows]
    time = time_column(str(same["mode"]))
    latest["ppl_change"] = [
        _ratio(r["ppl"], b and b["ppl"]) - 1 for r, b in zip(rows, held, strict=True)
    ]
    latest["speed_up"] = [_ratio(b and b[time], r[time]) for r, b in zip(rows, held, strict=True)]
    latest["baseline_run_id"] = [b["run_id"] if b else None for b in held]
    latest["budget"] = [_budget(row, standard) for row in rows]
    latest["variant"] = _variants(rows)
    keys = tuple(sorted({int(row["attended_keys"]) for row in standard}))
    return Comparison(same, latest, every - len(latest), baseline, keys)


def command(row: Row, method: str) -> str:
    """What records the run of ``method`` that may be compared with ``row``."""
    asked = {}
    for name in ("model", "dataset"):  # as it was typed, unless a stand-in took its place
        typed = str(row.get(f"requested_{name}") or "")
        asked[name] = typed if typed.endswith(str(row[name])) else str(row[name])
    asked |= {"method": method, "mode": str(row["mode"])}
    if row["method"] not in BUDGETLESS:
        sinks = int(row["n_sink"]) or (SINKS if method == "streaming" else 0)
        asked["n-sink"] = str(sinks)
        asked["window"] = str(int(row["attended_keys"]) - 1 - sinks)
    for name in ("max_tokens", "timed_tokens", "context_tokens", "threads"):
        if not missing(row.get(name)):
            asked[name.replace("_", "-")] = str(int(row[name]))
    if row["dtype"] != "float32":
        asked["dtype"] = str(row["dtype"])
    return shlex.join(["streamcli", "run", *(w for k, v in asked.items() for w in (f"--{k}", v))])


def time_column(mode: str) -> str:
    """The column that tells a mode's time a token: a mean over chunks, or a median of steps."""
    return "ms_per_token" if mode == "chunked" else "ms_per_token_p50"


def same_budget(row: Row, other: Row) -> bool:
    """Whether two runs' queries see as many keys: at most, and on average.

    The mean tells a cache that saw-tooths up to L keys from one that stays at L.
    """
    if _number(row["attended_keys"]) != _number(other["attended_keys"]):
        return False
    means = [_number(each["attended_keys_mean"]) for each in (row, other)]
    return any(map(math.isnan, means)) or abs(means[0] - means[1]) <= CLOSE * max(means)


def saw_tooths(row: Row) -> bool:
    """Whether a run's cache grows for some steps between evictions."""
    return str(row.get("eviction")).startswith("every-")


def _base(row: Row, bases: list[Row]) -> Row | None:
    """The newest baseline of a row's budget; where there is one budget only, a row without any."""
    alike = [base for base in bases if same_budget(row, base)]
    if not alike and row["method"] in BUDGETLESS and len({b["attended_keys"] for b in bases}) == 1:
        alike = bases
    return max(alike, key=lambda base: str(base["run_id"]), default=None)


def _budget(row: Row, standard: list[Row]) -> str:
    if row["method"] in BUDGETLESS:
        return "none"
    return "equal" if any(same_budget(row, each) for each in standard) else "other"


def _most_common(rows: list[Row]) -> list[Row]:
    """The rows of the budget that most share, the smallest of several."""
    bound = [row for row in rows if row["method"] not in BUDGETLESS]
    shared = [[other for other in bound if same_budget(row, other)] for row in bound]
    return max(shared, key=len, default=[])


def _variants(rows: list[Row]) -> list[str]:
    """For each row what tells it from others of its method, sinks and window; empty where alone."""
    said = []
    for row in rows:
        alike = [other for other in rows if all(other[n] == row[n] for n in ("method", "n_sink"))]
        alike = [other for other in alike if _text(other, "window") == _text(row, "window")]
        differ = [n for n in VARIANTS if len({_text(other, n) for other in alike}) > 1]
        late = _number(row.get("evict_every")) > LAZY.get(row["method"], math.inf)
        if late and "evict_every" not in differ:
            differ.insert(0, "evict_every")
        words = [VARIANTS[n].format(_text(row, n)) for n in differ if _text(row, n)]
        said.append(", ".join(words))
    return said


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if isinstance(value, str | bool):
        return str(value)
    number = _number(value)
    return "" if math.isnan(number) else f"{number:.0f}"


def _number(value: Any) -> float:
    try:
        return float(value)
    except TypeError:  # None, or pandas' NA
        return math.nan


def _ratio(over: Any, under: Any) -> float:
    bottom = _number(under)
    return _number(over) / bottom if bottom else math.nan
