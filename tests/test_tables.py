"""Tables: whole on a narrow terminal, and true to what they were given."""

from __future__ import annotations

import pandas as pd
import pytest
from rich.console import Console

from streamcli.render import output, tables
from streamcli.results.columns import COLUMNS
from streamcli.results.comparison import Comparison

RUNS = [
    ("streaming", 4, 1020, 1025, 36.79, 0.0019, 10.95, 1.72, 24.1, 1234.0, "one\nboth"),
    ("kvpress-interval", 4, 1020, 1088, 12345.6, 154.0, 28.5, 0.66, 25.5, 1300.0, "both"),
]
NAMES = [
    "method",
    "n_sink",
    "window",
    "attended_keys",
    "ppl",
    "ppl_change",
    "ms_per_token_p50",
    "speed_up",
    "kv_mib",
    "peak_mem_mib",
    "notes",
]


@pytest.fixture
def comparison() -> Comparison:
    same = {name: "x" for name in COLUMNS} | {"mode": "decode-loop", "scored_tokens": 4095}
    return Comparison(same, pd.DataFrame(RUNS, columns=NAMES), older=0)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_cell_is_cut_on_a_terminal_of_any_width(
    comparison: Comparison,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(output, "Console", lambda **given: Console(**{"width": width, **given}))
    monkeypatch.setattr(Console, "is_terminal", property(lambda _: True))
    monkeypatch.setenv("TERM", "dumb")
    sheet = tables.sheet(comparison)
    output.page(sheet)
    printed = capsys.readouterr().out
    assert "\u2026" not in printed
    for row in sheet.rows:
        assert " ".join(row) in " ".join(printed.split())


def test_a_note_names_the_methods_it_is_about(comparison: Comparison) -> None:
    notes = tables.sheet(comparison).notes
    assert "streaming: one" in notes
    assert "both" in notes
