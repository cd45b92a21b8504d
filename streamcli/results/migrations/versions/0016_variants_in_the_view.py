"""The view ``results`` shows what tells alike runs apart, and accuracies."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"

FIRST = """
run_id, status, model, dataset, method, mode, n_sink, "window", attended_keys, dtype, device,
engine, threads, scored_tokens, ppl, nll_nats, word_ppl, bits_per_byte, total_s, ms_per_token,
ms_per_token_p50, ms_per_token_p95, tokens_per_s, kv_mib, peak_mem_mib, git_commit, created_at,
"""
BEFORE = "repeat, sweep, tags, comment"
AFTER = """
repeat, evict_every, batch_size, documents, sweep, tags, comment, param, accuracy, budget_mib,
softmax_type
"""


def upgrade() -> None:
    """Make the view anew."""
    _make(AFTER)


def downgrade() -> None:
    """Make it as it was."""
    _make(BEFORE)


def _make(columns: str) -> None:
    op.execute("DROP VIEW results")
    op.execute(f"CREATE VIEW results AS SELECT {FIRST} {columns} FROM runs WHERE status = 'done'")
