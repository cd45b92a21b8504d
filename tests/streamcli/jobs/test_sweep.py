"""Sweeps as they are carried out: what is run, skipped, failed, killed and shown."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from core import environment, process, runner
from core.config import RunConfig
from core.errors import StreamError
from core.facts import RunFacts
from streamcli.render import progress
from streamcli.results import frames
from streamcli.results.store import Store
from streamcli.settings import PREFIX
from tests.support import forked
from tests.support.process import imported
from tests.support.typed import Type

pytest_plugins = ("tests.support.typed",)
pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.slow]

ROOT = Path(__file__).parents[3]
TINY = ("sweep", "--models", "bundled", "--datasets", "bundled-narrative", "--max-tokens", "60")
CHUNKED = (*TINY, "--modes", "chunked", "--windows", "20")
TWO = (*CHUNKED, "--methods", "streaming", "window")


def rows(db: str | Path = "data/streamcli.db") -> Any:
    return frames.runs(Store.open(db), status=None, sort="run_id")


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


def test_a_failed_run_is_recorded_and_the_rest_goes_on(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = runner.execute

    def fails(prepared: Any, meter: Any) -> Any:
        if prepared.config.method == "window":
            raise RuntimeError("no\nluck")
        return execute(prepared, meter)

    monkeypatch.setattr(runner, "execute", fails)
    code, out, err = typed(*CHUNKED, "--methods", "window", "dense", "--repeats", "2")
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
    monkeypatch.setattr(runner, "execute", execute)
    assert (
        "4 runs: 2 done, 2 finished"
        in typed(*CHUNKED, *("--methods", "window", "dense"), *("--repeats", "2"))[2]
    )


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


def test_an_interrupted_sweep_says_that_it_goes_on(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = runner.execute

    def stops(prepared: Any, meter: Any) -> Any:
        if prepared.config.method == "window":
            raise KeyboardInterrupt
        return execute(prepared, meter)

    monkeypatch.setattr(runner, "execute", stops)
    code, out, err = typed(*TWO)
    assert (code, out) == (130, "")
    assert "recorded as such. What is done is kept; the same command goes on from here." in err
    assert list(rows()["status"]) == ["done", "interrupted"]
    assert "with --force it begins anew" in typed(*TWO, "--force")[2]


class Ended(NamedTuple):
    """A scenario of ``tests.support.forked``: exit codes, what was said, and the database."""

    codes: list[int]
    said: str
    db: Path


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """All of them, from one process that imports torch once."""
    folder = tmp_path_factory.mktemp("forked")
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    command = [sys.executable, "-m", "tests.support.forked", str(folder)]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    codes, said = json.loads(done.stdout), done.stderr.split(forked.END)
    return {
        name: Ended(codes[name], words, folder / f"{name}.db")
        for name, words in zip(forked.SCENARIOS, said, strict=False)
    }


def whole(db: Path) -> None:
    with sqlite3.connect(db) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    store = Store.open(db)
    for run_id in rows(db).query("status == 'done'")["run_id"]:
        assert len(store.trace(run_id)[0]) == 59
    assert set(rows(db)["status"]) <= {"done", "interrupted"}


def test_a_sweep_killed_20_times_ends_with_every_run_exactly_once(
    scenarios: dict[str, Ended],
) -> None:
    codes, _, db = scenarios["killed"]
    assert codes.count(-signal.SIGKILL) == forked.KILLS == 20
    assert codes[-1] == 0
    done = rows(db).query("status == 'done'")
    assert len(done) == 6 * forked.REPEATS
    assert not done.duplicated(["config_key", "repeat"]).any()
    assert done["config_key"].nunique() == 6
    whole(db)


def test_what_is_stopped_says_interrupted_and_a_sweep_goes_on(
    scenarios: dict[str, Ended],
) -> None:
    codes, said, db = scenarios["stopped"]
    assert codes == [130, 130, 130, 0] and "the same command goes on from here" in said
    assert said.count("streamcli: interrupted; run ") >= 2
    for number in (signal.SIGINT, signal.SIGTERM):
        assert list(rows(f"{db}.{number}")["status"]) == ["interrupted"]
    by_status = rows(db)["status"].value_counts()
    assert by_status["done"] == 6 and by_status.get("interrupted", 0) <= 1
    whole(db)


def test_two_sweeps_at_once_lose_nothing(scenarios: dict[str, Ended]) -> None:
    codes, said, db = scenarios["together"]
    assert codes == [0, 0]
    made = [int(count) for count in re.findall(r"\d+ runs: (\d+) done", said)]
    found = rows(db)
    assert sorted(made) == sorted(found["sweep"].value_counts()) and len(made) == 2
    assert set(found["status"]) == {"done"}
    assert found["config_key"].nunique() == 5 and min(found["config_key"].value_counts()) >= 4
    whole(db)


def test_only_runs_whose_process_has_surely_ended_become_interrupted(home: Path) -> None:
    store = Store.open(home / "runs.db")
    here = environment.describe()
    child = subprocess.run(
        [sys.executable, "-c", "from core import process; print(process.name())"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    config = RunConfig(window=20, max_tokens=9, threads=1).fitted(512)
    facts = RunFacts(requested_model="bundled", requested_dataset="wikitext")
    began = {
        "alive": here,
        "dead": replace(here, process=child.stdout.strip()),
        "of an older version": replace(here, pid=2**22 + 1, process=None),
    }
    names = {what: store.begin(config, facts, there, 0) for what, there in began.items()}
    assert store.reap(process.ended) == [names["dead"]]
    assert set(frames.runs(store, status="interrupted")["run_id"]) == {names["dead"]}
    assert store.reap(process.ended) == []


def test_a_dry_run_shows_what_is_there_and_how_long_the_rest_takes(typed: Type, home: Path) -> None:
    code, out, _ = typed(*TWO, "--dry-run")
    assert code == 0 and "2 runs, 2 to be made: no similar run tells how long they take." in out
    assert not (home / "data").exists()
    typed(*TWO)
    with sqlite3.connect("data/streamcli.db") as connection:
        connection.execute("UPDATE runs SET elapsed_s = 30")
    connection.close()
    _, out, _ = typed(*TWO, "dense", "--max-tokens", "120", "--repeats", "2", "--dry-run")
    lines = [line.split() for line in out.splitlines() if "0 of 2" in line]
    assert {line[1]: line[-3:] for line in lines} == {
        "streaming": ["min", "0", "s"],
        "window": ["min", "0", "s"],
        "dense": ["of", "2", "-"],
    }
    assert "6 runs, 6 to be made: at least 4 min 0 s, and 2 of which no similar run tells." in out
    _, out, _ = typed(*TWO, "--repeats", "2", "--dry-run")
    assert "4 runs, 2 to be made: about 1 min 0 s" in out and "1 of 2" in out
    assert "4 runs, 4 to be made" in typed(*TWO, "--repeats", "2", "--dry-run", "--force")[1]
    assert len(rows()) == 2


def test_a_dry_run_knows_open_settings_from_earlier_runs(typed: Type) -> None:
    words = (*TINY[:5], "--modes", "chunked", "--methods", "streaming", "window")
    _, out, _ = typed(*words, "--dry-run")
    assert "half - 4" in out and "half: of the length" in out
    typed(*words[:-1])
    _, out, _ = typed(*words, "--dry-run")
    assert "half" not in out and "252" in out and "256" in out
    assert "2 runs, 1 to be made" in out


def test_a_dry_run_never_imports_torch(typed: Type) -> None:
    Store.open("data/streamcli.db")
    words = "sweep --dry-run --preset paper"
    assert not {"torch", "transformers", "pandas"} & imported(words)
    assert "72 runs, 72 to be made" in typed(*words.split()).out


def test_the_help_tells_what_each_preset_is_for(typed: Type, monkeypatch: Any) -> None:
    from streamcli.jobs.plan import PRESETS

    monkeypatch.setenv("COLUMNS", "500")
    code, out, _ = typed("sweep", "--help")
    words = " ".join(out.replace("│", " ").split())
    assert code == 0
    assert all(f"{name}: {preset.purpose}." in words for name, preset in PRESETS.items())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.01, "0.1 s"),
        (9.94, "9.9 s"),
        (59.6, "1 min 0 s"),
        (90, "1 min 30 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_times_are_spelled_for_people(seconds: float, words: str) -> None:
    assert progress.spelled(seconds) == words


def test_a_terminal_shows_the_sweep_the_run_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Console(force_terminal=True, width=100, record=True, file=StringIO())
    monkeypatch.setattr(progress, "Console", lambda **_: screen)
    slow, quick = RunConfig(method="recompute"), RunConfig(method="dense")
    with progress.Board([slow, quick, slow, quick]) as board:
        board.ended("a", "done", 60.0)
        board.ended("b", "done", 2.0)
        screen.print(board.bars.get_renderable())
    shown = screen.export_text()
    assert "2/4" in shown and "about 1 min 2 s left" in shown


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
