"""What a benchmark's step takes beside the cache, and how long a stream or prompt it had."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

ADDED: dict[str, Any] = {"step_mib": sa.Float(), "length": sa.BigInteger()}


def upgrade() -> None:
    """Add the columns."""
    for name, kind in ADDED.items():
        op.add_column("benchmarks", sa.Column(name, kind))


def downgrade() -> None:
    """Take them away again."""
    for name in reversed(ADDED):
        op.drop_column("benchmarks", name)
