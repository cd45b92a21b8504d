"""Every script in examples/ runs, offline and small, and shows what it says that it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples"
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def ran(script: str, folder: Path, *words: str) -> tuple[str, str]:
    """What a script printed, typed in another folder: stdout and stderr."""
    call = [sys.executable, str(FOLDER / script), *words]
    done = subprocess.run(call, cwd=folder, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_generate_writes_on_while_its_cache_stays_as_it_is(tmp_path: Path) -> None:
    words = ("--tokens", "120", "--window", "20", "--prompt", "In the beginning")
    text, table = ran("generate.py", tmp_path, *words)
    assert text.startswith("In the beginning") and len(text.split()) > 60
    head, *rows = (line.split() for line in table.splitlines())
    assert head == ["tokens", "cache", "MiB", "process", "MiB", "ms/token"]
    assert len(rows) == 10 and int(rows[-1][0]) > 120
    assert len({row[1] for row in rows}) == 1 and float(rows[0][1]) > 0


def test_every_example_has_a_test() -> None:
    here = Path(__file__).read_text()
    assert all(f'"{path.name}"' in here for path in FOLDER.glob("*.py"))
