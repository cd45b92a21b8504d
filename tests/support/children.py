"""Functions and commands in processes of their own, forked from one that is warm already.

A fresh process that imports torch takes seconds. The warm one starts with the first of these.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pytest

from streamcli.settings import PREFIX

ROOT = Path(__file__).parents[2]
STREAMS = ("out", "err")


@cache
def _warm() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.support.warmed"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        forkserver.ensure_running()
    return context


def environment(**more: str) -> dict[str, str]:
    """This process's, without variables of streamcli's."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    path = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    return {**env, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


class Child:
    """A function in a process of its own, or streamcli if it is ``forked.become``."""

    def __init__(self, folder: Path, act: Callable[..., object], *args: Any, **env: str) -> None:
        self._said = Path(mkdtemp())
        for name in STREAMS:
            (self._said / name).touch()
        how = (folder, environment(**env), self._said)
        self.process = _warm().Process(target=_begin, args=(act, args, *how), daemon=True)
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)

    def said(self) -> str:
        """What came on stdout until now."""
        return (self._said / STREAMS[0]).read_text()

    def ended(self, within_s: float | None = None) -> tuple[int, str, str]:
        """The exit code, and what was said on stdout and stderr."""
        self.process.join(within_s)
        assert self.process.exitcode is not None, "it has not ended"
        out, err = self.said(), (self._said / STREAMS[1]).read_text()
        rmtree(self._said, ignore_errors=True)
        return self.process.exitcode, out, err


def streamcli(folder: Path, *words: str, **env: str) -> Child:
    """The command line with these words."""
    from tests.support import forked  # which imports torch

    return Child(folder, forked.become, *words, **env)


def script(path: Path, folder: Path, *words: str) -> Child:
    """A script with these words, typed in a folder."""
    return Child(folder, _run, path, words)


def _run(path: Path, words: tuple[str, ...]) -> None:
    sys.argv = [str(path), *words]
    runpy.run_path(str(path), run_name="__main__")


def _begin(
    act: Callable[..., object],
    args: tuple[Any, ...],
    folder: Path,
    env: dict[str, str],
    said: Path,
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for number, name in enumerate(STREAMS, 1):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_APPEND), number)
    act(*args)
