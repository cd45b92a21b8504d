"""Which sweep a run belongs to, what its owner says of it, and which process ran it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

LATEST = ["status", "config_key", "weights_sha256", "tokens_sha256", "host", "run_id"]
ADDED = "repeat, sweep, tags, comment"
VIEW = f"""
CREATE VIEW results AS SELECT
run_id, status, model, dataset, method, mode, n_sink, "window", attended_keys, dtype, device,
engine, threads, scored_tokens, ppl, nll_nats, word_ppl, bits_per_byte, total_s, ms_per_token,
ms_per_token_p50, ms_per_token_p95, tokens_per_s, kv_mib, peak_mem_mib, git_commit, created_at,
{ADDED}
FROM runs WHERE status = 'done'
"""


def upgrade() -> None:
    """Add the columns; the view shows the last three."""
    op.execute("DROP VIEW results")
    op.add_column("runs", sa.Column("pid", sa.BigInteger()))
    for name in ("sweep", "tags", "comment"):
        op.add_column("runs", sa.Column(name, sa.String()))
    op.create_index("ix_runs_sweep", "runs", ["sweep"])
    op.create_index("ix_runs_latest", "runs", LATEST)
    op.execute(VIEW)


def downgrade() -> None:
    """Take them away again."""
    op.execute("DROP VIEW results")
    for name in ("ix_runs_latest", "ix_runs_sweep"):
        op.drop_index(name, "runs")
    for name in ("comment", "tags", "sweep", "pid"):
        op.drop_column("runs", name)
    op.execute(VIEW.replace(f",\n{ADDED}", ""))
