"""A machine that others use is told of, in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.measure import quiet
from core.measure.quiet import Quiet


@pytest.mark.parametrize("stolen_s", [0.1, 30.0])
def test_time_that_a_hypervisor_took_is_told_and_much_of_it_is_doubted(
    monkeypatch: pytest.MonkeyPatch, stolen_s: float
) -> None:
    monkeypatch.setattr(quiet, "_spent", lambda: (1100.0, 5.0 + stolen_s))
    said = Quiet(load=0.5, spent=(1000.0, 5.0)).words()
    assert f"{stolen_s:.1f} % of the time taken by other machines" in said
    assert said.startswith("UNSTABLE") is (stolen_s > 2)
    assert "load average 0.5 before" in said and f"{len(os.sched_getaffinity(0))} cores" in said


def test_a_governor_is_named_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quiet, "GOVERNOR", tmp_path / "governor")
    assert "governor" not in Quiet().words()
    (tmp_path / "governor").write_text("powersave\n")
    assert Quiet().words().endswith("cores, governor powersave.")
