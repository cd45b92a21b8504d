"""How many runs a second a database takes in: what bounds the number of workers.

    python docs/results/writes.py                                # an SQLite file of its own
    python docs/results/writes.py postgresql+psycopg:///scratch  # a database to be filled

One short run is made. Then 1 and 8 processes record it again and again for ten seconds, each time
as a run of 20,000 scored tokens would be: begun, and finished with its scores.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from core import runner
from core.config import RunConfig
from core.environment import Environment
from core.facts import RunFacts
from core.result import RunResult
from streamcli.results.store import Store

SECONDS, TOKENS = 10.0, 20_000
Known = tuple[RunConfig, RunFacts, Environment, RunResult]


def made() -> Known:
    """A short run of the bundled model, its scores repeated to so many tokens."""
    config = RunConfig(
        model="bundled",
        dataset="bundled-narrative",
        mode="chunked",
        window=28,
        max_tokens=512,
        device="cpu",
        threads=1,
    )
    loaded = runner.load_model(config, explicit=True)
    prepared = runner.prepare(config, loaded, runner.read_text(config, loaded))
    result = runner.execute(prepared, lambda scored, nats: None)
    result = replace(result, nll=np.resize(result.nll, TOKENS))
    return prepared.config, prepared.facts, prepared.environment, result


def write(place: str, known: Known, until: float) -> int:
    """Record the run until then; how often it was."""
    config, facts, environment, result = known
    store, count = Store.open(place), 0
    while time.time() < until:
        store.finish(store.begin(config, facts, environment, repeat=0), result)
        count += 1
    return count


def main() -> None:
    """Print runs a second with 1 and 8 writers."""
    known = made()
    with TemporaryDirectory() as folder:
        place = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "runs.db")
        Store.open(place)
        for writers in (1, 8):
            until = time.time() + SECONDS + 3  # spawned processes import first
            with multiprocessing.get_context("fork").Pool(writers) as pool:
                time.sleep(3)
                counts = pool.starmap(write, [(place, known, until)] * writers)
            print(f"{writers} writers: {sum(counts) / SECONDS:.0f} runs a second")


if __name__ == "__main__":
    main()
