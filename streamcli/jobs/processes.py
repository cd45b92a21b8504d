"""The machine that runs are made on, and runs that nobody here can say are dead or alive."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from core import process


def host() -> str:
    """This machine's network name, as it is recorded with every run."""
    return platform.node()


def may_live(run: Mapping[str, Any]) -> bool:
    """Whether a run, by column name, is recorded as running, unless its process surely ended."""
    return run["status"] == "running" and process.ended(run["process"]) is not True


def untold(run: Mapping[str, Any]) -> bool:
    """Whether a run is recorded as running, and it can't be told here whether it is."""
    return run["status"] == "running" and process.ended(run["process"]) is None
