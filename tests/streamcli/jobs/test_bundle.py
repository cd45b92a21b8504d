"""``streamcli bundle``: a folder from which others check runs, and make them again."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shlex
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest

from core.config import RunConfig
from streamcli.jobs import rerun
from streamcli.results import frames, portable
from streamcli.results.schema import Run
from streamcli.results.store import Store
from tests.support.databases import sql
from tests.support.typed import Type

OUT = Path("for others")


def calls(script: Path, folder: Path, *arguments: str) -> list[list[str]]:
    """The words of every streamcli that a real sh starts when it runs the script."""
    stand_in = folder / "bin" / "streamcli"
    stand_in.parent.mkdir()
    log = folder / "log"
    stand_in.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" "" >> {shlex.quote(str(log))}\n')
    stand_in.chmod(0o755)
    env = {"PATH": f"{stand_in.parent}:{os.environ['PATH']}"}
    subprocess.run(["sh", str(script), *arguments], check=True, env=env)
    words = log.read_text().split("\0")
    found: list[list[str]] = [[]]
    for word in words:
        found[-1].append(word) if word else found.append([])
    return [each for each in found if each]


@pytest.mark.slow
def test_the_script_makes_the_runs_again_with_the_same_scores(
    typed: Type, store: Store, tmp_path: Path
) -> None:
    names = list(frames.runs(store, sort="run_id")["run_id"])
    assert typed("bundle", *names, "--out", str(OUT)).code == 0
    *runs, report = calls(OUT / "run.sh", tmp_path)
    assert len(runs) == 4 and report == ["report", "--db", str(OUT / "reruns.db")]
    for name, words in zip(names, runs, strict=True):
        assert typed(*words).code == 0
        made = Store.open(OUT / "reruns.db").get("latest")
        mine, theirs = store.trace(name)[0], Store.open(OUT / "reruns.db").trace(made.run_id)[0]
        assert mine.tobytes() == theirs.tobytes()
        assert made.config_key == store.get(name).config_key


def test_the_script_takes_another_database(typed: Type, store: Store, tmp_path: Path) -> None:
    typed("bundle", "latest", "--out", "b")
    found = calls(Path("b/run.sh"), tmp_path, "my runs.db")
    assert [words[-2:] for words in found] == [["--db", "my runs.db"]] * 2


def test_every_file_is_listed_with_its_hash(typed: Type, store: Store) -> None:
    typed("bundle", "latest", "--out", "b")
    sums = [line.split("  ", 1) for line in Path("b/SHA256SUMS").read_text().splitlines()]
    listed = {name: digest for digest, name in sums}
    files = {p.relative_to("b").as_posix() for p in Path("b").rglob("*") if p.is_file()}
    assert set(listed) == files - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256(Path("b", name).read_bytes()).hexdigest() == digest
    assert all(
        f"`{name}" in Path("b/README.md").read_text()
        for name in files
        if "/" not in name and name != "README.md"
    )


def test_the_folder_holds_what_the_database_held(typed: Type, store: Store) -> None:
    run = store.get("latest")
    typed("bundle", "latest", "--out", "b")
    again_there = Store.open("b.db")
    assert portable.load(again_there, Path("b/runs.jsonl")).added == 1
    assert again_there.get("latest").model_dump() == run.model_dump()
    with np.load(f"b/traces/{run.run_id}.npz") as trace:
        kept = [trace[name].tobytes() for name in ("nll_nats", "latency_ms")]
    assert kept == [each.tobytes() for each in store.trace(run.run_id)]
    config = RunConfig(**json.loads(Path("b/configs.json").read_text())[run.run_id])
    assert config.key == run.config_key
    with Path("b/documents.csv").open() as stream:
        (document,) = csv.DictReader(stream)
    assert float(document["nll_nats"]) == float(
        frames.documents(store, [run.run_id])["nll_nats"][0]
    )
    assert os.access("b/run.sh", os.X_OK) and not Path("b/README.md").stat().st_mode & stat.S_IXUSR


def test_a_name_that_a_spreadsheet_would_compute_is_text_and_what_is_missing_is_nothing(
    typed: Type, store: Store
) -> None:
    sql(store, "UPDATE documents SET name = '=1+1'")
    typed("bundle", "latest", "--out", "b")
    with Path("b/documents.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["name"] == "'=1+1" and row["questions"] == ""  # which it has not


def test_versions_are_pinned_without_local_parts_and_apart_where_they_differ(
    typed: Type, store: Store
) -> None:
    first, second = list(frames.runs(store)["run_id"])[:2]
    versions = "streamcli==0.1.0 torch==2.9.0+cpu numpy==2.4"
    sql(store, "UPDATE runs SET versions = :new WHERE run_id = :run", new=versions, run=second)
    typed("bundle", first, second, "--out", "b")
    assert sorted(path.name for path in Path("b").glob("req*")) == [
        "requirements-1.txt",
        "requirements-2.txt",
    ]
    lines = Path("b/requirements-2.txt").read_text().splitlines()
    assert lines[0].endswith(f"ran {second}")
    assert lines[1:] == [
        "# streamcli==0.1.0: from its own repository",
        "torch==2.9.0  # 2.9.0+cpu",
        "numpy==2.4",
    ]


def test_a_bundle_is_there_whole_or_not_at_all(
    typed: Type, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    done = typed("bundle", "latest", "--out", "b")
    assert done.code == 1 and "b can't be written: No space left" in done.err
    assert [path.name for path in Path().iterdir()] == ["data"]


def test_a_folder_that_exists_is_never_touched(typed: Type, store: Store) -> None:
    Path("b").mkdir()
    done = typed("bundle", "latest", "--out", "b")
    assert done.code == 2 and "b exists: name a folder that does not" in done.err
    assert not list(Path("b").iterdir())


def test_a_run_that_is_not_done_is_refused(typed: Type, store: Store) -> None:
    sql(store, "UPDATE runs SET status = 'interrupted'")
    assert "is interrupted: only a finished run" in typed("bundle", "latest", "--out", "b").err


def test_every_option_goes_into_the_command_line_quoted() -> None:
    odd = RunConfig(
        model="a b/$(c)", dataset="it's.txt", window=5, max_tokens=9, timed_tokens=2, trust=True
    )
    row = Run(**{name: getattr(odd, name) for name in RunConfig.names() if name != "param"})
    words = rerun.words(rerun.pinned(row))
    assert shlex.split(shlex.join(words)) == words
    flags = {word for word in words if word.startswith("--")}
    given = {
        name
        for name in RunConfig.names()
        if (value := getattr(odd, name)) not in (None, ()) and value is not False
    }
    assert flags == {f"--{name.replace('_', '-')}" for name in given}
