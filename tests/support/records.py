"""Finished runs as rows of a database, without running anything."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlmodel import Session

from streamcli.results import frames, ulid
from streamcli.results.schema import DocumentRow, Run, Trace, pack
from streamcli.results.store import Store

Begin = Callable[..., str]  # a store, and what is changed, to the name of a run
BASE: dict[str, Any] = {
    "status": "done",
    "model": "bundled",
    "dataset": "bundled-narrative",
    "method": "streaming",
    "mode": "decode-loop",
    "n_sink": 4,
    "window": 60,
    "attended_keys": 65,
    "attended_keys_mean": 60.0,
    "dtype": "float32",
    "device": "cpu",
    "engine": "eager",
    "threads": 2,
    "scored_tokens": 599,
    "ppl": 216.2058,
    "nll_nats": 5.3762,
    "word_ppl": 1234.5,
    "bits_per_byte": 1.5,
    "total_s": 2.0,
    "ms_per_token": 4.4,
    "ms_per_token_p50": 4.31,
    "ms_per_token_p95": 5.0,
    "tokens_per_s": 230.0,
    "kv_mib": 0.523,
    "peak_mem_mib": 429.0,
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
    "git_dirty": False,
    "repeat": 0,
    "max_tokens": 600,
    "chunk_size": 256,
    "batch_size": 1,
    "seed": 0,
    "source": "bundled",
    "trust": False,
    "requested_model": "bundled",
    "requested_dataset": "bundled-narrative",
    "weights_sha256": "a" * 64,
    "tokens_sha256": "b" * 64,
    "trained_length": 512,
    "documents": 1,
    "time_growth": 1.0,
    "kv_formula_mib": 0.523,
    "eviction": "after-step",
    "positions": "cache",
    "versions": "torch 2.13.0, transformers 5.2.0",
    "python": "3.11.2",
    "host": "here",
    "cpu": "A processor",
    "notes": "",
}
FOUR: tuple[dict[str, Any], ...] = (
    {},
    {"method": "window", "n_sink": 0, "window": 64, "ppl": 217.5081, "ms_per_token_p50": 3.45},
    {"method": "recompute", "ppl": 216.9751, "ms_per_token_p50": 20.1, "kv_mib": 0.0},
    {
        "method": "dense",
        "window": None,
        "attended_keys": 599,
        "attended_keys_mean": 300.0,
        "ppl": 209.7923,
        "ms_per_token_p50": 8.21,
        "kv_mib": 4.68,
        "notes": "dense ran 88 tokens past the trained length of 512.",
    },
)

ARM: dict[str, Any] = {  # a row of benchmarks, but for its name and time
    **{"bench": "decode", "arm": "mit", "model": "random:tiny", "method": "mit", "engine": "eager"},
    **{"dtype": "float32", "device": "cpu", "versions": "x==1", "host": "h", "cpu": "c"},
    **{"n_sink": 4, "window": 60, "attended_keys": 65, "chunk_size": 256, "batch_size": 1},
    **{"threads": 2, "seed": 0, "rounds": 2, "compile_s": 0.0, "kv_mib": 0.1},
    **{"ms_per_token": 0.1, "ms_per_token_low": 0.1, "ms_per_token_high": 0.1},
    "latency_ms": pack(np.ones(6, np.float32)),
}

PROBED: dict[str, Any] = {  # a row of probes, likewise
    **{"model": "random:tiny", "dataset": "random tokens", "dtype": "float32", "device": "cpu"},
    **{"n_sink": 4, "window": 60, "attended_keys": 65, "threshold": 0.3, "threads": 2},
    **{"tokens": 200, "pieces": 3, "scored_tokens": 199, "n_layers": 2, "n_heads": 3},
    **{"sink_rate": 0.5, "mass_before": 0.4, "mass_after": 0.3, "suffices": 1},
    **{"perplexities": '{"0": 9.0}', "sinks": "[]", "versions": "x==1", "host": "h", "cpu": "c"},
    **{name: pack(np.ones(6, np.float32)) for name in ("before", "after")},
}


@cache
def empty() -> bytes:
    """An SQLite file with streamcli's schema and no run; to make one takes longer than a copy."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        Store.open(path)
        return path.read_bytes()


def recorded(path: Path | str, *changes: dict[str, Any]) -> Store:
    """A database with one run a set of changes to ``BASE``, the first one the oldest."""
    if not Path(path).exists():
        Path(path).write_bytes(empty())
    store = Store.open(path)
    with Session(store.engine.execution_options(writes=True)) as session:
        for number, changed in enumerate(changes):
            values = {**BASE, **changed}
            key = "{method}-{mode}-{n_sink}-{window}-{dataset}-{model}".format(**values)
            run = {
                "run_id": ulid.new(),
                "config_key": key,
                "created_at": f"2026-11-{24 + number // 1440:02d}T{number // 60 % 24:02d}:"
                f"{number % 60:02d}:00.000000Z",
                **values,
            }
            session.add(Run(**run))
            if run["status"] == "done":
                nll = np.linspace(6, 5, run["scored_tokens"] or 1, dtype=np.float32)
                steps = np.full(100, run["ms_per_token_p50"] or 1, np.float32)
                session.flush()
                session.add(Trace(run_id=run["run_id"], nll=pack(nll), latency_ms=pack(steps)))
        session.commit()
    return store


def run_ids(store: Store) -> list[str]:
    """The names of its finished runs, the oldest first."""
    return [str(name) for name in frames.runs(store, sort="run_id")["run_id"]]


def scored(store: Store, scores: dict[str, NDArray[Any]], lengths: list[int]) -> None:
    """Let the runs of these methods have these scores, on documents of these lengths."""
    runs = frames.runs(store, columns=["run_id", "method"])
    with Session(store.engine.execution_options(writes=True)) as session:
        for run in runs.itertuples():
            row, trace = session.get(Run, run.run_id), session.get(Trace, run.run_id)
            assert row and trace
            nll = scores[run.method].astype(np.float32)
            trace.nll, row.nll_nats = pack(nll), float(nll.mean(dtype=float))
            row.ppl, row.documents = float(np.exp(row.nll_nats)), len(lengths)
            session.add_all([row, trace])
            for place, tokens in enumerate(lengths):
                document = DocumentRow(
                    run_id=run.run_id,
                    position=place,
                    name=f"{place}",
                    scored_tokens=tokens,
                    nll_nats=1.0,
                    words=1,
                    utf8_bytes=1,
                )
                session.add(document)
        session.commit()


def differing(path: Path | str, lengths: list[int], **apart: float) -> Store:
    """A database with a run of each method of ``apart``, so many nats worse than re-computation.

    Each differs from it token by token, at random.
    """
    random, tokens = np.random.default_rng(0), sum(lengths)
    names = ("recompute", *apart)
    kinds = [{"method": name, "scored_tokens": tokens, "config_key": name} for name in names]
    times = [{"ms_per_token_p50": 20.0 if name == "recompute" else 4.0} for name in names]
    store = recorded(path, *(kind | time for kind, time in zip(kinds, times, strict=True)))
    base = random.gamma(2, 1, tokens)
    noise = {name: random.normal(nats, 0.1, tokens) for name, nats in apart.items()}
    scored(store, {"recompute": base, **{n: base + d for n, d in noise.items()}}, lengths)
    return store
