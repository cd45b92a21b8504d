"""Whose commit a run is recorded with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from core import environment


def repository(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(folder), *who, *words], check=True)
    head = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()


def test_a_run_carries_the_projects_commit_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    commit = repository(project)
    monkeypatch.setattr(environment, "PROJECT", project)
    monkeypatch.chdir(project)
    found = environment.describe()
    assert (found.git_commit, found.git_dirty) == (commit, False)
    assert (found.workdir_commit, found.workdir_dirty) == (None, None)
    (project / "new.txt").touch()
    assert environment.describe().git_dirty is False
    (project / "a.txt").write_text("two")
    assert environment.describe().git_dirty is True


def test_a_working_folder_in_another_repository_has_a_commit_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    commit = repository(other)
    project = tmp_path / "project"
    mine = repository(project)
    monkeypatch.setattr(environment, "PROJECT", project)
    monkeypatch.chdir(other)
    found = environment.describe()
    assert (found.git_commit, found.workdir_commit, found.workdir_dirty) == (mine, commit, False)


def test_an_install_inside_another_repository_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    repository(other)
    installed = other / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    monkeypatch.setattr(environment, "PROJECT", installed)
    monkeypatch.chdir(tmp_path)
    found = environment.describe()
    assert (found.git_commit, found.workdir_commit) == (None, None)
