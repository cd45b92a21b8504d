"""How many questions each document asked, and how many were answered rightly."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

ADDED = ("questions", "right_answers")


def upgrade() -> None:
    """Add the columns."""
    for name in ADDED:
        op.add_column("documents", sa.Column(name, sa.BigInteger()))


def downgrade() -> None:
    """Take them away again."""
    for name in reversed(ADDED):
        op.drop_column("documents", name)
