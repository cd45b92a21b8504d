"""``streamcli rerun``: the same run again, from nothing but its record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import extras
from core.config import RunConfig
from core.models import loading
from core.packaged import bundled
from streamcli.analysis.comparison import groups
from streamcli.analysis.repetition import scores
from streamcli.jobs import rerun
from streamcli.results import frames
from streamcli.results.schema import Run, pack
from streamcli.results.store import Store
from tests.support.databases import sql
from tests.support.typed import DATA, TINY, Type

pytestmark = pytest.mark.slow


def change(store: Store, assigned: str, table: str = "runs", **values: Any) -> None:
    newest = "(SELECT max(run_id) FROM runs)"
    assert sql(store, f"UPDATE {table} SET {assigned} WHERE run_id = {newest}", **values) == 1


@pytest.mark.parametrize("nth", [0, 3])
def test_a_rerun_scores_the_same_bits_and_is_a_row_of_its_own(
    typed: Type, store: Store, nth: int
) -> None:
    before = store.get(frames.runs(store)["run_id"][nth])
    done = typed("rerun", before.run_id)
    assert done.code == 0 and "bit for bit the same" in done.out
    after = store.get("latest")
    assert f"{before.run_id} again, as {after.run_id}" in done.out
    assert (after.config_key, after.repeat) == (before.config_key, before.repeat + 1)
    assert after.ppl == before.ppl
    typed("rerun", before.run_id[:20])
    assert store.get("latest").repeat == before.repeat + 2


def test_what_was_settled_then_is_pinned_and_no_variable_changes_it(
    typed: Type, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMCLI_SOURCE", "bundled")
    typed("run", "--max-tokens", "60", "--mode", "chunked", "--threads", "1")  # stand-ins
    before = Store.open("data/streamcli.db").get("latest")
    assert before.requested_model != before.model == "bundled"
    monkeypatch.setenv("STREAMCLI_WINDOW", "7")
    monkeypatch.setenv("STREAMCLI_SEED", "9")
    monkeypatch.delenv("STREAMCLI_SOURCE")
    assert "bit for bit" in typed("rerun", "latest").out
    after = Store.open("data/streamcli.db").get("latest")
    for name in RunConfig.names():
        assert getattr(after, name) == getattr(before, name), name
    assert after.requested_model == "bundled"


def test_other_tokens_end_with_code_1_and_run_nothing(typed: Type, home: Path) -> None:
    Path("mine.txt").write_text("One day the sun will go out. " * 9)
    assert typed("run", *DATA[:2], "--dataset", "mine.txt", "--mode", "chunked").code == 0
    Path("mine.txt").write_text("One day the moon will go out. " * 9)
    done = typed("rerun", "latest")
    assert done.code == 1 and "the tokens of mine.txt are not those of run" in done.err
    assert len(frames.runs(Store.open("data/streamcli.db"), status=None)) == 1


def test_other_weights_end_with_code_1_and_run_nothing(typed: Type, store: Store) -> None:
    change(store, "weights_sha256 = :sha", sha="f" * 64)
    assert typed("rerun", "latest").refuses(1, "the weights of bundled are not those of run")
    assert len(frames.runs(store, status=None)) == 4


def test_another_configuration_of_the_same_weights_is_another_run(typed: Type, home: Path) -> None:
    shutil.copytree(bundled("model"), "mine")
    mine = ("--model", "mine", *TINY[2:])
    assert typed("run", *mine).code == 0
    config = json.loads(Path("mine/config.json").read_text())
    config["rope_parameters"]["rope_theta"] *= 2
    Path("mine/config.json").write_text(json.dumps(config))
    said = "the configuration and tokenizer files of mine are not those of run"
    assert typed("rerun", "latest").refuses(1, said)
    assert typed("run", *mine).code == 0
    found = frames.runs(Store.open("data/streamcli.db"))
    assert found["weights_sha256"].nunique() == 1 and found["config_key"].nunique() == 1
    assert found["files_sha256"].nunique() == 2 and found["ppl"].nunique() == 2
    assert len(groups(found)) == 2


def test_a_run_of_an_older_version_can_be_made_again(typed: Type, store: Store) -> None:
    change(store, "files_sha256 = NULL")
    done = typed("rerun", "latest")
    assert done.code == 0 and "bit for bit the same" in done.out
    assert "not recorded then" in done.out


def test_what_differs_is_told(typed: Type, store: Store) -> None:
    nll = store.trace(store.get("latest").run_id)[0]
    nll[41] += 0.25
    change(store, "nll = :nll", "traces", nll=pack(nll))
    versions = store.get("latest").versions.replace("transformers==", "transformers==0.")
    change(store, "git_commit = :sha, versions = :all, ppl = ppl / 2", sha="e" * 40, all=versions)
    told = typed("rerun", "latest").out
    assert "at most 2.5e-01 nats apart (token 41)" in told
    assert "+100%" in told and "eeeeeeeeee" in told
    assert any("transformers" in line and "0." in line for line in told.splitlines())


def test_only_a_finished_run_can_be_made_again(typed: Type, store: Store) -> None:
    change(store, "status = 'failed'")
    done = typed("rerun", "latest")
    assert done.code == 2 and "is failed: only a finished run will do" in done.err


def test_trust_is_never_inherited(typed: Type, store: Store) -> None:
    change(store, "trust = :yes", yes=True)
    assert "add --trust" in typed("rerun", "latest").err
    assert "bit for bit" in typed("rerun", "latest", "--trust").out


def row(**changed: Any) -> Run:
    known = {name: getattr(RunConfig(), name) for name in RunConfig.names()}
    return Run(**{**known, "window": 9, "max_tokens": 9, "threads": 1, "device": "cpu", **changed})


def test_a_hub_model_is_pinned_to_its_commit_and_others_are_named_as_they_ran() -> None:
    hub = row(model="EleutherAI/pythia-70m", model_revision="abc123")
    assert rerun.pinned(hub).model == "EleutherAI/pythia-70m@abc123"
    assert rerun.pinned(row(model="pypi:x", model_revision="1.0")).model == "pypi:x"
    assert rerun.pinned(row(model="./folder")).model == "./folder"


def test_differences_of_scores_are_told_for_what_is_no_number_too() -> None:
    one = np.array([1, np.inf, 3], np.float32)
    assert scores(one, one.copy()) == "bit for bit the same"
    assert scores(one, np.array([1, np.inf, 3.5], np.float32)).startswith("at most 5.0e-01")
    assert "nan nats apart (token 2)" in scores(one, np.array([1, np.inf, np.nan], np.float32))
    assert scores(one, one[:2]) == "not the same number of tokens"


def test_a_method_whose_package_is_gone_is_told_before_anything_is_loaded(
    typed: Type, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(store, "method = 'kvpress', engine = 'eager'")
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    monkeypatch.setattr(loading, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    assert typed("rerun", "latest").refuses(2, "'kvpress' needs the package kvpress", "pip install")
