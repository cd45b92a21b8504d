"""A server that is frozen in the middle of a statement: one line, and no endless wait."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from sqlalchemy import make_url, text

from core.errors import StreamError
from streamcli.results import silence
from streamcli.results.store import Store
from tests.support.databases import Served


@contextmanager
def frozen(url: str) -> Iterator[None]:
    """Within it every process of the server stands still."""
    folder = make_url(url).query["host"]
    with open(f"{folder}/data/postmaster.pid") as file:
        postmaster = psutil.Process(int(file.readline()))
    every = [postmaster.pid, *(child.pid for child in postmaster.children())]
    for pid in every:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in every:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("writes", [False, True])
def test_a_frozen_server_is_given_up(
    own_server: Served, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    url = own_server[0]
    store = Store.open(url)
    monkeypatch.setattr(silence, "SILENCE_S", 0.5)
    told: pytest.ExceptionInfo[StreamError]
    with (
        pytest.raises(StreamError, match="did not answer for") as told,
        store.transaction(writes=writes) as connection,
    ):
        connection.execute(text("SELECT 1"))
        with frozen(url):
            connection.execute(text("SELECT 2"))
    assert "can't be reached" in str(told.value) and "\n" not in str(told.value)
    with store.transaction() as connection:  # the next finds the server again
        assert connection.execute(text("SELECT 3")).scalar() == 3


def test_a_commit_that_is_not_answered_is_given_up(
    own_server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = own_server[0]
    store = Store.open(url)
    monkeypatch.setattr(silence, "SILENCE_S", 0.5)
    with store.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with frozen(url), pytest.raises(Exception, match="did not answer"):
            connection.commit()


def test_a_slow_statement_is_waited_for(
    own_server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(own_server[0])
    monkeypatch.setattr(silence, "SILENCE_S", 30)
    with store.transaction() as connection:
        assert connection.execute(text("SELECT pg_sleep(0.3), 7")).one()[1] == 7
