"""The schema holds everything a run has, and the migrations make exactly that schema."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

from core.config import LATER, RunConfig
from core.environment import Environment
from core.errors import StreamError
from core.facts import RunFacts
from core.result import DocumentResult, RunResult
from streamcli.results import migrations
from streamcli.results.columns import COLUMNS, PUBLIC, VIEW
from streamcli.results.schema import DocumentRow, Run, Trace
from streamcli.results.store import Store
from tests.support.databases import sql
from tests.support.records import Begin

ROOT = Path(__file__).parents[3]
UNTIL_LOADED = "None only until the model is loaded, and a run begins after that"
EXCEPT = {
    "engine": "added to RunConfig when there were runs already, which may have failed before one",
    "pid": "added when there were runs already, which can't tell it",
    "max_tokens": UNTIL_LOADED,
    "chunk_size": UNTIL_LOADED,
    **dict.fromkeys(LATER, "added when there were runs already, which did without"),
    "param": "added when there were runs already; NULL where the method has none",
}


@pytest.mark.parametrize("source", [RunConfig, RunFacts, Environment, RunResult])
def test_every_field_has_its_column(source: Any) -> None:
    names = {field.name for field in fields(source)}
    names |= {n for n, kind in vars(source).items() if isinstance(kind, property) and n[0] != "_"}
    stored = {*Run.model_fields, *Trace.model_fields, "key", "window_size", "chunk"}
    stored |= {"spec", "mode_spec", "read"}  # of the registry
    missing = names - stored
    assert not missing, f"add to Run in schema.py, to columns.py and a migration: {missing}"


def test_every_field_of_a_document_has_its_column() -> None:
    mine = [field.name for field in fields(DocumentResult)]
    assert list(DocumentRow.model_fields) == ["run_id", "position", *mine]


@pytest.mark.parametrize("source", [RunConfig, RunFacts, Environment])
def test_a_column_may_be_null_where_its_field_may_be_none(source: Any) -> None:
    table = SQLModel.metadata.tables["runs"]
    for name, hint in get_type_hints(source).items():
        if name in EXCEPT:
            continue
        assert table.columns[name].nullable == (NoneType in get_args(hint)), name


def test_schema_and_display_columns_agree_in_order() -> None:
    assert list(Run.model_fields) == list(COLUMNS)
    assert " ".join(PUBLIC) == (
        "run_id status model dataset method mode n_sink window attended_keys dtype device engine "
        "threads scored_tokens ppl nll_nats word_ppl bits_per_byte total_s ms_per_token "
        "ms_per_token_p50 ms_per_token_p95 tokens_per_s kv_mib peak_mem_mib git_commit created_at"
    )


def test_migrations_make_exactly_the_schema(where: str) -> None:
    with Store.open(where).engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, SQLModel.metadata) == []
        columns = inspect(connection).get_columns("runs")
    assert [each["name"] for each in columns] == list(Run.model_fields)


def test_a_revision_is_named_as_its_file_and_follows_the_one_before() -> None:
    before = None
    for revision in migrations.known():
        (path,) = (migrations.FOLDER / "versions").glob(f"{revision}_*.py")
        code = path.read_text()
        assert f'revision = "{revision}"' in code
        assert f"down_revision = {before!r}".replace("'", '"') in code
        before = revision


def test_only_four_statuses_are_taken(store: Store, begin: Begin) -> None:
    begin(store)
    with pytest.raises(IntegrityError):
        sql(store, "UPDATE runs SET status = 'finished'")


def test_the_view_shows_the_public_columns_of_finished_runs(
    store: Store, begin: Begin, result: RunResult
) -> None:
    done = begin(store)
    store.finish(done, result)
    store.fail(begin(store, 1), "no")
    (row,) = sql(store, "SELECT * FROM results")
    assert row._fields == VIEW
    assert (row.run_id, row.ppl) == (done, result.ppl)


def test_the_view_can_be_queried_by_hand(file: Path, begin: Begin, result: RunResult) -> None:
    store = Store.open(file)
    store.finish(begin(store), result)
    connection = sqlite3.connect(file)
    query = "SELECT window, ms_per_token_p50, created_at FROM results WHERE created_at > '2020'"
    (row,) = connection.execute(query).fetchall()
    connection.close()
    assert row[:2] == (1020, 1.25)


@pytest.mark.slow
def test_opening_a_current_database_looks_twice_and_imports_no_alembic(file: Path) -> None:
    code = f"""
import sys
from sqlalchemy import Engine, event
from streamcli.results.store import Store
asked = []
event.listen(Engine, "before_cursor_execute", lambda *of: asked.append(of[2].split(maxsplit=1)[0]))
Store.open({str(file)!r})
heavy = {{"alembic", "torch", "pandas"}} & set(sys.modules)
assert not heavy, heavy
print(*asked)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["SELECT", "SELECT"], done.stderr


def test_columns_import_nothing_heavy() -> None:
    code = (
        "import sys, streamcli.results.columns;"
        "print({'sqlalchemy', 'sqlmodel', 'numpy', 'pandas', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def _next_version(folder: Path, upgrade: str) -> Path:
    """A copy of the migrations with one more step."""
    shutil.copytree(migrations.FOLDER, folder)
    last = migrations.known()[-1]
    number = f"{int(last) + 1:04}"
    lines = ["from alembic import op", "import sqlalchemy as sa", f'revision = "{number}"']
    lines += [f'down_revision = "{last}"', "def upgrade():"]
    lines += [f"    {each}" for each in upgrade.split(";")]
    (folder / "versions" / f"{number}_next.py").write_text("\n".join(lines))
    return folder


def test_an_older_database_is_brought_up_to_date_and_keeps_its_runs(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Begin
) -> None:
    run_id = begin(Store.open(where))
    step = 'op.add_column("runs", sa.Column("more", sa.Float()))'
    monkeypatch.setattr(migrations, "FOLDER", _next_version(tmp_path / "50% more", step))
    assert sql(Store.open(where), "SELECT more FROM runs") == [(None,)]
    assert Store.open(where).get("latest").run_id == run_id


def test_a_migration_that_fails_changes_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # as a backup would be
    connection.close()
    before = file.read_bytes()
    step = 'op.add_column("runs", sa.Column("more", sa.Float()));op.drop_table("no_such")'
    monkeypatch.setattr(migrations, "FOLDER", _next_version(tmp_path / "next", step))
    with pytest.raises(StreamError, match=re.escape(str(file))) as caught:
        Store.open(file)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]
