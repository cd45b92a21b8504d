"""What else of a model a run depends on, and what was found out about its layers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ADDED = ("files_sha256", "layers", "proof")
BEFORE = ["status", "config_key", "weights_sha256", "tokens_sha256", "host", "run_id"]
AFTER = [*BEFORE[:3], "files_sha256", *BEFORE[3:]]


def upgrade() -> None:
    """Add the columns; repeats must share the first of them."""
    for name in ADDED:
        op.add_column("runs", sa.Column(name, sa.String()))
    op.drop_index("ix_runs_latest", "runs")
    op.create_index("ix_runs_latest", "runs", AFTER)


def downgrade() -> None:
    """Take them away again."""
    op.drop_index("ix_runs_latest", "runs")
    for name in reversed(ADDED):
        op.drop_column("runs", name)
    op.create_index("ix_runs_latest", "runs", BEFORE)
