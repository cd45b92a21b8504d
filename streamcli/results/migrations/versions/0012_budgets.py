"""How many MiB of keys and values a run was asked to keep to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column."""
    op.add_column("runs", sa.Column("budget_mib", sa.Float()))


def downgrade() -> None:
    """Take it away again."""
    op.drop_column("runs", "budget_mib")
