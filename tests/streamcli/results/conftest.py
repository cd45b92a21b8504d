"""One run to record, and opened databases to record it in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.config import RunConfig
from core.environment import Environment
from core.facts import RunFacts
from core.result import DocumentResult, RunResult
from streamcli.results.store import Store
from tests.support.records import Begin, empty


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of a database without a run, alone in its folder."""
    path = tmp_path / "folder" / "runs.db"
    path.parent.mkdir()
    path.write_bytes(empty())
    return path


@pytest.fixture
def store(where: str) -> Store:
    """An opened, empty database of each kind."""
    if "://" not in where:
        Path(where).write_bytes(empty())
    return Store.open(where)


@pytest.fixture
def config() -> RunConfig:
    """A resolved configuration."""
    return RunConfig(
        model="bundled",
        window=1020,
        max_tokens=99,
        chunk_size=256,
        threads=2,
        device="cpu",
        seed=7,
        engine="eager",
    )


@pytest.fixture
def facts() -> RunFacts:
    """Facts with every field set, one number of them beyond 32 bits."""
    return RunFacts(
        requested_model="EleutherAI/pythia-70m",
        requested_dataset="wikitext",
        model_revision="0123456789abcdef0123456789abcdef01234567",
        weights_sha256="a" * 64,
        files_sha256="f" * 64,
        parameters=6_900_000_000,
        trained_length=2048,
        dataset_form="articles, joined",
        dataset_revision="v1",
        tokens_sha256="b" * 64,
        bos="none",
        layers="30 full attention layers: S + W",
        proof="each layer turns its keys by position",
    )


@pytest.fixture
def environment() -> Environment:
    """An environment with every field set."""
    return Environment(
        git_commit="c" * 40,
        git_dirty=True,
        workdir_commit="d" * 40,
        workdir_dirty=False,
        versions="torch==2.9 numpy==2.4",
        python="3.11.7",
        host="bench",
        cpu="A CPU",
        gpu="A GPU",
        load_1m=0.25,
        pid=4321,
        process="machine:boot:1:2:4321:5",
    )


@pytest.fixture
def begin(config: RunConfig, facts: RunFacts, environment: Environment) -> Begin:
    """Records that a run of that configuration begins, with some fields changed; its name."""

    def begun(store: Store, repeat: int = 0, sweep: str | None = None, **changed: Any) -> str:
        return store.begin(replace(config, **changed), facts, environment, repeat, sweep)

    return begun


@pytest.fixture
def result() -> RunResult:
    """A result with every field set and unusual numbers in its traces."""
    documents = (
        DocumentResult(name="first", scored_tokens=6, nll_nats=15.5, words=4, utf8_bytes=30),
        DocumentResult(name="größer", scored_tokens=2, nll_nats=4.25, words=1, utf8_bytes=9),
    )
    odd = [0.1, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4e38, 2.0]
    return RunResult(
        documents=documents,
        nll=np.array(odd, dtype=np.float32),
        latency_ms=np.linspace(1, 2, 11, dtype=np.float32),
        engine="eager",
        attended_keys_min=1,
        attended_keys_mean=4.5,
        attended_keys_max=8,
        positions="cache",
        eviction="after-step",
        total_s=0.5,
        total_is_estimate=True,
        prefill_s=0.125,
        elapsed_s=0.75,
        warmup_tokens=3,
        ms_per_token=1.5,
        ms_per_token_p50=1.25,
        ms_per_token_p95=1.75,
        ms_per_token_p99=2.0,
        time_growth=1.02,
        kv_mib=11.5,
        kv_formula_mib=11.25,
        peak_mem_mib=345.0,
        waited=0.25,
        notes=("One thing.", "And another."),
    )


@pytest.fixture
def sound(result: RunResult) -> RunResult:
    """A result whose documents sum up its trace."""
    nll = np.random.default_rng(7).random(1000, np.float32) * 9
    parts = np.split(nll.astype(float), [600])
    documents = [
        replace(document, scored_tokens=len(part), nll_nats=float(part.sum()))
        for document, part in zip(result.documents, parts, strict=True)
    ]
    return replace(result, documents=tuple(documents), nll=nll)
