"""A probe is told in words that fit what was found, and drawn as wide as there is room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.sinks import Probe, Sink
from streamcli.render import probe as shown

MAP = np.array([[0.004, 0.25], [0.5, 1.0], [0.125, 0.75]], np.float32)
FOUND = Probe(
    n_sink=4,
    window=60,
    threshold=0.3,
    tokens=2048,
    pieces=32,
    sink_rate=0.7,
    before=MAP,
    after=MAP[::-1],
    sinks=(Sink(0, "The", 0.6, 0.4), Sink(17, "\n", 0.05, 0.1), Sink(90, ".", 0.02, 0.05)),
    perplexities={0: 125.07, 1: 31.05, 2: 31.16, 4: 31.28, 8: 31.75},
    scored_tokens=2047,
)


def test_sinks_are_told_with_what_to_keep_and_what_leaves() -> None:
    found, keep, elsewhere = shown.words(FOUND)
    assert found == (
        "Sinks: 70 % of 6 heads give the first token more than 0.3 of their attention. On average "
        "the first 4 get 44 %, and 44 % once tokens are evicted."
    )
    assert keep.startswith("Keep 1: at 64 keys") and "31.05" in keep and "125.07" in keep
    assert elsewhere.startswith("Further on 2 tokens are sinks of 1 % of the heads or more")
    assert "'\\n' at 17 (5.0 %)" in elsewhere


def test_none_are_told_where_there_are_none() -> None:
    none = replace(FOUND, sink_rate=0.004, perplexities={0: 9.0, 1: 9.0, 2: 8.95}, sinks=())
    found, keep, elsewhere = shown.words(none)
    assert found.startswith("No sinks: 0.4 % of 6 heads")
    assert keep.startswith("Keep none: at 64 keys") and "9.00" in keep
    assert elsewhere == "No other token is a sink of 1 % of the heads."


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (100, ["    0   .  25           0  12  75", "    1  50 100           1  50 100"]),
        (24, ["    0  . 2      0  1 8", "    1  5 9      1  5 9"]),
        (8, ["    0 .2", "    1 59"]),
    ],
)
def test_heat_maps_take_the_room_that_there_is(width: int, lines: list[str]) -> None:
    rows, unit = shown._maps(replace(FOUND, after=MAP[::-1].copy()), width)
    assert unit == ("%" if width == 100 else "tenths")
    plain = [row.plain for row in rows]
    assert plain[1].split()[0] == "0" and len(plain) == (4 if width > 8 else 9)
    for got, want in zip(plain[1:], lines, strict=False):
        assert got.split() == want.replace("100", "99").split()


def test_the_darker_the_more() -> None:
    def light(share: float) -> int:
        return sum(int(part) for part in shown._colour(share).strip("()").split(","))

    shades = [light(share) for share in np.linspace(0, 1, 21)]
    assert shades == sorted(shades, reverse=True) and len(set(shades)) == 21


def test_the_figure_has_both_maps_on_one_scale_and_says_how_they_were_made() -> None:
    drawn: Any = shown.drawn(FOUND, "a model on a text")
    before, after = drawn.figure.data
    assert np.allclose(before.z, 100 * MAP) and np.allclose(after.z, 100 * MAP[::-1])
    axis = drawn.figure.layout.coloraxis
    assert before.coloraxis == after.coloraxis == "coloraxis" and (axis.cmin, axis.cmax) == (0, 100)
    assert "32 texts of 64 tokens" in drawn.caption and "Keep 1" in drawn.caption
    assert drawn.figure.layout.yaxis.autorange == "reversed"
