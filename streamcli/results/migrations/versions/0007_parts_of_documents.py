"""Which part of each document is read, and whether all documents are one stream."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

ADDED: dict[str, Any] = {
    "tokens_per_document": sa.BigInteger(),
    "skip_tokens": sa.BigInteger(),
    "concatenate": sa.Boolean(),
}


def upgrade() -> None:
    """Add the columns."""
    for name, kind in ADDED.items():
        op.add_column("runs", sa.Column(name, kind))


def downgrade() -> None:
    """Take them away again."""
    for name in reversed(ADDED):
        op.drop_column("runs", name)
