"""Run by Alembic, never imported: migrates over the connection that ``upgrade`` hands it."""

from __future__ import annotations

from alembic import context

from streamcli.results import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.Run.metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
