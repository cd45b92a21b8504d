"""How long a run waited for a processor that others had, so that its times are too long."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the column."""
    op.add_column("runs", sa.Column("waited", sa.Float()))


def downgrade() -> None:
    """Take it away again."""
    op.drop_column("runs", "waited")
