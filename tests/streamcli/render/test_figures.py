"""A figure shows what the runs say, of runs that may be compared, and tells what they are."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from core.result import wilson
from streamcli.analysis.comparison import comparisons
from streamcli.render.figures import panels, style
from streamcli.render.figures.streams import moving_mean
from streamcli.render.figures.trades import Mark, frontier
from tests.support.figure_runs import TOKENS, drawn, frame, named, run, study, traces

METHODS_DRAWN = ["streaming", "window", "mit", "recompute", "dense"]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return study()


def at(rows: list[dict[str, Any]], **columns: Any) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in columns.items())]


def decode(rows: list[dict[str, Any]], method: str, kept: int, text: str) -> list[dict[str, Any]]:
    found = at(rows, method=method, mode="decode-loop", dataset=text)
    if method == "dense":
        return found
    sinks = 0 if method == "window" else 4
    return [row for row in at(found, n_sink=sinks) if row["n_sink"] + row["window"] == kept]


def test_runtime_bars_are_medians_of_the_repeats_from_zero(rows: list[dict[str, Any]]) -> None:
    figure = drawn("decode-runtime", rows).figure
    assert figure
    for text, axis in (("one", "x"), ("two", "x2")):
        for method in METHODS_DRAWN:
            (bar,) = [each for each in named(figure, method) if each.xaxis == axis]
            times = [row["ms_per_token_p50"] for row in decode(rows, method, 64, text)]
            assert bar.type == "bar" and bar.base is None
            assert bar.x[0] == pytest.approx(np.median(times))
            assert bar.x[0] + bar.error_x.array[0] == pytest.approx(max(times))
            assert bar.x[0] - bar.error_x.arrayminus[0] == pytest.approx(min(times))
            assert bar.error_x.visible == (len(times) == 3) and len(times) in (1, 3)
            assert (bar.error_x.color == style.INK) == (bar.marker.color != style.BLACK)
    assert all(axis.range[0] == 0 for axis in figure.select_xaxes())


def test_perplexity_is_a_dot_at_the_latest_runs(rows: list[dict[str, Any]]) -> None:
    newest = max(decode(rows, "streaming", 64, "one"), key=lambda row: row["run_id"])
    changed = [row | {"ppl": 12.5} if row is newest else row for row in rows]
    figure = drawn("decode-perplexity", changed).figure
    assert figure and not [trace for trace in figure.data if trace.type == "bar"]
    first = {trace.name: trace for trace in figure.data if trace.xaxis == "x" and trace.name}
    assert list(first) == METHODS_DRAWN
    assert first["streaming"].x == (12.5,)
    assert first["streaming"].error_x.array[0] == pytest.approx(newest["ppl"] - 12.5)
    assert first["dense"].x[0] == pytest.approx(decode(rows, "dense", 64, "one")[0]["ppl"])
    assert figure.layout.xaxis.type == "log", "collapsed by more than threefold"


def test_repeats_by_other_code_are_no_error_bar(rows: list[dict[str, Any]]) -> None:
    changed = [row if row["repeat"] < 2 else row | {"git_commit": "d" * 40} for row in rows]
    done = drawn("decode-runtime", changed)
    assert done.figure
    (bar, _) = named(done.figure, "streaming")
    (newest,) = at(decode(changed, "streaming", 64, "one"), repeat=2)
    assert bar.x == (newest["ms_per_token_p50"],) and not bar.error_x.visible
    assert "No configuration was repeated" in done.caption


def test_main_has_every_method_in_every_mode(rows: list[dict[str, Any]]) -> None:
    figure = drawn("main", rows).figure
    assert figure
    headings = [note.text for note in figure.layout.annotations]
    assert headings == ["one, decode-loop", "one, chunked", "two, decode-loop", "two, chunked"]
    ppl, ms = [[t for t in figure.data if t.name and t.xaxis == axis] for axis in ("x3", "x4")]
    assert [trace.name for trace in ppl] == ["streaming", "recompute", "dense"]
    for row, score, time in zip(at(rows, dataset="one", mode="chunked"), ppl, ms, strict=True):
        assert (score.x, time.x) == ((row["ppl"],), (row["ms_per_token"],))


@pytest.mark.parametrize("measure", ["ppl", "ms_per_token_p50"])
def test_window_has_a_line_a_method_over_cache_sizes(
    rows: list[dict[str, Any]], measure: str
) -> None:
    figure = drawn("window", rows).figure
    assert figure
    axis = "y" if measure == "ppl" else "y2"
    for method in ("streaming", "window", "mit", "recompute"):
        (line,) = [trace for trace in named(figure, method) if trace.yaxis == axis]
        assert line.x == (64, 128)
        for kept, value in zip(line.x, line.y, strict=True):
            found = [row[measure] for row in decode(rows, method, kept, "one")]
            assert value == pytest.approx(np.median(found))
    for method in ("streaming", "window", "mit"):
        looks = {(line.line.width, line.marker.size) for line in named(figure, method)}
        assert len(looks) == 1, f"{method} has one look in every panel"
    (level,) = [trace for trace in named(figure, "dense") if trace.yaxis == axis]
    dense = np.median([row[measure] for row in decode(rows, "dense", 0, "one")])
    assert level.y == (pytest.approx(dense), pytest.approx(dense))


def test_sinks_has_a_line_a_window_over_s(rows: list[dict[str, Any]]) -> None:
    figure = drawn("sinks", rows).figure
    assert figure and [trace.name for trace in figure.data] == ["W = 60", "W = 60"]
    expected = {
        row["n_sink"]: row["ppl"]
        for row in at(rows, method="streaming", mode="decode-loop", dataset="one", window=60)
    }
    line = figure.data[0]
    ticks = [int(figure.layout.xaxis.ticktext[place]) for place in line.x]
    assert dict(zip(ticks, line.y, strict=True)) == expected and ticks == [0, 1, 2, 4, 8]


def test_sinks_at_equal_budgets_have_a_line_a_budget() -> None:
    even = [run(n, n_sink=s, window=64 - s, ppl=40.0 - s) for n, s in enumerate((0, 1, 4), start=1)]
    done = drawn("sinks", [*even, run(9, n_sink=4, window=64)])  # alone at its budget
    assert done.figure and [trace.name for trace in done.figure.data] == ["S + W = 64"]
    assert done.figure.data[0].y == (40.0, 39.0, 36.0) and "is the same for all S" in done.caption


JUDGED = {"ppl": 36.0, "ppl_change": -0.1, "ppl_change_low": -0.2, "ppl_change_high": 0.05}


@pytest.mark.parametrize("name", ["decode-perplexity", "pareto", "summary", "main"])
def test_bars_of_perplexity_are_the_interval_of_its_change(name: str) -> None:
    done = drawn(name, [run(1, **JUDGED), run(2, method="recompute", ppl=40.0)])
    assert done.figure and "95 % interval of its change" in done.caption
    (mark, *_) = named(done.figure, "streaming")
    bar = mark.error_y if name in ("pareto", "summary") else mark.error_x
    unit = 40.0 if name == "summary" else 1.0
    assert bar.array[0] == pytest.approx((40.0 * 1.05 - 36.0) / unit)
    assert bar.arrayminus[0] == pytest.approx((36.0 - 40.0 * 0.8) / unit)


@pytest.mark.parametrize("name", ["decode-perplexity", "pareto", "window", "main"])
def test_an_axis_of_perplexity_does_not_make_much_of_a_thousandth(name: str) -> None:
    rows = [
        run(10 * n + m, method=method, window=w, ppl=40.0 + 0.04 * n)
        for n, method in enumerate(("streaming", "recompute"))
        for m, w in enumerate((60, 124))
    ]
    figure = drawn(name, rows).figure
    assert figure
    axis = figure.layout.yaxis if name in ("pareto", "window") else figure.layout.xaxis
    assert axis.range[1] - axis.range[0] >= 0.05 * 40


def test_one_budget_is_written_above_and_several_beside_their_marks() -> None:
    one = [run(1), run(2, method="recompute"), run(3, method="mit")]
    figure = drawn("pareto", one).figure
    assert figure and "S\u00a0+\u00a0W\u00a0=\u00a064" in figure.layout.title.subtitle.text
    assert not any(text for trace in figure.data for text in trace.text or ())
    near = [run(9, window=124, ppl=one[0]["ppl"] * 1.001, ms_per_token_p50=9.7)]
    several = drawn("pareto", [*one, *near]).figure
    assert several
    beside = {
        text: side
        for trace in named(several, "streaming")
        for text, side in zip(trace.text, trace.textposition, strict=True)
    }
    assert set(beside) == {"64", "128"} and len(set(beside.values())) == 2


def test_latency_is_over_the_keys_that_a_query_sees(rows: list[dict[str, Any]]) -> None:
    figure = drawn("latency", rows).figure
    assert figure and not named(figure, "dense"), "it has no cache size"
    line = named(figure, "recompute")[0]
    assert line.x == (65, 129)
    assert line.y[1] == decode(rows, "recompute", 128, "one")[0]["ms_per_token_p50"]


def test_summary_has_the_ratios_of_the_tables(rows: list[dict[str, Any]]) -> None:
    once = [row for row in rows if row["repeat"] == 0]
    figure = drawn("summary", once).figure
    assert figure
    tables = {c.same["dataset"]: c.runs for c in comparisons(frame(at(once, mode="decode-loop")))}
    for text, axis in (("one", "x"), ("two", "x2")):
        table = tables[text].dropna(subset="speed_up").query("n_sink in (0, 4)")
        for method in ("streaming", "window", "mit"):
            (trace,) = [each for each in named(figure, method) if each.xaxis == axis]
            mine = table[(table["method"] == method) & (table["window"] > 50)]
            assert sorted(trace.x) == pytest.approx(sorted(mine["speed_up"]))
            assert sorted(trace.y) == pytest.approx(sorted(mine["ppl_change"] + 1))
            assert len(set(trace.textposition)) == 2, "its numbers don't lie on each other"


def test_what_sees_as_many_keys_at_most_and_fewer_on_average_has_no_place_in_the_summary() -> None:
    rows = [run(1, attended_keys_mean=60.0), run(2, method="recompute", attended_keys_mean=60.0)]
    rows += [run(3, method="context-shift", attended_keys_mean=48.0, config_key="shift")]
    figure = drawn("summary", rows).figure
    assert figure and named(figure, "streaming") and not named(figure, "context-shift")


def test_a_ratio_of_a_thousandth_does_not_look_like_an_effect() -> None:
    rows = [run(1), run(2, method="recompute", ppl=run(1)["ppl"] * 1.001)]
    figure = drawn("summary", rows).figure
    assert figure
    low, high = figure.layout.yaxis.range
    assert low < 0.97 and high > 1.03


def test_pareto_by_memory_is_over_what_was_held() -> None:
    rows = [run(1, kv_mib=3.0, ppl=40.0), run(2, window=124, kv_mib=6.0, ppl=38.0)]
    rows += [run(3, method="streaming-int", window=252, kv_mib=2.9, ppl=37.0, config_key="int")]
    rows += [run(4, method="recompute", kv_mib=0.0, ppl=36.0)]
    done = drawn("pareto-memory", rows)
    assert done.figure and "MiB" in done.figure.layout.xaxis.title.text
    (streaming,) = named(done.figure, "streaming")
    assert streaming.x == (3.0, 6.0) and streaming.y == (40.0, 38.0)
    assert named(done.figure, "streaming-int")[0].x == (2.9,)
    assert not named(done.figure, "recompute")  # it holds nothing
    assert not named(done.figure, "frontier")  # one beats all


def test_pareto_has_every_configuration_and_the_frontier(rows: list[dict[str, Any]]) -> None:
    figure = drawn("pareto", rows).figure
    assert figure
    marks = [
        (x, y)
        for trace in figure.data
        if trace.xaxis == "x" and trace.name != "frontier"
        for x, y in zip(trace.x, trace.y, strict=True)
    ]
    best = {
        (x, y)
        for x, y in marks
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in marks)
    }
    line = named(figure, "frontier")[0]
    assert set(zip(line.x, line.y, strict=True)) == best
    assert len(marks) == len(METHODS_DRAWN) * 2 - 1


def test_a_frontier_of_one_configuration_is_no_line_and_has_no_entry_in_the_legend() -> None:
    best = [run(1, ppl=30.0), run(2, method="recompute")]  # the faster is the better, too
    done = drawn("pareto", best)
    assert done.figure and not named(done.figure, "frontier") and "frontier" not in done.caption
    other = [row | {"dataset": "two", "tokens_sha256": "two"} for row in study()[:4]]
    several = drawn("pareto", [*best, *(row | {"run_id": row["run_id"][::-1]} for row in other)])
    assert several.figure and "grey frontier" in several.caption
    (line,) = named(several.figure, "frontier")
    assert line.showlegend and len(line.x) > 1


def test_equal_perplexities_do_not_lengthen_the_frontier() -> None:
    point = panels.points(frame([run(1)]))[0]
    places = ((1.0, 20.0), (2.0, 20.0 - 1e-6), (3.0, 19.0))
    marks = [Mark(point, x, y, (x, x), (y, y)) for x, y in places]
    assert [mark.x for mark in frontier(marks)] == [1.0, 3.0]


def test_the_stream_is_the_moving_mean_of_the_scores(rows: list[dict[str, Any]]) -> None:
    done = drawn("stream", rows)
    assert done.figure
    newest = max(decode(rows, "window", 64, "one"), key=lambda row: row["run_id"])
    nll, _ = traces(newest["run_id"])
    line = named(done.figure, "window")[0]
    assert line.x[0] == 64 and line.x[-1] == TOKENS - 1
    for place, value in list(zip(line.x, line.y, strict=True))[::37]:
        assert value == pytest.approx(np.mean(nll[place - 64 : place].astype(float)))
    assert {trace.name for trace in done.figure.data} == {
        "streaming",
        "window",
        "recompute",
        "dense",
    }
    assert "mean of the last 64 tokens" in done.caption


def test_the_stream_marks_where_the_cache_fills_and_training_ended(
    rows: list[dict[str, Any]],
) -> None:
    figure = drawn("stream", rows).figure
    assert figure
    assert {shape.x0 for shape in figure.layout.shapes} == {64, 200}
    words = {note.text for note in figure.layout.annotations}
    assert {"cache full: 64", "trained length: 200"} <= words
    short = [row | {"trained_length": 4096, "documents": 2} for row in rows]
    unmarked = drawn("stream", short)
    assert unmarked.figure and not unmarked.figure.layout.shapes, "documents begin anew"
    assert "Documents stand end to end" in unmarked.caption


def test_a_long_stream_is_thinned_and_sums_stay_exact() -> None:
    nll = np.full(1_000_000, 3.1, np.float32)
    at_tokens, mean = moving_mean(nll, 25_000)
    assert len(at_tokens) == 400 and at_tokens[-1] == len(nll)
    assert np.abs(mean - float(nll[0])).max() < 1e-9


def test_memory_is_measured_marks_on_the_formulas_line() -> None:
    lengths = (100, 200, 399)
    rows = [
        run(10 * n + m, method=method, scored_tokens=length, max_tokens=length + 1)
        for n, length in enumerate(lengths)
        for m, method in enumerate(("streaming", "mit", "dense", "recompute"))
    ]
    rows = [row | {"tokens_sha256": str(row["scored_tokens"])} for row in rows]
    rows = [
        row | ({"kv_mib": 0, "kv_formula_mib": 0} if row["method"] == "recompute" else {})
        for row in rows
    ]
    figure = drawn("memory", rows).figure
    assert figure
    lines = {t.name: (t.x, t.y) for t in figure.data if t.mode == "lines"}
    marks = {t.name: (t.x, t.y) for t in figure.data if t.mode == "markers"}
    assert marks["dense"] == (lengths, tuple(0.101 * length for length in lengths))
    assert lines["dense"][1] == (0, pytest.approx(0.1 * 399))
    assert lines["streaming"] == ((0, 399), (pytest.approx(6.4), pytest.approx(6.4)))
    assert lines["mit"] == ((0, 64, 399), (0, pytest.approx(6.4), pytest.approx(6.4)))
    assert lines["recompute"][1] == (0, 0)


def answered(number: int, method: str, near: int, far: int, **more: Any) -> dict[str, Any]:
    """A run of 10 questions at 20 tokens and 10 at 500, so many of each right."""
    answers = [[20, int(n < near)] for n in range(10)] + [[500, int(n < far)] for n in range(10)]
    row = run(number, method=method, mode="chunked", dataset="recall", **more)
    return row | {"answers": json.dumps(answers), "questions": 20, "chance": 0.1}


def test_right_answers_are_a_line_a_method_with_intervals_beside_chance_and_the_cache() -> None:
    rows = [answered(1, "streaming", 9, 1), answered(2, "dense", 10, 8), run(3, method="window")]
    found = drawn("recall", rows)
    figure = found.figure
    assert figure and "10.0%" in str(figure.layout.annotations)
    for name, shares in (("streaming", (0.9, 0.1)), ("dense", (1.0, 0.8))):
        (line,) = named(figure, name)
        assert line.y == pytest.approx(shares)
        for place, share in enumerate(shares):
            low, high = wilson(round(10 * share), 10)
            assert line.y[place] + line.error_y.array[place] == pytest.approx(high)
            assert line.y[place] - line.error_y.arrayminus[place] == pytest.approx(low)
        assert 16 < line.x[0] < 32 and 256 < line.x[1] < 512
    assert not named(figure, "window")
    assert [shape.x0 for shape in figure.layout.shapes if shape.x0 == shape.x1] == [64]
    assert [shape.y0 for shape in figure.layout.shapes if shape.y0 == shape.y1] == [0.1]
    assert "cache: 64" in str(figure.layout.annotations)
    ticks = next(iter(figure.select_xaxes())).tickvals
    assert ticks == (32, 512)
    assert "streaming 32; dense 500+" in found.caption


def test_shares_of_right_answers_stand_side_by_side_with_intervals_beside_guessing() -> None:
    def told(number: int, method: str, share: float, **more: Any) -> dict[str, Any]:
        ends = {"accuracy_low": share - 0.1, "accuracy_high": share + 0.05, "chance": 0.25}
        answers = {"answers": "[[null,1]]", "questions": 1, "accuracy": share}
        return run(number, method=method, mode="chunked", **more) | answers | ends

    rows = [told(1, "streaming", 0.8), told(2, "dense", 0.7), run(3, method="window")]
    found = drawn("accuracy", rows)
    figure = found.figure
    assert figure and "Wilson" in found.caption
    for name, share in (("streaming", 0.8), ("dense", 0.7)):
        (mark,) = named(figure, name)
        assert mark.x == (share,)
        assert mark.error_x.array[0] == pytest.approx(0.05)
        assert mark.error_x.arrayminus[0] == pytest.approx(0.1)
    assert not named(figure, "window")
    assert [shape.x0 for shape in figure.layout.shapes] == [0.25]
    assert drawn("recall", rows).figure is None  # nothing was told, so there is no distance
    assert drawn("accuracy", [rows[0], rows[2]]).figure is None  # one alone is no comparison


def test_where_no_text_asked_there_is_no_figure_of_answers() -> None:
    found = drawn("recall", [run(1), run(2, method="dense")])
    assert found.figure is None and "--datasets recall" in found.caption
