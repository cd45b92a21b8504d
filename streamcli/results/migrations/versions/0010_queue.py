"""The queue of sweeps that workers share."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "queue",
        sa.Column("group_id", sa.String(26), primary_key=True),
        *(_needed(name, sa.String()) for name in ("state", "sweep", "created_at", "arms", "keys")),
        _needed("repeats", sa.BigInteger()),
        *(_needed(name, sa.Boolean()) for name in ("within_trained", "explicit", "force")),
        _needed("ended", sa.String()),
        _needed("deaths", sa.BigInteger()),
        *(sa.Column(name, sa.String()) for name in ("worker", "host", "process")),
        _needed("beat", sa.BigInteger()),
        sa.Column("seen_at", sa.String()),
        sa.CheckConstraint(
            "state IN ('waiting', 'claimed', 'held', 'done')", name="ck_queue_state"
        ),
    )
    for name in ("state", "sweep"):
        op.create_index(f"ix_queue_{name}", "queue", [name])


def downgrade() -> None:
    """Take it away again."""
    op.drop_table("queue")


def _needed(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)
