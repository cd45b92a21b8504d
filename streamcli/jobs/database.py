"""Opening the results database, and what to say where it holds nothing that was asked for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UsageError, unknown
from core.registry import DATASETS

if TYPE_CHECKING:
    from streamcli.results.store import Store


def opened(db: str | None, *, new: bool = False) -> Store:
    """The results database of ``--db``, or of the settings where that is not given.

    Args:
        db: What ``--db`` names.
        new: Whether a file that it names may be a new one.

    Raises:
        UsageError: No such file, or no database.
    """
    from streamcli import settings
    from streamcli.results.store import Store

    url = settings.place(db) if new else place(db)
    store = Store.open(url)
    if not new and (words := waiting(store, url)):
        from streamcli.render import output

        output.say(words)
    return store


def place(db: str | None) -> str:
    """Where the results database is that ``--db`` names, which must be there.

    Raises:
        UsageError: It names no such file.
    """
    from streamcli import settings
    from streamcli.results import addresses

    found = settings.place(db)
    file = addresses.file_of(addresses.located(found))
    if db and file and not os.path.exists(file):
        raise UsageError(f"there is no database {file}: name another with --db, or leave that out.")
    return found


def waiting(store: Store, place: str) -> str:
    """What to say of results that the database could not take when they were made, if any."""
    from streamcli.results import unrecorded

    files = unrecorded.waiting(store)
    if not files:
        return ""
    first, number = files[0], len(files)
    others = f" and {number - 1} more" if number > 1 else ""
    runs = f"results of {number} run{'s' * (number > 1)} wait in {first}{others}"
    return f"{runs}: {importing(files, place)}"


def importing(files: Sequence[Path], place: str) -> str:
    """The command that takes in these files; ``place`` is how the database was named."""
    from streamcli import settings
    from streamcli.results import addresses

    named = [shlex.quote(str(file)) for file in files]
    if place != settings.place(None):
        named += ["--db", shlex.quote(addresses.named(addresses.located(place)))]
    return " ".join(["streamcli db import", *named])


def unmatched(store: Store, what: str, where: dict[str, Any], command: str) -> str:
    """What to say where no run meets every condition.

    Raises:
        UsageError: No run at all has such a model or text.
    """
    from streamcli.results import frames

    for name, ready in (("model", ()), ("dataset", DATASETS)):
        wanted = where.get(name)
        if wanted is None or wanted in ready:
            continue
        held = {value for row in frames.rows(store, (name, f"requested_{name}")) for value in row}
        if held and wanted not in held:
            raise unknown(f"recorded {name}", wanted, sorted(held))
    return f"{store.place} holds no {what} that matches: record one with streamcli {command}."
