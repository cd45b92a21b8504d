"""Answers by distance: spans that double, each with its own count."""

from __future__ import annotations

import json
import random

import pytest

from core.result import wilson
from streamcli.analysis import distances
from streamcli.analysis.distances import Span


def test_every_answer_is_counted_in_the_one_span_that_its_distance_is_in() -> None:
    draw = random.Random(0)
    answers = [[draw.randrange(1, 3000), draw.randrange(2)] for _ in range(500)]
    answers += [[distance, 1] for distance in (1, 16, 17, 32, 33, 256, 257)]
    found = distances.spans(json.dumps(answers))
    assert [(span.first, span.last) for span in found][:3] == [(1, 16), (17, 32), (33, 64)]
    for before, after in zip(found, found[1:], strict=False):
        assert (after.first, after.last) == (before.last + 1, 2 * before.last)
    for span in found:
        inside = [right for distance, right in answers if span.first <= distance <= span.last]
        assert (span.asked, span.right) == (len(inside), sum(inside))
        assert span.accuracy == pytest.approx(sum(inside) / len(inside))
        assert span.ends == wilson(sum(inside), len(inside))
        assert span.first - 1 < span.middle < span.last
    assert sum(span.asked for span in found) == len(answers)


def test_a_run_without_questions_has_no_span_and_runs_share_the_ends_of_theirs() -> None:
    assert distances.spans(None) == []
    one, other = distances.spans("[[3,1],[70,0]]"), distances.spans("[[40,1]]")
    assert distances.ends([one, other]) == [16, 64, 128]
    assert other == [Span(first=33, last=64, asked=1, right=1)]


def asked(*spans: tuple[int, int, int]) -> dict[str, object]:
    """A run of spans, each a distance in it, how many were asked there and how many right."""
    answers = [[d, int(n < right)] for d, count, right in spans for n in range(count)]
    return {"answers": json.dumps(answers), "chance": 0.1}


@pytest.mark.parametrize(
    ("spans", "tokens", "is_open", "words"),
    [
        ([(9, 20, 18), (30, 20, 12), (60, 20, 2)], 32, False, "32"),
        ([(9, 20, 18), (30, 20, 12), (60, 20, 6)], 60, True, "60+"),  # 15 to 52 % of 20
        ([(9, 20, 2), (30, 20, 18)], 0, False, "0"),
        ([(9, 20, 18), (30, 20, 2), (60, 20, 20)], 16, False, "16"),  # luck, beyond chance
        ([(9, 20, 18), (900, 20, 9), (1800, 20, 1)], 1024, False, "1,024"),
        ([(9, 20, 18), (30, 4, 2), (60, 20, 18)], 16, False, "16"),  # guessing gets 2 of 4 in 5 %
        ([(9, 20, 18), (30, 10, 3), (60, 20, 18)], 16, False, "16"),  # and 3 of 10 in 7 %
        ([(9, 1, 0), (30, 20, 18), (60, 20, 2)], 32, False, "32"),  # one question tells nothing
        ([(9, 20, 18), (30, 20, 18), (60, 1, 1)], 30, True, "30+"),
    ],
)
def test_the_horizon_is_the_end_of_the_last_span_before_one_that_reaches_down_to_chance(
    spans: list[tuple[int, int, int]], tokens: int, is_open: bool, words: str
) -> None:
    found = distances.horizon(asked(*spans))
    assert found is not None
    assert (found.tokens, found.open, found.words) == (tokens, is_open, words)


def test_where_nothing_was_told_there_is_no_distance_and_no_horizon() -> None:
    told_nowhere = {"answers": "[[null,1],[null,0]]", "chance": 0.25}
    assert distances.spans(str(told_nowhere["answers"])) == []
    for run in (told_nowhere, {"answers": None, "chance": None}, {}, asked((9, 1, 1), (30, 1, 1))):
        assert distances.horizon(run) is None
