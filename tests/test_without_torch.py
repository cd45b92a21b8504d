"""Tests that need no torch don't import it: it costs seconds, and they are typed often."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = "tests/streamcli/jobs/test_plan.py"
COMMANDS = (
    *("compare", "compare_scale", "compare_verdicts", "db", "gate", "plot", "published"),
    *("report", "report_formats", "report_intervals", "report_times", "runs", "update"),
)
COLLECTED = (
    *(f"tests/streamcli/{folder}" for folder in ("analysis", "render", "results")),
    *(f"tests/streamcli/commands/test_{name}.py" for name in COMMANDS),
    *(f"tests/streamcli/test_{name}.py" for name in ("docs", "readme", "settings")),
    *(f"tests/attack/test_{name}.py" for name in ("options", "texts")),
)
CODE = """
import sys, pytest
for words in (["--collect-only", *sys.argv[2:]], [sys.argv[1]]):
    assert not pytest.main(["-p", "no:cacheprovider", *words]), "they fail"
    assert "torch" not in sys.modules, f"{words} import torch"
"""


@pytest.mark.slow
def test_tests_without_a_model_import_no_torch() -> None:
    command = [sys.executable, "-c", CODE, RUN, *COLLECTED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
