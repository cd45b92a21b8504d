"""A sweep's progress at a terminal, and how times are spelled there."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from core.config import RunConfig
from streamcli.render import progress


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.01, "0.1 s"),
        (9.94, "9.9 s"),
        (59.6, "1 min 0 s"),
        (90, "1 min 30 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_times_are_spelled_for_people(seconds: float, words: str) -> None:
    assert progress.spelled(seconds) == words


def test_a_terminal_shows_the_sweep_the_run_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Console(force_terminal=True, width=100, record=True, file=StringIO())
    monkeypatch.setattr(progress, "Console", lambda **_: screen)
    slow, quick = RunConfig(method="recompute"), RunConfig(method="dense")
    with progress.Board([slow, quick, slow, quick]) as board:
        board.ended("a", "done", 60.0)
        board.ended("b", "done", 2.0)
        screen.print(board.bars.get_renderable())
    shown = screen.export_text()
    assert "2/4" in shown and "about 1 min 2 s left" in shown
