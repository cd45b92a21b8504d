"""The process of a run, told apart from every other one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column."""
    op.add_column("runs", sa.Column("process", sa.String()))


def downgrade() -> None:
    """Take it away again."""
    op.drop_column("runs", "process")
