"""Sweeps as they are carried out: what is run, skipped, failed and shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from core import runner
from core.config import RunConfig
from core.errors import StreamError
from tests.support.sweeps import CHUNKED, TINY, TWO, rows, window_raises
from tests.support.typed import Type

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.slow]


def test_what_is_finished_is_skipped_and_shown_and_force_runs_it_again(typed: Type) -> None:
    assert typed(*TWO)[0] == 0
    code, out, err = typed(*TWO, "dense")
    assert code == 0
    assert re.search(r"1/3 streaming chunked on bundled-narrative.*: finished before", err)
    assert "3 runs: 1 done, 2 finished on this machine before (--force runs them again)." in err
    assert all(method in out for method in ("streaming", "window", "dense"))
    assert list(rows()["method"]) == ["streaming", "window", "dense"]
    assert rows()["sweep"].nunique() == 2 and set(rows()["sweep"].str.len()) == {26}
    assert "2 runs: 2 done." in typed(*TWO, "--force")[2]
    assert len(rows()) == 5


def test_methods_that_evict_otherwise_stand_in_rows_of_streamings_budget(typed: Type) -> None:
    methods = ("streaming", "context-shift", "tova", "h2o")
    words = (*TINY, "--modes", "decode-loop", "--windows", "20", "--methods", *methods)
    done = typed(*words, "--recent", "0.25", "--n-discard", "5")
    assert done.code == 0, done
    found = {row["method"]: row for row in json.loads(typed("report", "--format", "json").out)}
    assert {*found} == {*methods} and {row["attended_keys"] for row in found.values()} == {25}
    kept = {name: (row["n_sink"], row["window"]) for name, row in found.items()}
    assert kept == dict.fromkeys(methods[:2], (4, 20)) | dict.fromkeys(methods[2:], (0, 24))
    own = {name: json.loads(row["param"] or "{}") for name, row in found.items()}
    assert own["context-shift"] == {"n_discard": 5} and own["streaming"] == {}
    assert own["h2o"] == own["tova"] | {"recent": 0.25}
    assert len({row["ppl"] for row in found.values()}) == len(methods)
    table = " ".join(typed("report").out.split())
    assert re.search(r"\* not the 25 keys of most rows: context-shift up to 25, \d+ on av", table)


def test_repeats_are_filled_up_in_rounds_of_alternating_order(typed: Type) -> None:
    typed(*TWO)
    _, _, err = typed(*TWO, "--repeats", "3")
    assert "6 runs: 4 done, 2 finished" in err
    assert list(zip(rows()["method"], rows()["repeat"], strict=True)) == [
        *(("streaming", 0), ("window", 0)),
        *(("window", 1), ("streaming", 1), ("streaming", 2), ("window", 2)),
    ]


def test_what_another_machine_has_finished_is_run_here(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(*TWO)
    monkeypatch.setattr("platform.node", lambda: "another")
    assert "2 runs: 2 done." in typed(*TWO)[2]


def test_a_mistake_in_any_run_is_found_before_anything_is_loaded(
    typed: Type, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setattr(runner, "load_model", lambda *_, **__: pytest.fail("was loaded"))
    for words in (["--methods", "dense", "windoww"], ["--datasets", "no.txt"], ["--windows", "0"]):
        code, out, err = typed(*TINY, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
    assert not (home / "data").exists()


def test_a_failed_run_is_recorded_and_the_rest_goes_on(typed: Type) -> None:
    words = (*CHUNKED, "--methods", "window", "dense", "--repeats", "2")
    with window_raises(RuntimeError("no\nluck")):
        code, out, err = typed(*words)
    assert code == 1 and "dense" in out
    assert err.splitlines()[-3:] == [
        "streamcli: 4 runs: 2 done, 2 failed.",
        "streamcli: failed: window chunked on bundled-narrative, round 1 and 1 more: "
        "RuntimeError: no luck",
        "streamcli: 2 of 4 runs failed.",
    ]
    failed = rows().query("status == 'failed'")
    assert list(failed["method"]) == ["window"] * 2 and set(failed["error"]) == {
        "RuntimeError: no luck"
    }
    assert "4 runs: 2 done, 2 finished" in typed(*words)[2]


def test_what_cannot_begin_is_said_once_and_the_rest_goes_on(typed: Type, no_kvpress: None) -> None:
    code, _, err = typed(
        *TINY, "--windows", "20", "--methods", "kvpress", "dense", "--repeats", "2"
    )
    assert code == 1
    assert "12 runs: 6 done, 6 failed." in err and "6 of 12 runs failed" in err
    assert err.count("kvpress is not installed") == 2  # when it happens, and in the end
    assert err.count("failed, as before") == 5
    assert set(rows()["method"]) == {"dense"}


def test_a_model_that_cannot_be_loaded_is_tried_once_and_another_goes_on(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, tried = runner.load_model, []

    def counted(config: RunConfig, *, explicit: bool) -> Any:
        tried.append(config.model)
        if config.model != "bundled":
            raise StreamError("out of reach")
        return load(config, explicit=explicit)

    monkeypatch.setattr(runner, "load_model", counted)
    code, _, err = typed(*TWO, "--models", "some/model")
    assert code == 1 and "4 runs: 2 done, 2 failed." in err
    assert tried == ["bundled", "some/model"]


def test_a_presets_window_beyond_the_trained_length_is_left_out(typed: Type) -> None:
    words = ("--datasets", "bundled-narrative", "--methods", "streaming", "--max-tokens", "100")
    code, _, err = typed(
        *("sweep", "--models", "bundled", "--preset", "window"),
        *(*words, "--modes", "chunked", "--timed-tokens", "3", "--modes", "decode-loop"),
    )
    assert code == 0, err
    assert sorted(rows()["window"].unique()) == [60, 124, 252]
    assert "4 left out (a budget beyond the length that the model was trained on)" in err
    assert "window 508: left out: trained on 512 positions" in err
    assert typed(*TINY, "--modes", "chunked", "--windows", "508", "--methods", "streaming")[0] == 0


def test_the_help_tells_what_each_preset_is_for(typed: Type, monkeypatch: Any) -> None:
    from streamcli.jobs.plan import PRESETS

    monkeypatch.setenv("COLUMNS", "500")
    code, out, _ = typed("sweep", "--help")
    words = " ".join(out.replace("│", " ").split())
    assert code == 0
    assert all(f"{name}: {preset.purpose}." in words for name, preset in PRESETS.items())


def test_a_budget_in_mib_is_recorded_with_the_window_that_came_out(typed: Type) -> None:
    words = (*TINY, "--modes", "chunked", "--budgets-mib", "0.3", "--methods")
    done = typed(*words, "streaming", "streaming-int", "recompute", "dense", "--kv-bits", "4")
    assert done.code == 0, done
    found = {row["method"]: row for row in json.loads(typed("report", "--format", "json").out)}
    kept = {name: (row["budget_mib"], row["window"]) for name, row in found.items()}
    assert kept["streaming"] == kept["recompute"] and kept["dense"][0] is None
    assert kept["streaming-int"][1] > kept["streaming"][1]
    assert all(0 < found[name]["kv_mib"] <= 0.3 for name in ("streaming", "streaming-int"))
    ratio = found["streaming-int"]["ppl"] / found["recompute"]["ppl"]
    assert found["streaming-int"]["ppl_change"] == pytest.approx(ratio - 1)
    plan = typed(*words, "streaming", "recompute", "--dry-run").out
    assert "1 of 1" in plan and "0.3" in plan and "0 to be made" in plan
    assert "2 runs: 2 finished" in typed(*words, "streaming", "recompute").err
    again = typed("rerun", found["streaming"]["run_id"])
    assert again.code == 0 and "bit for bit the same" in again.out
    assert len(rows()) == 5 and rows()["config_key"].nunique() == 4
    assert typed(*words, "streaming", "--budgets-mib", "0.001").code == 1
    text = ("--model", "bundled", "--dataset", "bundled-narrative", "--max-tokens", "60")
    refused = typed("run", *text, "--budget-mib", "0.001")
    assert refused.refuses(2, "budget_mib is 0.001", "give 0.0")


def test_softmaxes_of_one_model_have_tables_of_their_own(typed: Type) -> None:
    words = (*TWO, "--softmax-types", "own", "off-by-one")
    done = typed(*words)
    assert done.code == 0, done
    titles = [line for line in done.out.splitlines() if "tokens scored" in line]
    assert len(titles) == 2 and sum("softmax off-by-one, float32" in line for line in titles) == 1
    found = rows()
    assert found.groupby("method")["ppl"].nunique().tolist() == [2, 2]
    assert found["softmax_type"].tolist() == [None, None, "off-by-one", "off-by-one"]
    assert "4 runs: 4 finished" in typed(*words).err
    assert typed(*words, "--dry-run").out.count("off-by-one") == 2
    page = typed("report", "--format", "markdown").out
    assert "softmax own" in page and "softmax off-by-one |" in page
    again = typed("rerun", "latest")
    assert again.code == 0 and "bit for bit the same" in again.out
