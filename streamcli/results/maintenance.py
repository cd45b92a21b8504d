"""The database itself: how much it holds, whether it is sound, and room made in it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, inspect, select

from core.errors import StreamError
from core.result import perplexity
from streamcli.results import addresses, kinds, schema, transfer
from streamcli.results.columns import NAMED, VIEW, moment
from streamcli.results.failures import errors_in_one_line
from streamcli.results.schema import DOCUMENTS, RUNS, TRACES
from streamcli.results.store import Store
from streamcli.results.transfer import ALONE, Record

COUNTED = ("status", *NAMED)
TABLES = (RUNS.name, DOCUMENTS.name, TRACES.name, *(each.name for each in ALONE.values()))
NLL_ERROR = 1e-6  # of a sum of float32 numbers, relative
SUM_ERROR = 1e-9  # of a sum of float64 numbers, relative


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: in one run, or in the database where ``run_id`` is None."""

    run_id: str | None
    what: str


def stats(store: Store) -> dict[str, Any]:
    """Runs in all and by the values of ``COUNTED`` (most first), bytes, and first and last time."""
    with store.transaction() as connection:
        begun = RUNS.c.created_at
        query = select(
            func.count(), func.min(begun), func.max(begun), func.sum(RUNS.c.scored_tokens)
        )
        number, oldest, newest, scored = connection.execute(query).one()
        found: dict[str, Any] = {"place": store.place, "size_bytes": _size(store, connection)}
        found |= {"runs": number, "scored_tokens": int(scored or 0)}
        found |= {"oldest": oldest, "newest": newest}
        for name in COUNTED:
            count, column = func.count(), RUNS.c[name]
            rows = select(column, count).group_by(column).order_by(count.desc(), column)
            found[name] = {value: int(many) for value, many in connection.execute(rows)}
    return found


def vacuum(store: Store) -> tuple[int, int]:
    """Give back the room of what was deleted; bytes before and after.

    Raises:
        StreamError: Another process kept the database locked.
    """
    with store.transaction() as connection:
        before = _size(store, connection)
    with errors_in_one_line(store.place), closing(store.engine.raw_connection()) as raw:
        driver: Any = raw.driver_connection
        if addresses.file_of(store.engine.url):
            statements = ["VACUUM", "PRAGMA optimize", "PRAGMA wal_checkpoint(TRUNCATE)"]
        else:
            driver.autocommit = True
            statements = [f"VACUUM (FULL, ANALYZE) {name}" for name in TABLES]
        for statement in statements:
            driver.execute(statement).close()
    with store.transaction() as connection:
        return before, _size(store, connection)


def check(store: Store) -> list[Finding]:
    """Everything that is wrong: the file, the schema, the view, and each run against its parts."""
    found = [Finding(None, what) for what in _layout(store)]
    with store.transaction() as connection:
        found += [Finding(None, what) for what in _whole(store, connection)]
        found += _strays(connection)
        odd = list(kinds.misfits(connection))
        found += [Finding(each.run_id, f"holds {each.words}") for each in odd]
        apart = {each.run_id for each in odd}
        names = connection.execute(select(RUNS.c.run_id).order_by(RUNS.c.run_id)).scalars().all()
        whole = (name for name in names if name not in apart)  # the rest can't be reckoned with
        for record in transfer.records(connection, whole):
            found += [Finding(record.run_id, what) for what in _record(record)]
    return found


def _size(store: Store, connection: Connection) -> int:
    if file := addresses.file_of(store.engine.url):
        parts = (Path(f"{file}{suffix}") for suffix in ("", "-wal"))
        return sum(part.stat().st_size for part in parts if part.exists())
    sizes = (func.pg_total_relation_size(name) for name in TABLES)
    return sum(connection.execute(select(*sizes)).one())


def _layout(store: Store) -> Iterator[str]:
    """What the tables and the view lack; tables and columns of the owner's own are no fault."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with store.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        for change in compare_metadata(context, RUNS.metadata):
            kind, *things = change[0] if isinstance(change, list) else change
            if not str(kind).startswith("remove"):
                named = [getattr(thing, "name", thing) for thing in things]
                words = " ".join(each for each in named if isinstance(each, str))
                yield f"the schema needs: {str(kind).replace('_', ' ')} {words}"
        inspector = inspect(connection)
        if "results" not in inspector.get_view_names():
            yield "the view results is missing"
        elif [column["name"] for column in inspector.get_columns("results")] != list(VIEW):
            yield f"the view results has other columns than {', '.join(VIEW)}"


def _whole(store: Store, connection: Connection) -> Iterator[str]:
    """What SQLite itself finds; PostgreSQL checks its pages and keys as it goes."""
    if not addresses.file_of(store.engine.url):
        return
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if line != "ok":
            yield f"integrity check: {' '.join(str(line).split())}"


def _strays(connection: Connection) -> Iterator[Finding]:
    """Documents and traces whose run is gone."""
    for table in (DOCUMENTS, TRACES):
        absent = ~select(RUNS.c.run_id).where(RUNS.c.run_id == table.c.run_id).exists()
        query = select(table.c.run_id).distinct().where(absent).order_by(table.c.run_id)
        for run_id in connection.execute(query).scalars():
            yield Finding(run_id, f"is gone, but rows of it are left in {table.name}")


def _record(record: Record) -> Iterator[str]:
    """What does not fit in one run; every figure that can be recomputed is."""
    run, documents = record.run, record.documents
    for name in filter(run.get, ("created_at", "finished_at")):
        try:
            moment(run[name])
        except StreamError:
            yield f"{name} is {run[name]!r}, which is no time"
    if run["status"] != "done":
        if documents or record.trace:
            yield f"is {run['status']}, yet has documents or a trace"
        return
    if len(documents) != run["documents"]:
        yield f"has {len(documents)} of its {run['documents']} documents"
        return
    lengths = [row["scored_tokens"] for row in documents]
    if sum(lengths) != run["scored_tokens"]:
        yield f"its documents have {sum(lengths)} tokens, not {run['scored_tokens']}"
    total = _sum(row["nll_nats"] for row in documents)
    if not _near(total / max(1, run["scored_tokens"]), run["nll_nats"], SUM_ERROR):
        yield "nll_nats is not the mean over its documents"
    nats = run["nll_nats"]
    if nats is not None and not _near(perplexity(nats), run["ppl"], SUM_ERROR):
        yield "ppl is not exp(nll_nats)"
    if record.trace is None:
        yield "has no trace"
        return
    try:
        nll = schema.unpack(record.trace["nll"]).astype(float)
        schema.unpack(record.trace["latency_ms"])
    except (zlib.error, ValueError):
        yield "its trace is damaged"
        return
    if len(nll) != run["scored_tokens"]:
        yield f"its trace has {len(nll)} tokens, not {run['scored_tokens']}"
        return
    parts = np.split(nll, np.cumsum(lengths)[:-1])
    for row, part in zip(documents, parts, strict=True):
        sum_nats, size = float(part.sum()), float(np.abs(part).sum())
        if not _near(sum_nats, row["nll_nats"], NLL_ERROR, size):
            yield f"document {row['position']}: its trace sums to {sum_nats:.6g} nats, not to " + (
                f"{row['nll_nats']:.6g}" if row["nll_nats"] is not None else "no number"
            )


def _near(found: float, kept: float | None, error: float, size: float | None = None) -> bool:
    """Whether they are equal but for rounding; NaN is kept as NULL."""
    if kept is None or math.isnan(found):
        return kept is None and math.isnan(found)
    if math.isinf(found) or math.isinf(kept):
        return found == kept
    return abs(found - kept) <= error * max(1e-3, abs(found) if size is None else size)


def _sum(nats: Iterator[float | None]) -> float:
    return sum(math.nan if each is None else each for each in nats)
