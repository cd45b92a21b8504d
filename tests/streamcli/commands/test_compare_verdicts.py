"""What ``streamcli compare`` says of a difference: its interval, its verdict, and over what."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from core.result import wilson
from streamcli.results.store import Store
from tests.support.records import differing, recorded
from tests.support.reported import DB, cells, compare
from tests.support.typed import Type

APART = {"streaming": 0.2, "mit": 0.0, "window": 0.0}
APART_BUT_STREAMING = {name: nats for name, nats in APART.items() if name != "streaming"}


@pytest.mark.parametrize(
    ("lengths", "scope", "units"),
    [
        ([3000], "within this text, by Student's t", "tokens"),
        ([600] * 5, "over 5 documents, by Student's t", "documents"),
        ([50] * 60, "over 60 documents, by bootstrap-t", "documents"),
    ],
)
@pytest.mark.slow
def test_it_says_what_an_interval_is_over_and_how_much_text_would_show_a_difference(
    home: Path, typed: Type, lengths: list[int], scope: str, units: str
) -> None:
    differing(home / DB, lengths, **APART)
    out = compare(typed, "--margin", "0.001", "--format", "markdown").out
    assert f"lower is better; 95 % interval {scope}." in out
    found = {
        row["method"]: row
        for row in json.loads(compare(typed, "--margin", "0.001", "--format", "json").out)
    }
    assert found["streaming"]["verdict"].startswith("worse by 0.19")
    assert found["mit"]["verdict"] == "no difference shown"
    needed, other = (found["mit"][f"needed_{name}"] for name in (units, _other(units)))
    assert needed > sum(lengths) if units == "tokens" else needed > len(lengths)
    assert other is None and found["streaming"][f"needed_{units}"] is None
    assert re.search(
        rf"80 % power takes about so many {units}.*: .*mit \(65 keys, S = 4\) [\d,]+", out
    )
    assert all(row["clusters"].startswith(scope) for name, row in found.items() if name in APART)
    two = compare(typed, found["recompute"]["run_id"], found["mit"]["run_id"]).out
    assert f"nats a token, {scope}" in " ".join(two.split())


def _other(units: str) -> str:
    return "documents" if units == "tokens" else "tokens"


@pytest.mark.slow
def test_equal_is_said_within_the_margin_that_is_asked_for_by_a_test_of_its_own(
    home: Path, typed: Type
) -> None:
    differing(home / DB, [3000], **APART)

    def verdicts(*words: str) -> dict[str, str]:
        found = json.loads(compare(typed, *words, "--format", "json").out)
        return {row["method"]: row["verdict"] for row in found}

    assert verdicts()["mit"] == verdicts("--margin", "0.01")["mit"] == "equal within 0.01 nats"
    assert verdicts("--margin", "0.02")["mit"] == "equal within 0.02 nats"
    assert verdicts("--margin", "0.0001")["mit"] == "no difference shown"
    assert verdicts("--margin", "0.5")["streaming"].startswith("worse by"), "it is shown, if small"
    out = compare(typed).out
    assert "by two one-sided tests at 5 %: the 90 % interval is within it" in out


@pytest.mark.slow
def test_verdicts_are_corrected_for_the_comparisons_of_their_table(home: Path, typed: Type) -> None:
    many = {f"kvpress{kind}": 0.0 for kind in ("", "-stock", "-prefill", "-interval")}
    differing(home / DB, [3000], streaming=0.003, **APART_BUT_STREAMING, **many)
    found = json.loads(compare(typed, "--format", "json").out)
    tested = [row for row in found if row["difference_p"] is not None]
    (mine,) = (row for row in tested if row["method"] == "streaming")
    assert mine["difference_low_nats"] > 0, "its own interval excludes 0"
    assert mine["difference_p"] > 0.05 and not mine["verdict"].startswith("worse")
    alone = json.loads(compare(typed, "--method", "streaming", "--format", "json").out)
    (mine,) = (row for row in alone if row["method"] == "streaming")
    assert mine["difference_p"] < 0.05 and mine["verdict"].startswith("worse by")
    corrected = f"Holm-corrected over the {len(tested)} comparisons of this table"
    assert corrected in compare(typed).out
    assert "Holm" not in compare(typed, "--method", "streaming").out


def test_the_margin_of_the_help_is_the_one_that_is_used(four: Store, typed: Type) -> None:
    from streamcli.analysis.verdicts import MARGIN

    assert f"[default: {MARGIN:g}, 1 % of perplexity]" in " ".join(
        re.sub(r"[^\w\[\]:.,% ]", " ", typed("compare", "--help").out).split()
    )


def told(rights: str) -> dict[str, Any]:
    """A run whose 40 questions were answered rightly where there is a 1."""
    right = rights.count("1")
    low, high = wilson(right, 40)
    shares = {"accuracy": right / 40, "accuracy_low": low, "accuracy_high": high, "chance": 0.1}
    answers = [[8 if n % 2 else 300, int(each)] for n, each in enumerate(rights)]
    return shares | {"dataset": "recall", "questions": 40, "answers": json.dumps(answers)}


def test_accuracies_are_held_against_the_baselines_question_by_question(
    home: Path, typed: Type
) -> None:
    recompute, streaming, window = (told(rights * 10) for rights in ("1101", "1101", "0100"))
    for each, method in ((recompute, "recompute"), (streaming, "streaming"), (window, "window")):
        each["method"] = method
    recorded(home / DB, recompute, streaming, window)
    out = compare(typed, "--format", "markdown").out
    lines = [cells(line) for line in out.splitlines() if line.startswith("|")]
    places = [lines[0].index(name) for name in ("accuracy", "points vs recompute", "horizon")]
    assert places == [7, 8, 9]
    rows = {line[0]: [line[place] for place in places] + line[-1:] for line in lines[2:]}
    assert rows["recompute"] == ["75.0% (60 to 86)", "-", "300+", "baseline"]
    assert rows["streaming"][1].startswith("+0.0 [-") and "same questions" in rows["streaming"][3]
    accuracy, points, horizon, verdict = rows["window"]
    assert accuracy == "25.0% (14 to 40)" and points.startswith("-50.0 [-") and horizon == "16"
    low, high = (float(each) for each in re.findall(r"-\d+\.\d(?=[,\]])", points))
    assert f"less accurate by {-high} to {-low} points" in verdict
    assert "over questions, as if independent (McNemar's exact test" in out
    found = {row["method"]: row for row in json.loads(compare(typed, "--format", "json").out)}
    row = found["window"]
    assert (row["right_alone"], row["baseline_right_alone"]) == (0, 20)
    assert row["accuracy_p"] == pytest.approx(2 / 2**20)
    assert (row["horizon"], row["horizon_open"]) == (16, False)
    assert found["streaming"]["accuracy_p"] is None
    two = (found[method]["run_id"] for method in ("recompute", "window"))
    both = compare(typed, *two, "--format", "markdown").out
    assert f"{points} points, over questions" in both and "| horizon | 300+ | 16 |" in both
