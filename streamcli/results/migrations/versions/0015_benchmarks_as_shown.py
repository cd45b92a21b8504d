"""Benchmarks keep what their table showed, so that it can be shown again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

ADDED = ("shown", "about")


def upgrade() -> None:
    """Add the columns."""
    for name in ADDED:
        op.add_column("benchmarks", sa.Column(name, sa.String()))


def downgrade() -> None:
    """Take them away again."""
    for name in reversed(ADDED):
        op.drop_column("benchmarks", name)
