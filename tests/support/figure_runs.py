"""Recorded runs as figures read them, made up: the scores and times are a formula's.

Nothing here loads a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from streamcli.render.figures import Drawn, draw
from streamcli.results.columns import ADDED, COLUMNS

TOKENS = 400
MODEL = "a/model"
COMMON: dict[str, Any] = {
    "status": "done",
    "model": MODEL,
    "requested_model": MODEL,
    "weights_sha256": "w" * 64,
    "files_sha256": "f" * 64,
    "method_package": "",
    "dtype": "float32",
    "device": "cpu",
    "engine": "eager",
    "threads": 2,
    "host": "bench",
    "cpu": "A CPU",
    "scored_tokens": TOKENS - 1,
    "documents": 1,
    "max_tokens": TOKENS,
    "trained_length": 200,
    "git_commit": "c" * 40,
    "git_dirty": False,
    "versions": "torch==2.13.0",
    "python": "3.11.7",
    "chunk_size": 64,
    "batch_size": 1,
    "seed": 0,
    "source": "auto",
    "trust": False,
    "n_sink": 4,
    "evict_every": 1,
}
ASKED = {
    **{"answers": "[[7,1],[40,0],[90,1],[300,0]]", "questions": 4, "chance": 0.1},
    **{"accuracy": 0.5, "accuracy_low": 0.15, "accuracy_high": 0.85},
}
PPL = {"streaming": 37.0, "window": 370.0, "recompute": 36.5, "dense": 30.0, "mit": 37.0}
MS = {"streaming": 9.0, "window": 8.5, "recompute": 80.0, "dense": 10.0, "mit": 11.0}


def run(number: int, **columns: Any) -> dict[str, Any]:
    """The row of run ``number``, later ones later; equal configurations get equal keys."""
    row = COMMON | {"method": "streaming", "mode": "decode-loop", "window": 60, "dataset": "one"}
    row |= columns
    kept = row["n_sink"] + row["window"]
    row = {
        "ppl": PPL.get(row["method"], 50.0) + 100 / kept,
        "ms_per_token_p50": MS.get(row["method"], 12.0) + kept / 100,
        "ms_per_token": 0.5 + kept / 1000,
        "attended_keys": kept + 1 if row["method"] != "dense" else row["scored_tokens"],
        "kv_mib": 0.101 * (row["scored_tokens"] if row["method"] == "dense" else kept),
        "kv_formula_mib": 0.1 * (row["scored_tokens"] if row["method"] == "dense" else kept),
        "tokens_sha256": row["dataset"] * 8,
        "requested_dataset": row["dataset"],
        "run_id": f"{number:026d}",
        "created_at": f"2026-11-{1 + number // 1000:02d}T10:00:00.000000Z",
        "repeat": 0,
    } | row
    what = ("model", "dataset", "method", "mode", "n_sink", "window", "dtype", "threads")
    key = json.dumps([row[name] for name in (*what, "evict_every", "max_tokens", "batch_size")])
    return {"config_key": hashlib.sha256(key.encode()).hexdigest()[:16]} | row


def frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The rows as ``results.frames`` gives them: every column, newest first.

    Where one has been compared, there is also what comparing adds.
    """
    found = pd.DataFrame(list(rows))
    found = found.reindex(columns=[*COLUMNS, *(name for name in ADDED if name in found)])
    whole = ["window", "attended_keys", "scored_tokens", "documents", "threads", "context_tokens"]
    found[whole] = found[whole].astype("Int64")
    found["gpu"] = None
    return found.sort_values("run_id", ascending=False, ignore_index=True)


def study() -> list[dict[str, Any]]:
    """Two texts that ask, methods, windows, sinks, modes; decode-loop at W = 60 three times."""
    asked: list[dict[str, Any]] = []
    for text in ("one", "two"):
        for window in (60, 124):
            for method in ("streaming", "window", "recompute", "mit"):
                # window attention has the whole budget for its window
                n_sink = 0 if method == "window" else 4
                shape = {"method": method, "n_sink": n_sink, "window": window + 4 - n_sink}
                asked.append({"dataset": text, **shape})
        asked.append({"dataset": text, "method": "dense", "window": 96})
        asked += [{"dataset": text, "n_sink": s} for s in (0, 1, 2, 8)]
        for method in ("streaming", "recompute", "dense"):
            asked.append({"dataset": text, "method": method, "mode": "chunked"})
    rows = [run(number, **columns) | ASKED for number, columns in enumerate(asked, start=100)]
    again = [
        row for row in rows if row["mode"] == "decode-loop" and row["n_sink"] + row["window"] == 64
    ]
    for repeat, factor in enumerate((1.2, 0.9), start=1):
        for number, row in enumerate(again):
            time = row["ms_per_token_p50"] * factor
            later = run(1000 * repeat + number)
            then = {name: later[name] for name in ("run_id", "created_at")}
            rows.append(row | then | {"repeat": repeat, "ms_per_token_p50": time})
    return rows


def traces(run_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores that tell the runs apart, and times."""
    draw = np.random.default_rng(int(run_id))
    return draw.normal(4, 1, TOKENS - 1).astype(np.float32), np.full(9, 2, np.float32)


def drawn(name: str, rows: list[dict[str, Any]]) -> Drawn:
    """A figure of these runs."""
    return draw(name, frame(rows), traces)


def named(figure: Any, name: str) -> list[Any]:
    """What a figure draws under a name."""
    return [trace for trace in figure.data if trace.name == name]
