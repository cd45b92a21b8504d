"""A command line in an empty folder, and a database of a few real, tiny runs.

(PYTEST_DONT_REWRITE: tests import it.)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main

from core import foreknown
from core.models import loading
from streamcli import cli
from streamcli.jobs import executors
from streamcli.results.store import Store
from streamcli.settings import PREFIX
from tests.support.loaded_once import load_once

SCREEN = 500  # characters
DB = Path("data/streamcli.db")
DATA = ("--model", "bundled", "--dataset", "bundled-narrative", "--max-tokens", "90")
TINY = (*DATA, "--window", "20", "--mode", "chunked", "--chunk-size", "32", "--threads", "1")


class Typed(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    def refuses(self, code: int, *words: str) -> bool:
        """Whether it ended with ``code`` and one short line that says all this."""
        assert (self.code, self.out) == (code, ""), self
        assert self.err.startswith("streamcli: ") and self.err.count("\n") == 1, self.err
        assert len(self.err) < SCREEN, self.err
        assert all(word in self.err for word in words), self.err
        assert "Error:" not in self.err, self.err  # nobody meant it to be seen
        return True


Type = Callable[..., Typed]
_built = cache(typer.main.get_command)  # all commands and options, which takes as long as a report


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, without any variable of streamcli's."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(loading, "load", load_once)
    monkeypatch.setattr(foreknown, "folder", lambda: tmp_path.with_suffix(".prepared"))
    monkeypatch.setattr(typer.main, "get_command", _built)
    return tmp_path


@pytest.fixture
def typed(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    """Types words after ``streamcli``."""

    def run(*words: str) -> Typed:
        monkeypatch.setattr(sys, "argv", ["streamcli", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Typed(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def in_process(typed: Type, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Types what would have been a streamcli process; fills up with the words."""
    elsewhere, done = subprocess.run, list[list[str]]()

    def run(call: list[str], **how: Any) -> Any:
        if call[:3] != [sys.executable, "-m", "streamcli"]:
            return elsewhere(call, **how)
        done.append(call[3:])
        return subprocess.CompletedProcess(call, *typed(*call[3:]))

    monkeypatch.setattr(subprocess, "run", run)
    return done


class _Worked:
    """A worker that has ended well."""

    def ended(self) -> int:
        return 0

    def said(self) -> list[str]:
        return []

    def stop(self, *, at_once: bool) -> None:
        pass


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep's workers of this machine work in this process, one after the other."""

    def work(job: executors.Job, place: int) -> executors.Started:
        from streamcli.jobs import worker

        worker.make(job.place, job.sweep, forever=False, quiet=True)
        return _Worked()

    monkeypatch.setattr(executors, "_local", work)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's rates are measured on little: their values prove nothing here."""
    monkeypatch.setattr("core.measure.floors.BUFFER_BYTES", 2**20)
    monkeypatch.setattr("core.measure.floors.SQUARE", 64)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of a database with four real runs of the bundled model; copy it."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(signal, "signal", lambda *_: None)
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        loops = (*DATA, "--window", "20", "--threads", "1")
        for words in (
            (*TINY, "--method", "streaming"),
            (*TINY, "--method", "recompute"),
            (*loops, "--method", "streaming"),
            (*loops, "--method", "recompute"),
        ):
            patch.setattr(sys, "argv", ["streamcli", "run", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert not ended.value.code
    yield folder / DB


@pytest.fixture
def store(home: Path, recorded: Path) -> Store:
    """The results database of ``home``, with those runs."""
    DB.parent.mkdir()
    shutil.copy(recorded, DB)
    return Store.open(DB)
