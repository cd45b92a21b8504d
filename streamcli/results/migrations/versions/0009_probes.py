"""What was found of a model's attention."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "probes",
        sa.Column("probe_id", sa.String(26), primary_key=True),
        *(_needed(name, sa.String()) for name in ("created_at", "model", "dataset")),
        *(_needed(name, sa.BigInteger()) for name in ("n_sink", "window", "attended_keys")),
        _needed("threshold", sa.Float()),
        *(_needed(name, sa.String()) for name in ("dtype", "device")),
        *(_needed(name, sa.BigInteger()) for name in ("threads", "tokens", "pieces")),
        *(_needed(name, sa.BigInteger()) for name in ("scored_tokens", "n_layers", "n_heads")),
        *(_needed(name, sa.Float()) for name in ("sink_rate", "mass_before", "mass_after")),
        _needed("suffices", sa.BigInteger()),
        *(_needed(name, sa.String()) for name in ("perplexities", "sinks")),
        *(_needed(name, sa.LargeBinary()) for name in ("before", "after")),
        *(sa.Column(name, sa.String()) for name in ("model_revision", "weights_sha256")),
        *(sa.Column(name, sa.String()) for name in ("tokens_sha256", "git_commit")),
        sa.Column("git_dirty", sa.Boolean()),
        *(_needed(name, sa.String()) for name in ("versions", "host", "cpu")),
        sa.Column("gpu", sa.String()),
        sa.Column("load_1m", sa.Float()),
    )


def downgrade() -> None:
    """Take it away again."""
    op.drop_table("probes")


def _needed(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)
