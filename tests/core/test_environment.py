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


def test_a_run_within_a_hook_of_git_is_recorded_with_the_projects_commit_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, other = tmp_path / "project", tmp_path / "other"
    commit, _ = repository(project), repository(other)
    (project / "a.txt").write_text("two")
    monkeypatch.setattr(environment, "PROJECT", project)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    found = environment.describe()
    assert (found.git_commit, found.git_dirty, found.workdir_commit) == (commit, True, None)


def test_whether_a_checkout_was_changed_is_not_told_where_git_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    commit = repository(project)
    (project / ".git" / "index").write_bytes(b"damaged")
    monkeypatch.setattr(environment, "PROJECT", project)
    monkeypatch.chdir(tmp_path)
    found = environment.describe()
    assert (found.git_commit, found.git_dirty) == (commit, None)


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
