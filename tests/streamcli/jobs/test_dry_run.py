"""``streamcli sweep --dry-run``: what is there, what is to be made, and how long that takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamcli.results.store import Store
from tests.support.databases import sql
from tests.support.process import imported
from tests.support.sweeps import TINY, TWO, rows
from tests.support.typed import DB, Type

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.slow]


def test_a_dry_run_shows_what_is_there_and_how_long_the_rest_takes(typed: Type, home: Path) -> None:
    code, out, _ = typed(*TWO, "--dry-run")
    assert code == 0 and "2 runs, 2 to be made: no similar run tells how long they take." in out
    assert not (home / "data").exists()
    typed(*TWO)
    sql(Store.open(DB), "UPDATE runs SET elapsed_s = 30")
    _, out, _ = typed(*TWO, "dense", "--max-tokens", "120", "--repeats", "2", "--dry-run")
    lines = [line.split() for line in out.splitlines() if "0 of 2" in line]
    assert {line[1]: line[-3:] for line in lines} == {
        "streaming": ["min", "0", "s"],
        "window": ["min", "0", "s"],
        "dense": ["of", "2", "-"],
    }
    assert "6 runs, 6 to be made: at least 4 min 0 s, and 2 of which no similar run tells." in out
    _, out, _ = typed(*TWO, "--repeats", "2", "--dry-run")
    assert "4 runs, 2 to be made: about 1 min 0 s" in out and "1 of 2" in out
    assert "4 runs, 4 to be made" in typed(*TWO, "--repeats", "2", "--dry-run", "--force")[1]
    assert len(rows()) == 2


def test_a_dry_run_knows_open_settings_from_earlier_runs(typed: Type) -> None:
    words = (*TINY[:5], "--modes", "chunked", "--methods", "streaming", "window")
    _, out, _ = typed(*words, "--dry-run")
    assert "half - 4" in out and "half: of the length" in out
    typed(*words[:-1])
    _, out, _ = typed(*words, "--dry-run")
    assert "half" not in out and "252" in out and "256" in out
    assert "2 runs, 1 to be made" in out


def test_a_dry_run_never_imports_torch(typed: Type) -> None:
    Store.open("data/streamcli.db")
    words = "sweep --dry-run --preset paper"
    assert not {"torch", "transformers", "pandas"} & imported(words)
    assert "72 runs, 72 to be made" in typed(*words.split()).out
