"""A PostgreSQL server that stops answering in the middle of a statement is not waited for for ever.

A server's process that is frozen, or waits for a disk that is gone, keeps its connection: the
kernel goes on answering for it, so neither keepalives nor timeouts of TCP end the wait, and a
timeout of the server's own is frozen with it. So the client counts the seconds without a word.
"""

from __future__ import annotations

from collections.abc import Generator
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Engine, event

SILENCE_S = 120.0  # longer than any statement of ours takes, locks that others hold among them
DRIVER = "psycopg"

Found = TypeVar("Found")


def watch(engine: Engine) -> None:
    """Let every connection of a PostgreSQL engine give up after ``SILENCE_S`` without an answer."""
    if engine.dialect.driver != DRIVER:
        return

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, words: Any, options: dict[str, Any]) -> Any:
        return _kind().connect(*words, **options)


def _kind() -> Any:
    import psycopg

    class Impatient(psycopg.Connection[Any]):
        """A connection all of whose waiting, once it stands, is for an answer that comes."""

        def wait(self, gen: Any, *given: Any, **more: Any) -> Any:
            return super().wait(self._heard(gen), *given, **more)

        def _heard(self, gen: Generator[Any, Any, Found]) -> Generator[Any, Any, Found]:
            """The same steps as ``gen``, ended where nothing comes for too long."""
            try:
                wanted, heard_s = next(gen), monotonic()
                while True:
                    ready = yield wanted
                    if ready:
                        heard_s = monotonic()
                    elif monotonic() - heard_s > SILENCE_S:
                        self.pgconn.finish()  # or what follows, such as a rollback, waits again
                        raise psycopg.OperationalError(
                            f"the server did not answer for {SILENCE_S:.0f} s"
                        )
                    wanted = gen.send(ready)
            except StopIteration as end:
                found: Found = end.value
                return found

    return Impatient
