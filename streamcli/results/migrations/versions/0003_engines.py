"""What making a decode step fast took, and the arms of benchmarks."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column and the table."""
    op.add_column("runs", sa.Column("compile_s", sa.Float()))
    op.create_table(
        "benchmarks",
        sa.Column("benchmark_id", sa.String(26), primary_key=True),
        *(_needed(name, sa.String()) for name in ("created_at", "bench", "arm")),
        *(_needed(name, sa.String()) for name in ("model", "method", "engine")),
        *(_needed(name, sa.BigInteger()) for name in ("n_sink", "window", "attended_keys")),
        *(_needed(name, sa.BigInteger()) for name in ("chunk_size", "batch_size")),
        *(_needed(name, sa.String()) for name in ("dtype", "device")),
        *(_needed(name, sa.BigInteger()) for name in ("threads", "seed", "rounds")),
        _needed("ms_per_token", sa.Float()),
        _needed("ms_per_token_low", sa.Float()),
        _needed("ms_per_token_high", sa.Float()),
        *(sa.Column(name, sa.Float()) for name in ("floor_ms", "read_gb_per_s", "gflops_per_s")),
        *(_needed(name, sa.Float()) for name in ("compile_s", "kv_mib")),
        _needed("latency_ms", sa.LargeBinary()),
        sa.Column("git_commit", sa.String()),
        sa.Column("git_dirty", sa.Boolean()),
        *(_needed(name, sa.String()) for name in ("versions", "host", "cpu")),
        sa.Column("gpu", sa.String()),
        sa.Column("load_1m", sa.Float()),
    )


def downgrade() -> None:
    """Take them away again."""
    op.drop_table("benchmarks")
    op.drop_column("runs", "compile_s")


def _needed(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)
