"""What all figures share: which runs may stand in one panel, how they look, what captions tell."""

from __future__ import annotations

import inspect
import math
import re
import shlex
from itertools import cycle
from typing import Any

import pytest

from core.errors import UsageError
from core.registry import METHODS, SPARE
from streamcli.analysis.comparison import SAME
from streamcli.commands.sweep import sweep
from streamcli.render.figures import NAMES, TITLES, draw, panels, style
from streamcli.results.columns import ADDED
from tests.support.figure_runs import drawn, frame, named, run, study, traces


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return study()


APART = {
    "model": "b/model",
    "weights_sha256": "v" * 64,
    "tokens_sha256": "other",
    "dtype": "bfloat16",
    "device": "cuda:0",
    "threads": 1,
    "host": "elsewhere",
    "cpu": "Another CPU",
    "batch_size": 8,
}


PANELS = ("decode-runtime", "decode-perplexity", "main", "window", "pareto")  # by one rule


@pytest.mark.parametrize(("name", "column"), list(zip(cycle(PANELS), APART, strict=False)))
@pytest.mark.slow
def test_runs_that_must_not_be_compared_share_no_panel(
    rows: list[dict[str, Any]], name: str, column: str
) -> None:
    odd = [row | {column: APART[column]} if row["method"] == "mit" else row for row in rows]
    figure = drawn(name, odd).figure
    assert figure and {"streaming", "recompute"} <= {trace.name for trace in figure.data}
    assert not named(figure, "mit")


def test_what_panels_share_is_what_comparisons_share() -> None:
    assert set(SAME) <= {*panels.SETTING, *panels.MODE, *panels.TEXT}
    assert set(panels.READ) <= {*frame([run(1)]).columns, *ADDED}


def test_of_equal_groups_the_newest_is_drawn_and_the_caption_says_so() -> None:
    old = [run(1), run(2, method="recompute")]
    new = [run(n, method=row["method"], dtype="float16") for n, row in enumerate(old, start=9)]
    done = drawn("decode-runtime", [*old, *new])
    assert "float16 on cpu" in done.caption and "Other runs are not shown" in done.caption
    alone = drawn("decode-runtime", old)
    assert "float32 on cpu" in alone.caption and "Other runs" not in alone.caption


def test_runs_that_evict_later_have_a_name_of_their_own() -> None:
    rows = [run(1), run(2, method="recompute"), run(3, evict_every=16)]
    figure = drawn("decode-runtime", rows).figure
    assert figure
    (lazy,) = named(figure, "streaming, k = 16")
    assert lazy.marker.color == METHODS["streaming"].look.colour


def test_variants_of_a_method_are_told_apart_by_name_mark_and_dash() -> None:
    def row(number: int, kv_bits: int, **more: Any) -> dict[str, Any]:
        own = {"method": "streaming-int", "param": f'{{"kv_bits": {kv_bits}}}'}
        return run(number, **own, config_key=f"{kv_bits} {more}", **more)

    rows = [run(1), run(2, method="recompute"), row(3, 8), row(4, 4)]
    rows += [run(5, window=124), row(6, 8, window=124), row(7, 4, window=124)]
    for name in ("decode-runtime", "decode-perplexity", "main", "window", "pareto", "stream"):
        figure = drawn(name, rows).figure
        assert figure
        found = [named(figure, f"streaming-int, kv_bits {bits}") for bits in (8, 4)]
        assert all(found) and not named(figure, "streaming-int"), name
        if name in ("window", "pareto"):
            looks = {(each[0].marker.symbol, each[0].line.dash) for each in found}
            assert len({symbol for symbol, _ in looks}) == len({dash for _, dash in looks}) == 2
    alone = drawn("decode-runtime", rows[:3]).figure
    assert alone and named(alone, "streaming-int")  # where there is no other, no more is said


def test_runs_that_were_made_to_fit_as_many_mib_share_a_panel() -> None:
    def row(number: int, method: str, window: int, **more: Any) -> dict[str, Any]:
        return run(number, method=method, window=window, budget_mib=4.0, **more)

    rows = [row(1, "streaming", 80), row(2, "recompute", 80), row(3, "streaming-int", 300)]
    rows.append(row(4, "window", 85, n_sink=0))
    odd = run(5, method="mit", window=80)  # asked for by keys
    for name in ("decode-runtime", "main"):
        done = drawn(name, [*rows, odd])
        assert done.figure and not named(done.figure, "mit")
        assert all(named(done.figure, each["method"]) for each in rows)
        words = done.figure.layout.title.subtitle.text.replace("\N{NO-BREAK SPACE}", " ")
        assert "4 MiB of keys and values" in words.replace("<br>", " ")
    assert "streaming-int up to 305" in done.caption
    ratios = drawn("summary", [*rows, odd]).figure
    assert ratios and named(ratios, "streaming-int") and not named(ratios, "mit")


@pytest.mark.slow
def test_captions_tell_the_circumstances(rows: list[dict[str, Any]]) -> None:
    for name in set(NAMES) - {"memory"}:
        caption = drawn(name, rows).caption
        said = ["one: 399 tokens scored", "float32 on cpu, 2 threads", "A CPU; bench", "cccccccccc"]
        assert all(words in caption for words in said), caption
        assert re.search(r"Run 1 November 2026 to 3 November 2026 at commit", caption), caption


def test_a_caption_names_every_machine_and_what_makes_times_too_long() -> None:
    rows = [run(1), run(2, method="recompute", waited=0.25)]
    rows += [run(3, method="dense", cpu="Another CPU", threads=1)]
    said = drawn("memory", rows).caption
    assert "1 thread (Another CPU; bench) and float32 on cpu, 2 threads (A CPU; bench)" in said
    for name in ("decode-runtime", "main", "summary"):
        assert "for one 25% in recompute (65 keys)" in drawn(name, rows).caption, name
    for name in ("decode-perplexity", "memory"):
        assert "times are too long" not in drawn(name, rows).caption.lower(), name


def test_no_name_in_a_figure_is_obeyed_by_a_terminal_or_breaks_an_image() -> None:
    named = {"dataset": "a\x1b[31mb", "cpu": "C\x1b[0mPU"}
    done = drawn("stream", [run(1, **named), run(2, method="recompute", **named)])
    assert done.figure and "\\x1b[31m" in done.caption and "\x1b" not in done.caption
    layout = done.figure.layout
    assert not any(
        "\x1b" in text for text in (layout.title.subtitle.text, layout.annotations[0].text)
    )


def test_titles_say_model_texts_budget_and_mode(rows: list[dict[str, Any]]) -> None:
    for name in ("decode-runtime", "decode-perplexity", "stream"):
        done = drawn(name, rows)
        assert done.figure
        title = done.figure.layout.title
        plain = re.sub(r"<br>|\N{NO-BREAK SPACE}", " ", title.subtitle.text)
        assert title.text == done.title == TITLES[name]
        assert plain == "a/model on one and two, S + W = 4 + 60, decode-loop"
    assert max(map(len, TITLES.values())) <= 34, "one line on a phone"


@pytest.mark.slow
def test_a_method_looks_the_same_everywhere(rows: list[dict[str, Any]]) -> None:
    for name in set(NAMES) - {"sinks"}:
        figure = drawn(name, rows).figure
        assert figure
        for trace in figure.data:
            if trace.name in METHODS:
                mode = trace.mode if trace.type == "scatter" else "bar"
                colour = trace.line.color if mode == "lines" else trace.marker.color
                look = METHODS[trace.name].look
                assert colour == look.colour, (name, trace.name)
                if "lines" in mode:
                    assert trace.line.dash == look.dash


def test_methods_are_told_apart_without_colour() -> None:
    looks = [*(each.look for each in METHODS.values()), *SPARE]
    for what in ("colour", "symbol", "dash"):
        assert len({getattr(look, what) for look in looks}) == len(looks)


def test_no_data_is_told_in_words_with_a_command_that_exists() -> None:
    options = {"--" + name.replace("_", "-") for name in inspect.signature(sweep).parameters}
    for rows in ([], [run(1, method="mit", mode="kvpress-official", documents=2)]):
        for name in NAMES:
            done = draw(name, frame(rows), traces)
            assert done.figure is None and done.title == TITLES[name]
            (command,) = re.findall(r"`streamcli (.+)`", done.caption)
            words = shlex.split(command)
            assert words[0] == "sweep"
            assert {word for word in words if word.startswith("--")} <= options


def test_a_perplexity_that_is_no_number_is_left_out_and_told() -> None:
    rows = [run(1), run(2, method="recompute"), run(3, method="dense", ppl=math.inf)]
    for name in ("decode-perplexity", "decode-runtime"):
        done = drawn(name, rows)
        assert done.figure and not named(done.figure, "dense")
        assert "1 of 3 configurations have no finite perplexity" in done.caption


def test_an_unknown_figure_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown figure 'pereto'.*Did you mean 'pareto'"):
        draw("pereto", frame([]), traces)


@pytest.mark.parametrize(
    "low, high",
    [(30, 5000), (12, 800), (1, 90), (2, 7), (15, 16), (1, 1e9), (1e-3, 1), (900, 1100)],
)
def test_a_logarithmic_axis_has_a_few_ticks_within_it(low: float, high: float) -> None:
    for most in (3, 6):
        axis = style.scale([low, high], log=True, most=most)
        assert 2 <= len(axis["tickvals"]) <= most
        first, last = axis["range"]
        assert all(first <= math.log10(tick) <= last for tick in axis["tickvals"])


def test_a_caption_says_that_others_are_not_shown_exactly_where_they_are_not() -> None:
    whole = [run(0, n_sink=4, window=60), run(1, method="recompute"), run(2, method="dense")]
    whole.append(run(3, method="window", n_sink=0, window=64))
    lacking = [*whole, run(4, window=124), run(5, method="recompute", window=124)]
    for name in ("decode-runtime", "memory"):
        assert "Other runs" not in drawn(name, whole).caption
        assert "Other runs are not shown" in drawn(name, lacking).caption


def test_what_keeps_as_many_keys_without_sinks_stands_beside_streaming() -> None:
    rows = [run(0), run(1, method="recompute")]
    whole = {"n_sink": 0, "window": 64}
    scored = [n for n, each in METHODS.items() if each.chooses and each.budget == "window"]
    rows += [run(2 + i, method=name, **whole) for i, name in enumerate(scored)]
    for name in ("decode-runtime", "decode-perplexity"):
        figure = drawn(name, rows).figure
        assert figure
        assert list(figure.layout.yaxis.ticktext) == ["streaming", *scored, "recompute"]
    other = drawn("decode-runtime", [*rows[:2], run(2, method="tova", n_sink=0, window=60)]).figure
    assert other and not named(other, "tova")


def test_a_compiled_run_has_a_bar_of_its_own() -> None:
    rows = [run(0), run(1, method="recompute"), run(2, engine="compiled", config_key="other")]
    figure = drawn("decode-runtime", rows).figure
    assert figure and named(figure, "streaming") and named(figure, "streaming, compiled")


def test_a_method_that_sees_more_keys_is_marked_and_the_caption_says_how_many() -> None:
    rows = [run(0), run(1, method="recompute"), run(2, method="kvpress", attended_keys=512)]
    for name in ("decode-runtime", "main"):
        done = drawn(name, rows)
        assert (
            done.figure and "* sees more keys than the others: kvpress up to 512." in done.caption
        )
        assert list(done.figure.layout.yaxis.ticktext) == ["streaming", "kvpress*", "recompute"]
    assert "more keys" not in drawn("decode-runtime", rows[:2]).caption
