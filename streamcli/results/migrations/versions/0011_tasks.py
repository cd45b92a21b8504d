"""What a run made of the questions in its text, where it has some."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

ADDED: dict[str, Any] = {
    "questions": sa.BigInteger(),
    "accuracy": sa.Float(),
    "accuracy_low": sa.Float(),
    "accuracy_high": sa.Float(),
    "chance": sa.Float(),
    "answers": sa.String(),
}


def upgrade() -> None:
    """Add the columns."""
    for name, kind in ADDED.items():
        op.add_column("runs", sa.Column(name, kind))


def downgrade() -> None:
    """Take them away again."""
    for name in reversed(ADDED):
        op.drop_column("runs", name)
