"""Whether what a database holds is of the kind that its column takes.

PostgreSQL sees to that itself. SQLite keeps whatever another program writes, text in a column of
numbers too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    LargeBinary,
    String,
    Table,
    func,
    inspect,
    literal_column,
    or_,
    select,
)
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString

from core.errors import StreamError


class Kind(NamedTuple):
    """What a column takes: as Python has it, as SQLite calls it, and in words."""

    types: frozenset[type]
    stored: tuple[str, ...]
    words: str


KINDS: dict[Any, Kind] = {
    Boolean: Kind(frozenset({bool}), ("integer",), "no yes or no"),
    Integer: Kind(frozenset({int}), ("integer",), "no whole number"),
    Float: Kind(frozenset({float, int}), ("real", "integer"), "no number"),
    LargeBinary: Kind(frozenset({bytes}), ("blob",), "no packed numbers"),
    (String, AutoString): Kind(frozenset({str}), ("text",), "no text"),
}
NULL = Kind(frozenset({type(None)}), ("null",), "")


class Misfit(NamedTuple):
    """A cell of another kind than its column takes: where it is, and what it holds."""

    table: str
    row: str
    column: str
    value: Any
    kind: Kind
    run_id: str | None

    @property
    def words(self) -> str:
        """What is wrong, in words."""
        return (
            f"{str(self.value)[:40]!r} as {self.column} of {self.row} in the table {self.table}, "
            f"which is {self.kind.words}"
        )


def fits(column: Column[Any], value: Any) -> bool:
    """Whether a column takes a value."""
    if value is None:
        return bool(column.nullable)
    kind = _kind(column)
    return kind is None or type(value) in kind.types


def check(
    connection: Connection,
    place: str,
    columns: Iterable[ColumnElement[Any]],
    rows: Sequence[Sequence[Any]],
) -> None:
    """Refuse rows with a cell of another kind than its column takes.

    Args:
        connection: What they were read by.
        place: How messages name the database.
        columns: What was read.
        rows: A row each.

    Raises:
        StreamError: There is one.
    """
    for column, cells in zip(columns, zip(*rows, strict=True), strict=False):
        kind = _kind(column)
        if kind and not set(map(type, cells)) <= kind.types | NULL.types:
            refuse(connection, place)


def refuse(connection: Connection, place: str) -> None:
    """Refuse a database with a cell of another kind than its column takes.

    Raises:
        StreamError: There is one.
    """
    for each in misfits(connection):
        raise StreamError(f"{place} holds {each.words}: put back a copy, or correct that row.")


def misfits(connection: Connection) -> Iterator[Misfit]:
    """Every cell of our tables that is of another kind than its column takes."""
    if connection.dialect.name != "sqlite":
        return
    there = inspect(connection)
    for table in SQLModel.metadata.sorted_tables:
        if there.has_table(table.name):
            known = {each["name"] for each in there.get_columns(table.name)}
            yield from _of_table(connection, table, [c for c in table.c if c.name in known])


def _of_table(
    connection: Connection, table: Table, columns: Sequence[Column[Any]]
) -> Iterator[Misfit]:
    kinds = [(column, kind) for column in columns if (kind := _kind(column))]
    odd = [func.typeof(c).not_in((*kind.stored, *NULL.stored)) for c, kind in kinds]
    key: list[ColumnElement[Any]] = [literal_column(f'"{c.name}"') for c in table.primary_key]
    raw: list[ColumnElement[Any]] = [literal_column(f'"{column.name}"') for column, _ in kinds]
    stored = [func.typeof(column) for column, _ in kinds]
    query = select(*key, *raw, *stored).select_from(table).where(or_(*odd))
    for row in connection.execute(query):
        name = " ".join(map(str, row[: len(key)]))
        values, found = row[len(key) :][: len(kinds)], row[len(key) + len(kinds) :]
        for (column, kind), value, how in zip(kinds, values, found, strict=True):
            if how not in (*kind.stored, *NULL.stored):
                run_id = str(row[0]) if "run_id" in table.c else None  # the first of the key
                yield Misfit(table.name, name, column.name, value, kind, run_id)


def _kind(column: ColumnElement[Any]) -> Kind | None:
    return next((kind for of, kind in KINDS.items() if isinstance(column.type, of)), None)
