"""Lines in the terminal: every method by a letter, on a scale of perplexity, within the width."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from core.errors import UsageError
from streamcli.render import terminal_figures
from streamcli.render.figures import Drawn


def drawn(*traces: Any) -> Drawn:
    return Drawn("stream", "A title", go.Figure(list(traces)), "A caption [not markup].")


def line(name: str, nats: float) -> Any:
    x = np.arange(1, 401)
    return go.Scatter(name=name, mode="lines", x=x, y=np.full(400, nats), line_color="#0072B2")


def test_each_line_is_a_letter_of_its_own_at_its_height(capsys: pytest.CaptureFixture[str]) -> None:
    terminal_figures.show(drawn(line("streaming", np.log(10.0)), line("sinks", np.log(1000.0))))
    title, *rows = capsys.readouterr().out.splitlines()
    assert title == "A title" and max(map(len, rows)) <= terminal_figures.WIDEST
    top, bottom = rows[0], rows[terminal_figures.ROWS - 1]
    assert top.startswith("   1000 |") and bottom.startswith("     10 |")
    assert set(top.split("|")[1]) <= {"i", " "} and top.count("i") > 90
    assert set(bottom.split("|")[1]) <= {"s", " "} and bottom.count("s") > 90
    assert rows[terminal_figures.ROWS + 1].split() == ["0", "token", "400"]
    assert "s streaming  i sinks" in rows[terminal_figures.ROWS + 2]
    assert rows[-1] == "A caption [not markup]."


def test_the_first_method_lies_on_top_and_what_is_infinite_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd = line("dense", 1.0)
    odd.y = np.array([np.inf, *[1.0] * 399])
    terminal_figures.show(drawn(line("window", 1.0), odd))
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].count("w") > 90 and "d" not in rows[1]


def test_a_figure_of_bars_is_refused() -> None:
    with pytest.raises(UsageError, match="not made of lines alone"):
        terminal_figures.show(drawn(go.Scatter(mode="markers", x=[1], y=[2])))
    with pytest.raises(UsageError, match="not made of lines alone"):
        terminal_figures.show(drawn(line("a", 1.0), go.Bar(x=[1], y=[2])))
