"""A machine that others use is told of, in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.measure import quiet
from core.measure.quiet import Quiet, Waiting


@pytest.mark.parametrize("stolen_s", [0.1, 30.0])
def test_time_that_a_hypervisor_took_is_told_and_much_of_it_is_doubted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stolen_s: float
) -> None:
    monkeypatch.setattr(quiet, "THREADS", tmp_path)  # whose threads wait for none of the others
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


def test_the_thread_that_waited_most_for_a_processor_tells_how_busy_a_machine_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quiet, "THREADS", tmp_path)
    assert Waiting().share() is None and "0.0 % spent waiting" in Quiet().words()
    for thread, waited in (("1", 5_000_000_000), ("2", 0)):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(f"77 {waited} 3\n")
    whole, began = Quiet(), Waiting()
    assert began.share() == 0.0
    (tmp_path / "2" / "schedstat").write_text("77 1000000000000 4\n")
    assert began.share() == 1.0  # of far less than 1,000 seconds
    assert whole.words().startswith("UNSTABLE") and "100.0 % spent waiting" in whole.words()


@pytest.mark.skipif(not quiet.THREADS.is_dir(), reason="only Linux counts how threads wait")
def test_threads_of_a_real_process_wait_for_a_part_of_the_time() -> None:
    assert 0.0 <= (Waiting().share() or 0.0) <= 1.0
    assert quiet._waits().keys() >= {str(os.getpid())}
