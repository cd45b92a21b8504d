"""The default command, with a Hub that answers, one that does not, and no network at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.hub_standin import ROOT, Hub, pg19, tiny_model, wikitext

SHORT = ("--mode", "chunked", "--window", "20", "--max-tokens", "90", "--json")


def streamcli(folder: Path, env: dict[str, str], *words: str) -> Any:
    command = [sys.executable, "-m", "streamcli", *words]
    env = {**env, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def test_the_default_model_and_texts_come_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    commit = hub.put("EleutherAI/pythia-70m", tiny_model())
    hub.put(
        "Salesforce/wikitext", wikitext(["A lighthouse stands on a rock. " * 40]), kind="datasets"
    )
    hub.put("emozilla/pg19", pg19({10146: "It was a dark night. " * 60}), kind="datasets")
    for dataset in ("wikitext", "pg19"):
        done = streamcli(tmp_path, hub.env(), "run", "--dataset", dataset, *SHORT)
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout)
        assert (row["model"], row["dataset"]) == ("EleutherAI/pythia-70m", dataset)
        assert row["model_revision"] == commit
        assert "instead" not in done.stderr


def test_stand_ins_take_over_where_no_hub_answers_and_are_recorded_as_such(
    hub: Hub, tmp_path: Path
) -> None:
    env = hub.env(cache="empty", HF_ENDPOINT="http://127.0.0.1:9")
    done = streamcli(tmp_path, env, "run", *SHORT)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["model"], row["dataset"]) == ("bundled", "bundled-encyclopedia")
    assert (row["requested_model"], row["requested_dataset"]) == (
        "EleutherAI/pythia-70m",
        "wikitext",
    )
    first, second = done.stderr.splitlines()[:2]
    assert "running the bundled model instead" in first
    assert "reading bundled-encyclopedia instead" in second


def test_a_model_that_is_named_never_gives_way(hub: Hub, tmp_path: Path) -> None:
    env = hub.env(cache="empty", HF_ENDPOINT="http://127.0.0.1:9")
    for words in (["--model", "EleutherAI/pythia-70m"], ["--source", "hub"]):
        done = streamcli(tmp_path, env, "run", *words, *SHORT)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1 and "pythia-70m" in done.stderr
        assert not (tmp_path / "data").exists()
