"""One file a command: parse, call, show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamcli.results.store import Store


def opened(db: str | None) -> Store:
    """The results database of ``--db``, or of the settings where that is not given."""
    from streamcli import settings
    from streamcli.results.store import Store

    return Store.open(settings.read({"db": db}).database_url)
