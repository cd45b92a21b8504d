"""Which runs may stand in one table, and how each does against re-computation.

Runs share a comparison only where model, weights, token ids, mode, number format, device, threads
and machine are the same; a speed-up or a perplexity ratio also needs the same attended keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.registry import METHODS

if TYPE_CHECKING:
    import pandas as pd

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


@dataclass(frozen=True)
class Comparison:
    """Runs that may be compared.

    Attributes:
        same: What they share, by column name; also ``scored_tokens``.
        runs: One row a configuration, its latest run, with ``ppl_change`` (fraction) and
            ``speed_up`` (ratio) against re-computation with the same keys.
        older: Runs left out because a later one has the same configuration.
    """

    same: dict[str, Any]
    runs: pd.DataFrame
    older: int


def comparisons(runs: pd.DataFrame) -> list[Comparison]:
    """Sort finished runs, newest first, into comparisons, in the order of their latest run."""
    found = []
    for _, group in runs.groupby(list(SAME), sort=False, dropna=False):
        latest = group.drop_duplicates("config_key").copy()
        latest["_order"] = latest["method"].map(ORDER).fillna(len(ORDER))
        latest["_dense"] = latest["method"].isin(BUDGETLESS)
        latest = latest.sort_values(["_dense", "attended_keys", "_order", "n_sink"])
        first = latest.iloc[0]
        same = {name: first[name] for name in (*SAME, "scored_tokens", "documents", "cpu")}
        every = int(group["runs"].sum()) if "runs" in group else len(group)
        found.append(Comparison(same, _against_baseline(latest), every - len(latest)))
    return found


def time_column(mode: str) -> str:
    """The column that tells a mode's time a token: a mean over chunks, or a median of steps."""
    return "ms_per_token" if mode == "chunked" else "ms_per_token_p50"


def _against_baseline(runs: pd.DataFrame) -> pd.DataFrame:
    time = time_column(runs["mode"].iloc[0])
    base = runs[runs["method"] == BASELINE].drop_duplicates("attended_keys")
    by_keys = base.set_index("attended_keys")
    keys = runs["attended_keys"]
    if len(base) == 1:  # one budget only: what has none is held against it as well
        keys = keys.where(~runs["method"].isin(BUDGETLESS), base["attended_keys"].iloc[0])
    runs["ppl_change"] = runs["ppl"] / keys.map(by_keys["ppl"]).to_numpy(float) - 1
    runs["speed_up"] = keys.map(by_keys[time]).to_numpy(float) / runs[time]
    return runs.drop(columns=["_order", "_dense"])
