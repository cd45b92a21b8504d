"""The first schema: runs, their documents and traces, and the view ``results``."""

from __future__ import annotations

from functools import partial

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

text = partial(sa.Column, type_=sa.String())
whole = partial(sa.Column, type_=sa.BigInteger())
real = partial(sa.Column, type_=sa.Float())
flag = partial(sa.Column, type_=sa.Boolean())

# The view is a promise to those who query by hand: a later migration may add to it, no more.
VIEW = """
CREATE VIEW results AS SELECT
run_id, status, model, dataset, method, mode, n_sink, "window", attended_keys, dtype, device,
engine, threads, scored_tokens, ppl, nll_nats, word_ppl, bits_per_byte, total_s, ms_per_token,
ms_per_token_p50, ms_per_token_p95, tokens_per_s, kv_mib, peak_mem_mib, git_commit, created_at
FROM runs WHERE status = 'done'
"""


def upgrade() -> None:
    """Make everything."""
    _runs()
    for column in ("status", "created_at", "config_key", "tokens_sha256"):
        op.create_index(f"ix_runs_{column}", "runs", [column])
    op.create_table(
        "documents",
        _owner(),
        sa.Column("position", sa.Integer(), primary_key=True),
        text("name", nullable=False),
        whole("scored_tokens", nullable=False),
        real("nll_nats"),
        whole("words", nullable=False),
        whole("utf8_bytes", nullable=False),
    )
    op.create_table(
        "traces",
        _owner(),
        sa.Column("nll", sa.LargeBinary(), nullable=False),
        sa.Column("latency_ms", sa.LargeBinary(), nullable=False),
    )
    op.execute(VIEW)


def downgrade() -> None:
    """Drop everything."""
    op.execute("DROP VIEW results")
    for table in ("traces", "documents", "runs"):
        op.drop_table(table)


def _owner() -> sa.Column[str]:
    key = sa.ForeignKey("runs.run_id", ondelete="CASCADE")
    return sa.Column("run_id", sa.String(), key, primary_key=True)


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(26), primary_key=True),
        text("status", nullable=False),
        text("model", nullable=False),
        text("dataset", nullable=False),
        text("method", nullable=False),
        text("mode", nullable=False),
        whole("n_sink", nullable=False),
        whole("window"),
        whole("attended_keys"),
        text("dtype", nullable=False),
        text("device", nullable=False),
        text("engine"),
        whole("threads"),
        whole("scored_tokens"),
        real("ppl"),
        real("nll_nats"),
        real("word_ppl"),
        real("bits_per_byte"),
        real("total_s"),
        real("ms_per_token"),
        real("ms_per_token_p50"),
        real("ms_per_token_p95"),
        real("tokens_per_s"),
        real("kv_mib"),
        real("peak_mem_mib"),
        text("git_commit"),
        text("created_at", nullable=False),
        text("finished_at"),
        text("error"),
        whole("repeat", nullable=False),
        text("config_key", nullable=False),
        whole("max_tokens", nullable=False),
        whole("timed_tokens"),
        whole("context_tokens"),
        whole("evict_every"),
        whole("chunk_size", nullable=False),
        whole("batch_size", nullable=False),
        whole("seed", nullable=False),
        text("source", nullable=False),
        flag("trust", nullable=False),
        text("requested_model", nullable=False),
        text("requested_dataset", nullable=False),
        text("model_revision"),
        text("weights_sha256"),
        whole("parameters"),
        whole("trained_length"),
        text("dataset_form"),
        text("dataset_revision"),
        text("tokens_sha256"),
        text("bos"),
        whole("documents"),
        whole("attended_keys_min"),
        real("attended_keys_mean"),
        whole("attended_keys_max"),
        whole("keys_before"),
        whole("keys_after"),
        text("positions"),
        text("eviction"),
        real("byte_ppl"),
        flag("total_is_estimate"),
        real("prefill_s"),
        real("elapsed_s"),
        whole("warmup_tokens"),
        real("ms_per_token_p99"),
        real("time_growth"),
        real("kv_formula_mib"),
        text("notes"),
        flag("git_dirty"),
        text("workdir_commit"),
        flag("workdir_dirty"),
        text("versions", nullable=False),
        text("python", nullable=False),
        text("host", nullable=False),
        text("cpu", nullable=False),
        text("gpu"),
        real("load_1m"),
        sa.CheckConstraint(
            "status IN ('running', 'done', 'failed', 'interrupted')", name="ck_runs_status"
        ),
    )
