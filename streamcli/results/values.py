"""From what a run was given and found to the values of its columns, by equal names.

A new field of ``RunResult`` needs a column of its name in the schema and nothing here. Only what
is told otherwise in a column than in its source is spelled out below.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import numpy as np

from core.config import RunConfig
from core.environment import Environment
from core.errors import UsageError
from core.facts import RunFacts
from core.result import RunResult
from streamcli.results import ulid
from streamcli.results.schema import DocumentRow, Run, Trace, pack

LARGEST = 2**63


def begun(config: RunConfig, facts: RunFacts, environment: Environment) -> dict[str, Any]:
    """What is known when a run begins. The budget is NULL where there is none, or none yet."""
    bounded = config.spec.has_budget and config.window is not None
    named = _alike(config) | _alike(facts) | _alike(environment)
    return named | {
        "config_key": config.key,
        "attended_keys": config.attended_keys if bounded else None,
        "param": json.dumps(dict(config.param)) if config.param else None,
    }


def run(
    config: RunConfig,
    facts: RunFacts,
    environment: Environment,
    repeat: int,
    sweep: str | None = None,
) -> Run:
    """The row of a run that begins now, in a sweep or alone."""
    known = begun(config, facts, environment) | {"repeat": repeat, "sweep": sweep}
    return Run(run_id=ulid.new(), status="running", created_at=now(), **known)


def finish(run: Run, result: RunResult) -> None:
    """Make the row of a run one that is done."""
    run.sqlmodel_update(found(result))
    run.status, run.finished_at, run.error = "done", now(), None
    if (run.attended_keys or 0) < result.attended_keys_max:  # no budget, or not kept to
        run.attended_keys = result.attended_keys_max


def found(result: RunResult) -> dict[str, Any]:
    """What is known when a run is done."""
    answers = [[each.distance, int(each.right)] for each in result.answers]
    counted = {
        "documents": len(result.documents),
        "notes": plain("notes", "\n".join(result.notes)),
        "answers": json.dumps(answers, separators=(",", ":")) if answers else None,
    }
    return _alike(result, properties=True) | counted


def rows(run_id: str, result: RunResult) -> list[DocumentRow | Trace]:
    """The documents and the trace of a run that is done."""
    documents = [
        DocumentRow(run_id=run_id, position=position, **_alike(document, row=DocumentRow))
        for position, document in enumerate(result.documents)
    ]
    trace = Trace(run_id=run_id, nll=pack(result.nll), latency_ms=pack(result.latency_ms))
    return [*documents, trace]


def plain(name: str, value: Any) -> Any:
    """A value as every database takes it.

    NaN becomes NULL (SQLite has no NaN), infinity stays, NumPy's numbers become Python's, and text
    loses what PostgreSQL (NUL) or UTF-8 (a file name's stray bytes) can't hold.

    Raises:
        UsageError: An integer beyond 64 bits.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()
    if isinstance(value, int) and not -LARGEST <= value < LARGEST:
        raise UsageError(f"{name} is {value}: no more than 64 bits can be recorded.")
    return value


def now() -> str:
    """The time in UTC as the tables keep it."""
    return stamp(datetime.now(UTC))


def stamp(moment: datetime) -> str:
    """A time as the tables keep it; one without a zone is taken to be UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"{aware.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _alike(
    source: Any, *, row: type[Run] | type[DocumentRow] = Run, properties: bool = False
) -> dict[str, Any]:
    names = {field.name for field in fields(source)}
    if properties:
        names |= {name for name, kind in vars(type(source)).items() if isinstance(kind, property)}
    return {
        name: plain(name, getattr(source, name))
        for name in row.model_fields
        if name in names and name not in ("documents", "notes", "param", "answers")
    }
