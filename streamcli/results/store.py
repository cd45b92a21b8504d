"""The store of runs, and the only session: a write is one transaction, kept whole or not at all.

A run begins as a row that says so, and ends once: done, failed or interrupted. One whose process
was killed stays ``running``. Every failure of the database is a ``StreamError`` of one line.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Row, Select, delete
from sqlmodel import Session, SQLModel, col, select, update

from core.config import RunConfig
from core.environment import Environment
from core.errors import StreamError, UsageError
from core.facts import RunFacts
from core.result import RunResult
from streamcli.results import addresses, kinds, migrations, queue, sqlite_file, values
from streamcli.results.failures import errors_in_one_line
from streamcli.results.schema import Benchmark, Probe, Run, Trace, unpack

LATEST = "latest"
COMMANDS = {
    "run": ("streamcli run", "streamcli runs list"),
    "benchmark": ("streamcli bench", "streamcli bench --list"),
    "probe": ("streamcli probe", "streamcli probe --list"),
}  # what records a row, and what lists them


class Unfinishable(StreamError):
    """A run has no row that its result could be recorded in, and waiting makes none."""


@dataclass(frozen=True)
class Store:
    """An opened database. It holds no connection between calls and needs no closing.

    Attributes:
        engine: Makes the connections.
        place: How messages name it: the file, or the URL without its password.
    """

    engine: Engine
    place: str

    @classmethod
    def open(cls, where: str | Path) -> Self:
        """Open what ``where`` names, made and brought up to date where need be.

        Args:
            where: A path, or a URL such as ``postgresql+psycopg://user:word@host/name``.

        Raises:
            UsageError: Not a place for results, not streamcli's, newer, or not writable.
            StreamError: Damaged, or no answer. Whatever is raised, nothing was changed.
        """
        url = addresses.located(where)
        store, file = cls(addresses.connected(url), addresses.named(url)), addresses.file_of(url)
        with errors_in_one_line(store.place):
            if file:
                sqlite_file.check(file)
            if not store._current(file):
                with store._writes.begin() as connection:
                    migrations.upgrade(connection, store.place)
            if file:
                sqlite_file.write_ahead(file)
                sqlite_file.stay(store.engine, file)
        return store

    def begin(
        self,
        config: RunConfig,
        facts: RunFacts,
        environment: Environment,
        repeat: int,
        sweep: str | None = None,
    ) -> str:
        """Record that a run begins, in a sweep or alone, and return its name, a ULID."""
        run = values.run(config, facts, environment, repeat, sweep)
        self.enter(run)
        return run.run_id

    def enter(self, run: Run) -> None:
        """Record that a run begins, whose row is made already; to do it twice changes nothing."""
        with self._writing() as session:
            session.merge(run)

    def finish(self, run_id: str, result: RunResult, cell: queue.Cell | None = None) -> Run:
        """Record everything a run found, in one transaction, and return its row.

        A run that was taken for dead meanwhile, and recorded as interrupted, is done all the same.
        One that is done with this very result stays so: the answer to a commit may have been lost.

        Args:
            run_id: The run.
            result: What it found.
            cell: The run's place in the queue, where it has one; that has ended then as well.

        Raises:
            Unfinishable: The run is not there, has failed, or is done with another result.
            Taken: Another worker has made it meanwhile; this one is recorded as interrupted.
        """
        found, rows = values.found(result), values.rows(run_id, result)
        with self._writing() as session:
            run = session.get(Run, run_id, with_for_update=True)
            if run and run.status == "done" and found.items() <= run.model_dump().items():
                return run
            if run is None or run.status not in ("running", "interrupted"):
                state = run.status if run else "not there"
                raise Unfinishable(f"{self.place}: run {run_id} is {state}, it can't be finished.")
            made = queue.Ended(queue.DONE, run_id)
            other = queue.end(session.connection(), cell, made) if cell else None
            if other:
                run.status, run.finished_at, rows = "interrupted", values.now(), []
            else:
                values.finish(run, result)
            session.add_all([run, *rows])
        if other:
            raise queue.Taken(f"run {run_id} was made meanwhile by another worker: {other.what}.")
        return run

    def fail(self, run_id: str, error: str) -> None:
        """Record that a run failed and why, in one line. A run that has ended stays as it ended."""
        self._end(run_id, "failed", values.plain("error", " ".join(error.split())))

    def interrupt(self, run_id: str) -> None:
        """Record that a run was interrupted. A run that has ended stays as it ended."""
        self._end(run_id, "interrupted", None)

    def reap(self, ended: Callable[[str | None], bool | None]) -> list[str]:
        """Record as interrupted what is recorded as running and surely is not; those names.

        Args:
            ended: Whether the process of a name has ended; None where that can't be told.
        """
        query = select(Run.run_id, Run.process).where(col(Run.status) == "running")
        with self._reading() as session:
            running = session.exec(query).all()
        dead = [run_id for run_id, process in running if ended(process)]
        for name in dead:
            self.interrupt(name)
        return dead

    def get(self, which: str) -> Run:
        """The run of a name, of the beginning of one, or the ``latest`` begun, whatever its status.

        Raises:
            UsageError: No run, or more than one.
        """
        return Run(**self.row(Run, which))

    def row(self, table: type[Run | Benchmark | Probe], which: str) -> dict[str, Any]:
        """The row of a name, of the beginning of one, or the ``latest``; see ``get``."""
        columns = SQLModel.metadata.tables[str(table.__tablename__)].columns
        key, what = next(iter(columns)), table.__name__.lower()
        query = select(*columns).order_by(columns.created_at.desc(), key.desc()).limit(2)
        if which != LATEST:
            query = query.where(key.startswith(which.upper(), autoescape=True))
        found = [dict(row._mapping) for row in self.read(query)]
        if not found:
            raise self._absent(which, what)
        if len(found) > 1 and which != LATEST:
            raise UsageError(
                f"{self.place} has several {what}s that begin with {which!r}, such as "
                f"{found[0][key.name]} and {found[1][key.name]}: give more of the name."
            )
        return found[0]

    def several(self, names: Sequence[str]) -> list[Run]:
        """The runs of these names, each once; see ``get``."""
        return list({run.run_id: run for run in map(self.get, names)}.values())

    def trace(self, run_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Nats of every scored token, and ms of every timed step, of a run that is done.

        Raises:
            UsageError: No such run, or not done.
            StreamError: The stored bytes are damaged.
        """
        with self._reading() as session:
            row = session.get(Trace, run_id)
        if row is None:
            raise UsageError(f"{self.place} has no trace of a run {run_id!r}: it is not done.")
        with self._undamaged(run_id):
            return unpack(row.nll), unpack(row.latency_ms)

    def nll(self, run_ids: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Nats of every scored token of many runs at once; those without a trace are left out.

        Raises:
            StreamError: The stored bytes are damaged.
        """
        query = select(Trace.run_id, Trace.nll).where(col(Trace.run_id).in_(set(run_ids)))
        with self._reading() as session:
            packed = session.exec(query).all()
        found = {}
        for run_id, blob in packed:
            with self._undamaged(run_id):
                found[run_id] = unpack(blob)
        return found

    def mark(self, run_ids: Iterable[str], **words: Callable[[str | None], str | None]) -> None:
        """Change the owner's words on these runs, ``tags`` or ``comment``, all or none.

        Args:
            run_ids: Names in full.
            **words: For a column, what becomes of its value.

        Raises:
            UsageError: No run has this very name.
        """
        with self._writing() as session:
            for run_id in run_ids:
                run = session.get(Run, run_id, with_for_update=True)
                if run is None:
                    raise self._absent(run_id)
                for name, changed in words.items():
                    setattr(run, name, values.plain(name, changed(getattr(run, name))))
                session.add(run)

    def delete(self, *run_ids: str) -> None:
        """Remove runs, their documents and their traces for good, all or none.

        Raises:
            UsageError: No run has this very name.
        """
        with self._writing() as session:
            for run_id in run_ids:
                deleted = session.exec(delete(Run).where(col(Run.run_id) == run_id))
                if not deleted.rowcount:
                    raise self._absent(run_id)

    def read(self, query: Select[Any]) -> Sequence[Row[Any]]:
        """The rows of a query, for ``frames``.

        Raises:
            StreamError: A cell is of another kind than its column takes: another program wrote it.
        """
        with errors_in_one_line(self.place), self.engine.connect() as connection:
            rows = connection.execute(query).all()
            kinds.check(connection, self.place, query.selected_columns, rows)
            return rows

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        """One transaction, for ``transfer`` and ``maintenance``; nothing stays where it raises.

        One that only reads sees the database as it was when it began, whatever others write.
        """
        engine = self._writes if writes else addresses.snapshots(self.engine)
        with errors_in_one_line(self.place), engine.begin() as connection:
            yield connection

    def hasty(self, wait_s: float) -> Store:
        """The same, waiting no longer than this for another process that writes to a file."""
        return replace(self, engine=self.engine.execution_options(wait_s=wait_s))

    def _current(self, file: Path | None) -> bool:
        if file and not file.exists():
            return False
        looker = sqlite_file.onlooker(file) if file else self.engine
        with looker.connect() as connection:
            return migrations.current(connection, self.place)

    @property
    def _writes(self) -> Engine:
        return self.engine.execution_options(writes=True)

    @contextmanager
    def _undamaged(self, run_id: str) -> Iterator[None]:
        try:
            yield
        except (zlib.error, ValueError, TypeError) as problem:
            raise StreamError(f"{self.place}: the trace of run {run_id} is damaged.") from problem

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with (
            errors_in_one_line(self.place),
            Session(self._writes, expire_on_commit=False) as session,
        ):
            yield session
            session.commit()

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with (
            errors_in_one_line(self.place),
            Session(self.engine, expire_on_commit=False) as session,
        ):
            yield session

    def _end(self, run_id: str, status: str, error: str | None) -> None:
        ended = {"status": status, "error": error, "finished_at": values.now()}
        running = (col(Run.run_id) == run_id) & (col(Run.status) == "running")
        with self._writing() as session:
            changed = session.exec(update(Run).where(running).values(**ended)).rowcount
            if not changed and session.get(Run, run_id) is None:
                raise self._absent(run_id)

    def _absent(self, which: str, what: str = "run") -> UsageError:
        make, show = COMMANDS[what]
        if which == LATEST:
            return UsageError(f"{self.place} has no {what} yet: record one with `{make}`.")
        return UsageError(f"{self.place} has no {what} {which!r}: `{show}` shows them.")
