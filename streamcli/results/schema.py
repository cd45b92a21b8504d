"""The tables: what is kept of a run, column by column, and how its traces are packed.

A column of ``Run`` that bears the name of a field or property of ``RunConfig``, ``RunFacts``,
``Environment`` or ``RunResult`` is filled from it by name (``values.py``). Times are text in UTC,
``2026-01-31T12:00:00.000000Z``: as text they sort as times do, on every database.
"""

from __future__ import annotations

import zlib
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, CheckConstraint, Index
from sqlmodel import Field, SQLModel

from streamcli.results.columns import SAME_RUN, STATES, STATUSES

Whole = Annotated[int, Field(sa_type=BigInteger)]
WholeOrNone = Annotated[int | None, Field(sa_type=BigInteger)]


class Run(SQLModel, table=True):
    """One run, whatever became of it. The figures stay NULL until it is done."""

    __tablename__ = "runs"
    __table_args__: Any = (
        CheckConstraint(f"status IN {STATUSES}", name="ck_runs_status"),
        Index("ix_runs_latest", "status", *SAME_RUN, "run_id"),  # ``frames.latest`` reads no more
    )

    run_id: str = Field(primary_key=True, max_length=26)
    status: str = Field(index=True)
    model: str
    dataset: str
    method: str
    mode: str
    n_sink: Whole
    window: WholeOrNone = None
    attended_keys: WholeOrNone = None
    dtype: str
    device: str
    engine: str | None = None
    threads: WholeOrNone = None
    scored_tokens: WholeOrNone = None
    ppl: float | None = None
    nll_nats: float | None = None
    word_ppl: float | None = None
    bits_per_byte: float | None = None
    total_s: float | None = None
    ms_per_token: float | None = None
    ms_per_token_p50: float | None = None
    ms_per_token_p95: float | None = None
    tokens_per_s: float | None = None
    kv_mib: float | None = None
    peak_mem_mib: float | None = None
    git_commit: str | None = None
    created_at: str = Field(index=True)
    # Up to here the public columns, in the order of every table and export; from here the rest.
    finished_at: str | None = None
    error: str | None = None
    repeat: Whole
    config_key: str = Field(index=True)
    max_tokens: Whole
    timed_tokens: WholeOrNone = None
    context_tokens: WholeOrNone = None
    evict_every: WholeOrNone = None
    chunk_size: Whole
    batch_size: Whole
    seed: Whole
    source: str
    trust: bool
    requested_model: str
    requested_dataset: str
    model_revision: str | None = None
    weights_sha256: str | None = None
    parameters: WholeOrNone = None
    trained_length: WholeOrNone = None
    dataset_form: str | None = None
    dataset_revision: str | None = None
    tokens_sha256: str | None = Field(default=None, index=True)
    bos: str | None = None
    documents: WholeOrNone = None
    attended_keys_min: WholeOrNone = None
    attended_keys_mean: float | None = None
    attended_keys_max: WholeOrNone = None
    keys_before: WholeOrNone = None
    keys_after: WholeOrNone = None
    positions: str | None = None
    eviction: str | None = None
    byte_ppl: float | None = None
    total_is_estimate: bool | None = None
    prefill_s: float | None = None
    elapsed_s: float | None = None
    warmup_tokens: WholeOrNone = None
    ms_per_token_p99: float | None = None
    time_growth: float | None = None
    kv_formula_mib: float | None = None
    notes: str | None = None
    git_dirty: bool | None = None
    workdir_commit: str | None = None
    workdir_dirty: bool | None = None
    versions: str
    python: str
    host: str
    cpu: str
    gpu: str | None = None
    load_1m: float | None = None
    pid: WholeOrNone = None
    sweep: str | None = Field(default=None, index=True)
    tags: str | None = None
    comment: str | None = None
    compile_s: float | None = None
    files_sha256: str | None = None
    layers: str | None = None
    proof: str | None = None
    param: str | None = None
    method_package: str | None = None
    process: str | None = None
    tokens_per_document: WholeOrNone = None
    skip_tokens: WholeOrNone = None
    concatenate: bool | None = None
    questions: WholeOrNone = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    chance: float | None = None
    answers: str | None = None
    budget_mib: float | None = None
    softmax_type: str | None = None
    waited: float | None = None


class DocumentRow(SQLModel, table=True):
    """One document of a finished run; ``nll_nats`` is the sum over its scored tokens."""

    __tablename__ = "documents"

    run_id: str = Field(primary_key=True, foreign_key="runs.run_id", ondelete="CASCADE")
    position: int = Field(primary_key=True)
    name: str
    scored_tokens: Whole
    nll_nats: float | None = None
    words: Whole
    utf8_bytes: Whole
    questions: WholeOrNone = None
    right_answers: WholeOrNone = None


class Trace(SQLModel, table=True):
    """The per-token figures of a finished run, each as ``pack`` left it."""

    __tablename__ = "traces"

    run_id: str = Field(primary_key=True, foreign_key="runs.run_id", ondelete="CASCADE")
    nll: bytes
    latency_ms: bytes


class Benchmark(SQLModel, table=True):
    """One arm of ``streamcli bench``: times of random tokens, so never in a table of runs."""

    __tablename__ = "benchmarks"

    benchmark_id: str = Field(primary_key=True, max_length=26)
    created_at: str
    bench: str
    arm: str
    model: str
    method: str
    engine: str
    n_sink: Whole
    window: Whole
    attended_keys: Whole
    chunk_size: Whole
    batch_size: Whole
    dtype: str
    device: str
    threads: Whole
    seed: Whole
    rounds: Whole
    ms_per_token: float
    ms_per_token_low: float
    ms_per_token_high: float
    floor_ms: float | None = None
    read_gb_per_s: float | None = None
    gflops_per_s: float | None = None
    compile_s: float
    kv_mib: float
    step_mib: float | None = None
    length: WholeOrNone = None
    latency_ms: bytes
    git_commit: str | None = None
    git_dirty: bool | None = None
    versions: str
    host: str
    cpu: str
    gpu: str | None = None
    load_1m: float | None = None
    shown: str | None = None
    about: str | None = None


class Probe(SQLModel, table=True):
    """What ``streamcli probe`` found of a model's attention."""

    __tablename__ = "probes"

    probe_id: str = Field(primary_key=True, max_length=26)
    created_at: str
    model: str
    dataset: str
    n_sink: Whole
    window: Whole
    attended_keys: Whole
    threshold: float
    dtype: str
    device: str
    threads: Whole
    tokens: Whole
    pieces: Whole
    scored_tokens: Whole
    n_layers: Whole
    n_heads: Whole
    sink_rate: float
    mass_before: float
    mass_after: float
    suffices: Whole
    perplexities: str
    sinks: str
    before: bytes
    after: bytes
    model_revision: str | None = None
    weights_sha256: str | None = None
    tokens_sha256: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    versions: str
    host: str
    cpu: str
    gpu: str | None = None
    load_1m: float | None = None
    softmax_type: str | None = None


class Group(SQLModel, table=True):
    """Runs of an enqueued sweep that are held against each other: what a worker claims at once.

    ``ended`` says, as JSON, how each run ended that has: by its number in the group's own order,
    how, and its name or why.
    """

    __tablename__ = "queue"
    __table_args__: Any = (CheckConstraint(f"state IN {STATES}", name="ck_queue_state"),)

    group_id: str = Field(primary_key=True, max_length=26)
    state: str = Field(index=True)
    sweep: str = Field(index=True)
    created_at: str
    arms: str
    keys: str
    repeats: Whole
    within_trained: bool
    explicit: bool
    force: bool
    ended: str
    deaths: Whole
    worker: str | None = None
    host: str | None = None
    process: str | None = None
    beat: Whole
    seen_at: str | None = None


RUNS, DOCUMENTS, TRACES, BENCHMARKS, PROBES, QUEUE = (
    SQLModel.metadata.tables[str(each.__tablename__)]
    for each in (Run, DocumentRow, Trace, Benchmark, Probe, Group)
)


def pack(values: NDArray[np.float32]) -> bytes:
    """Little-endian float32, compressed by zlib; every bit is kept, NaN and infinities too."""
    return zlib.compress(np.ascontiguousarray(values, dtype="<f4").tobytes())


def unpack(blob: bytes) -> NDArray[np.float32]:
    """The array that ``pack`` was given.

    Raises:
        zlib.error: The bytes were damaged.
    """
    return np.frombuffer(zlib.decompress(blob), dtype="<f4").astype(np.float32)
