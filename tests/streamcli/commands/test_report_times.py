"""Reports of times: the median of repeated runs, as in comparisons and figures, read once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamcli.jobs.select import times
from streamcli.render import figures
from streamcli.render.figures import panels
from streamcli.results import frames
from tests.support.asked import Asked
from tests.support.records import FOUR, recorded
from tests.support.reported import DB, report, rows_of
from tests.support.typed import Type


def test_a_grouped_table_shows_the_times_that_its_speed_ups_are_of(home: Path, typed: Type) -> None:
    chunked = {"mode": "chunked", "ms_per_token_p50": None}
    times = {"streaming": 0.2, "recompute": 0.6}
    rows = [{**chunked, "method": name, "ms_per_token": ms} for name, ms in times.items()]
    recorded(home / DB, FOUR[0], FOUR[2], *rows)  # in the decode loop every mean is 4.4
    out = report(typed, "--group-by", "dataset", "--format", "markdown").out
    head, _, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in out.splitlines()
        if line.startswith("|")
    )
    table = [dict(zip(head, line, strict=True)) for line in lines]
    shown = {(row["mode"], row["method"]): (row["ms/token"], row["speed-up"]) for row in table}
    assert shown == {
        ("decode-loop", "streaming"): ("4.31", "4.66x"),
        ("decode-loop", "recompute"): ("20.1", "1.00x"),
        ("chunked", "streaming"): ("0.200", "3.00x"),
        ("chunked", "recompute"): ("0.600", "1.00x"),
    }
    assert {row["sinks"] for row in table if row["method"] == "recompute"} == {"-"}
    assert "of the median decode step; in chunked mode, of the mean" in out


@pytest.mark.slow
def test_report_compare_and_figures_have_one_time_and_one_speed_up(home: Path, typed: Type) -> None:
    slow = {"git_commit": "f" * 40, "ms_per_token_p50": 99.0}
    turns = [(32.2, 64.0), (11.7, 23.0), (11.9, 24.0), (12.0, 24.5), (32.0, 65.0)]
    runs = [
        {"method": method, "ms_per_token_p50": pair[place], "sweep": "A", "repeat": turn}
        for turn, pair in enumerate(turns)
        for place, method in enumerate(("streaming", "recompute"))
    ]
    store = recorded(home / DB, {**FOUR[0], **slow}, *runs)
    mine = {row["method"]: row for row in rows_of(typed)}
    pairs = json.loads(typed("compare", "--db", DB, "--format", "json").out)
    other = {row["method"]: row for row in pairs}
    points = {
        point.method: point
        for point in panels.points(frames.latest(store), times(store, frames.latest(store), {}))
    }
    for method, ms in (("streaming", 12.0), ("recompute", 24.5)):
        assert mine[method]["compared_ms"] == other[method]["ms"] == points[method].ms == ms
        assert points[method].repeats == 5
    assert mine["streaming"]["ms_per_token_p50"] == 32.0, "of the latest run, as recorded"
    assert mine["streaming"]["speed_up"] == pytest.approx(other["streaming"]["speed_up"])
    assert points["streaming"].ms_bar == (11.7, 32.2)
    figure = figures.draw("summary", frames.runs(store), store.trace).figure
    assert figure
    (mark,) = (trace for trace in figure.data if trace.name == "streaming")
    assert mark.x[0] == pytest.approx(other["streaming"]["speed_up"])
    ends = mark.x[0] - mark.error_x.arrayminus[0], mark.x[0] + mark.error_x.array[0]
    assert ends == pytest.approx([other["streaming"][f"speed_up_{end}"] for end in ("low", "high")])
    rule = "the perplexity is the latest's, and the time the median over those at its commit"
    for out in (report(typed).out, typed("compare", "--db", DB).out):
        assert rule in " ".join(out.split())
    by_round = f"{rule}, and a speed-up the geometric mean over rounds where there are 3."
    assert by_round in " ".join(report(typed).out.split())
    shown = report(typed, "--format", "markdown").out
    assert "| 12.0 |" in shown and "a decode step takes 12.0 ms against 24.5 ms" in shown


def test_a_table_of_chosen_columns_shows_the_time_that_compare_shows(
    typed: Type, home: Path
) -> None:
    """Of several runs of a configuration: the median, as in comparisons and figures."""
    quick = {"method": "window", "n_sink": 0, "window": 64, "config_key": "w", "sweep": "A"}
    slow = {"config_key": "s", "sweep": "A"}
    recorded(
        home / DB,
        *({**quick, "ms_per_token_p50": ms, "repeat": n} for n, ms in enumerate((2.0, 2.5, 90.0))),
        *({**slow, "ms_per_token_p50": ms, "repeat": n} for n, ms in enumerate((7.0, 8.0, 1.0))),
    )
    words = ("--columns", "method", "ms_per_token_p50", "--format", "markdown")
    table = report(typed, *words, "--sort", "ms_per_token_p50").out
    cells = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")][1:]
    assert [(a.strip(), b.strip()) for a, b in cells] == [("window", "2.50"), ("streaming", "7.00")]
    assert "the time the median over those at its commit" in table
    one_by_one = report(typed, *words, "--status", "done").out
    assert "90" in one_by_one and "median over" not in one_by_one


@pytest.mark.parametrize("form", ["table", "html"])
@pytest.mark.slow
def test_more_repeats_are_no_more_questions_and_their_times_are_read_once(
    typed: Type, home: Path, asked: Asked, form: str
) -> None:
    said = []
    for number in (2, 6):
        recorded(home / f"{number}.db", *FOUR * number)
        asked.clear()
        assert typed("report", "--db", f"{number}.db", "--format", form).code == 0
        assert asked.whole_rows == len(FOUR)
        said.append(list(asked.statements))
    assert said[0] == said[1] and asked.long_ways("6.db") == []
    assert sum("OUTER JOIN" in each for each in said[0]) == 1
