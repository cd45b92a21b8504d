"""Which softmax the attention of a model had, where it was not the model's own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

TABLES = ("runs", "probes")


def upgrade() -> None:
    """Add the column."""
    for name in TABLES:
        op.add_column(name, sa.Column("softmax_type", sa.String()))


def downgrade() -> None:
    """Take it away again."""
    for name in TABLES:
        op.drop_column(name, "softmax_type")
