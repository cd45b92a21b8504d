"""A recorded run, to be made again: its configuration and its command line."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from core.config import RunConfig
from core.errors import StreamError, UsageError
from streamcli.results.columns import COLUMNS, HASHES, Group

if TYPE_CHECKING:
    from core.runner import Prepared
    from streamcli.results.schema import Run


def pinned(run: Run) -> RunConfig:
    """The configuration that makes ``run`` again: nothing left open, a Hub model at its commit.

    Raises:
        UsageError: It has an option that this version does not know.
    """
    held = {name: getattr(run, name) for name in RunConfig.names()}
    options = {name: held[name] for name in held if held[name] is not None}
    options["param"] = tuple(json.loads(run.param or "{}").items())
    if run.model_revision and not run.model.startswith("pypi:"):
        options["model"] = f"{run.model}@{run.model_revision}"
    return RunConfig(**options)


def words(config: RunConfig) -> list[str]:
    """The words after ``streamcli`` that run ``config``; defaults too, which a variable may set."""
    found = ["run"]
    for name in RunConfig.names():
        value, flag = getattr(config, name), f"--{name.replace('_', '-')}"
        if name == "param":
            found += [word for each, what in value for word in (flag, f"{each}={what}")]
        elif isinstance(value, bool):
            found += [flag] if value else []
        elif value is not None:
            found += [flag, str(value)]
    return found


def finished(run: Run) -> Run:
    """``run``, which is done.

    Raises:
        UsageError: It is not.
    """
    if run.status != "done":
        raise UsageError(
            f"run {run.run_id} is {run.status}: only a finished run will do "
            "(streamcli runs list --status done)."
        )
    return run


def refuse_another(before: Run, prepared: Prepared) -> None:
    """Refuse what would not be the same run: its weights, files or tokens are other ones now.

    Raises:
        StreamError: A hash is not what it was.
    """
    for column in HASHES:
        was, now = getattr(before, column), getattr(prepared.facts, column)
        if was and was != now:  # older versions did not record every hash
            words = re.split("Hash of the (?:model's )?|;", COLUMNS[column].help)[1]
            text = COLUMNS[column].group is Group.TEXT
            name = prepared.config.dataset if text else prepared.config.model
            raise StreamError(
                f"the {words} of {name} are not those of run {before.run_id} ({now[:10]} now, "
                f"{was[:10]} then): it can't be made again, and nothing was run."
            )
