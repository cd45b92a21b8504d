"""Runs on their way from one database to another, each whole and unchanged.

Only runs that have ended travel. What comes in is one transaction: all of it or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Column, Connection, Table, delete, insert, inspect, select

from core.errors import StreamError, UsageError
from streamcli.results import addresses, kinds, migrations, queue, sqlite_file, ulid
from streamcli.results.columns import DOCUMENTS as OF_DOCUMENTS
from streamcli.results.columns import PUBLIC, Group
from streamcli.results.failures import errors_in_one_line
from streamcli.results.schema import BENCHMARKS, DOCUMENTS, PROBES, RUNS, TRACES
from streamcli.results.store import Store

BATCH = 200  # runs in memory at a time
ASKED = [name for name, each in OF_DOCUMENTS.items() if each.group is Group.ANSWERS]
MINE = ("tags", "comment")  # the owner's words, which make no other run of it
ENDED = 2
CAME = {"running": 0, "interrupted": 1, "failed": ENDED, "done": ENDED}  # how far a run has come
BEGINNING = ("created_at", "config_key", "host", "pid")  # by which a run is known to be the same

# Of rows that belong to no run, by the word for one of them.
ALONE = {"benchmark": BENCHMARKS, "probe": PROBES}

Others: TypeAlias = Mapping[str, Sequence[Any]]  # rows that belong to no run, by that word

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """One run, whole.

    Attributes:
        run: Its row, by column name.
        documents: Its documents in reading order, each by column name, without ``run_id``.
        trace: Its packed trace, by column name; None where it has none.
    """

    run: dict[str, Any]
    documents: list[dict[str, Any]]
    trace: dict[str, bytes] | None

    @property
    def run_id(self) -> str:
        """Its name."""
        return str(self.run["run_id"])


@dataclass(frozen=True)
class Moved:
    """How many runs were new, known here, or still running; and other rows that were new."""

    added: int
    known: int
    running: int = 0
    benchmarks: int = 0
    probes: int = 0


def records(connection: Connection, run_ids: Iterable[str]) -> Iterator[Record]:
    """These runs, whole, in this order, from a database of this or an older schema."""
    columns, parts = _columns(connection, RUNS), _columns(connection, DOCUMENTS)
    for names in _batches(run_ids):
        rows = {row["run_id"]: dict(row) for row in _rows(connection, RUNS, columns, names)}
        documents: dict[str, list[dict[str, Any]]] = {}
        for row in _rows(connection, DOCUMENTS, parts, names):
            documents.setdefault(row["run_id"], []).append(without_id(row))
        traces = _rows(connection, TRACES, list(TRACES.columns), names)
        packed = {row["run_id"]: without_id(row) for row in traces}
        for name in names:
            if name in rows:
                yield Record(rows[name], documents.get(name, []), packed.get(name))


def ended(connection: Connection) -> tuple[list[str], int]:
    """Names of every run that has ended, oldest first, and how many have not."""
    query = select(RUNS.c.run_id, RUNS.c.status).order_by(RUNS.c.run_id)
    found = connection.execute(query).all()
    names = [run_id for run_id, status in found if status != "running"]
    return names, len(found) - len(names)


def merge(store: Store, other: str) -> Moved:
    """Take in every ended run of another database that is not here yet, and what belongs to none.

    The other is only read.

    Raises:
        UsageError: There is no such database, or it is this one.
        StreamError: A run of that name is another one here, or a cell is of another kind than its
            column takes. Nothing was taken in.
    """
    url = addresses.located(other)
    place, file = addresses.named(url), addresses.file_of(url)
    if file and not os.path.isfile(file):
        raise UsageError(f"there is no database {file}: name a file, or a URL of PostgreSQL.")
    ours = addresses.file_of(store.engine.url)
    if place == store.place or (file and ours and file.samefile(ours)):
        raise UsageError(f"{place} is the database itself: name another one.")
    with errors_in_one_line(place):
        engine = sqlite_file.onlooker(file) if file else addresses.connected(url)
        with addresses.snapshots(engine).connect() as connection:
            migrations.current(connection, place)  # raises where it is newer, or another program's
            if not inspect(connection).has_table("runs"):
                return Moved(0, 0)
            kinds.refuse(connection, place)
            names, running = ended(connection)
            moved = add(store, records(connection, names), place, others(connection))
    return replace(moved, running=running)


def add(
    store: Store,
    incoming: Iterable[Record],
    source: str,
    more: Others | None = None,
    cell: queue.Cell | None = None,
) -> Moved:
    """Take in what is not here yet, in one transaction.

    A run that is recorded here as running or interrupted, and came further there, has ended so here
    then; one that came further here stays as it is.

    Raises:
        UsageError: A run has no proper name.
        StreamError: A run of that name is another one here. Nothing was taken in.
    """
    added = known = 0
    with store.transaction(writes=True) as connection:
        for batch in _batches(incoming):
            here = {each.run_id: each for each in records(connection, [r.run_id for r in batch])}
            for each in batch:
                mine = here.get(each.run_id)
                if mine and _is_behind(mine, each) and not _is_behind(each, mine):
                    each.run.update({name: mine.run[name] for name in MINE})
                    connection.execute(delete(RUNS).where(RUNS.c.run_id == each.run_id))
                    del here[each.run_id]
            fresh = [each for each in batch if each.run_id not in here]
            for each in batch:
                if not ulid.is_one(each.run_id):
                    raise UsageError(f"{source}: {each.run_id!r} is no name of a run, a ULID.")
                mine = here.get(each.run_id)
                if mine and not _is_behind(each, mine) and (names := _differences(mine, each)):
                    raise StreamError(
                        f"run {each.run_id} of {source} is another one in {store.place} "
                        f"({', '.join(names[:3])}): nothing was taken in; delete one of the two."
                    )
            made = [queue.Ended(queue.DONE, each.run_id) for each in fresh if cell]
            if cell and made and (other := queue.end(connection, cell, made[0])):
                raise queue.Taken(
                    f"run {made[0].what} of {source} was made meanwhile by another worker, as run "
                    f"{other.what}: nothing was taken in, and the file is not needed."
                )
            _insert(connection, fresh)
            added, known = added + len(fresh), known + len(batch) - len(fresh)
        new = {word: _new(connection, word, rows) for word, rows in (more or {}).items()}
        for word, rows in new.items():
            if rows:
                connection.execute(insert(ALONE[word]), rows)
    return Moved(added, known, **{ALONE[word].name: len(rows) for word, rows in new.items()})


def others(connection: Connection) -> Others:
    """Every row that belongs to no run, from a database of this or an older schema."""
    found: dict[str, Sequence[Any]] = {}
    for word, table in ALONE.items():
        if inspect(connection).has_table(table.name):
            query = select(*_columns(connection, table)).order_by(key_of(word))
            found[word] = connection.execute(query).mappings().all()
    return found


def key_of(word: str) -> Column[Any]:
    """The column that names the rows of a table of ``ALONE``."""
    key: Column[Any] = ALONE[word].c[f"{word}_id"]
    return key


def _new(connection: Connection, word: str, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Those of these rows that are not here."""
    here = set(connection.execute(select(key_of(word))).scalars())
    return [dict(row) for row in rows if row[key_of(word).name] not in here]


def without_id(row: Any) -> dict[str, Any]:
    """A row of a run's own, without the run's name."""
    return {name: value for name, value in row.items() if name != "run_id"}


def _is_behind(one: Record, other: Record) -> bool:
    """Whether it is the same run, which had not ended in ``one`` and came no further than there."""
    came, other_came = (CAME.get(each.run["status"], ENDED) for each in (one, other))
    known = one.run.keys() & other.run.keys()  # an older schema lacks some
    same = all(one.run[name] == other.run[name] for name in known.intersection(BEGINNING))
    return same and came < ENDED and came <= other_came


def _insert(connection: Connection, fresh: list[Record]) -> None:
    documents = [{"run_id": r.run_id, **row} for r in fresh for row in r.documents]
    traces = [{"run_id": r.run_id, **r.trace} for r in fresh if r.trace]
    for table, rows in ((RUNS, [r.run for r in fresh]), (DOCUMENTS, documents), (TRACES, traces)):
        names = table.columns.keys()  # one that an older schema lacks stays NULL
        if rows:
            whole = [{name: row.get(name) for name in names} for row in rows]
            connection.execute(insert(table), whole)


def _differences(mine: Record, theirs: Record) -> list[str]:
    """Columns and parts that differ.

    A column that is no public one may be NULL in one of them: an older schema, which had no such
    column, may have passed the run on.
    """
    shared = [name for name in theirs.run if name in mine.run and name not in MINE]
    pairs = [(name, mine.run[name], theirs.run[name]) for name in shared]
    names = [n for n, a, b in pairs if a != b and (n in PUBLIC or None not in (a, b))]
    if not _same_documents(mine.documents, theirs.documents):
        names.append("documents")
    return names if mine.trace == theirs.trace else [*names, "trace"]


def _same_documents(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    """Whether they are alike; what was asked in them may be missing in one, as above."""
    return len(mine) == len(theirs) and all(
        one.get(name) == other.get(name)
        or (name in ASKED and None in (one.get(name), other.get(name)))
        for one, other in zip(mine, theirs, strict=True)
        for name in OF_DOCUMENTS
        if name != "run_id"
    )


def _columns(connection: Connection, table: Table) -> list[Column[Any]]:
    """Those that a database of this or an older schema has."""
    here = {each["name"] for each in inspect(connection).get_columns(table.name)}
    return [column for column in table.columns if column.name in here]


def _rows(
    connection: Connection, table: Table, columns: list[Column[Any]], names: list[str]
) -> Sequence[Any]:
    order = [table.c.run_id, *([table.c.position] if "position" in table.c else [])]
    query = select(*columns).where(table.c.run_id.in_(names)).order_by(*order)
    return connection.execute(query).mappings().all()


def _batches(things: Iterable[T]) -> Iterator[list[T]]:
    source = iter(things)
    while batch := list(islice(source, BATCH)):
        yield batch
