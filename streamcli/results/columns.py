"""The one list of columns: title, unit, form and meaning of each, in the order of every export.

Tables, exports, sort keys and the help all read it. Imports nothing heavy.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

Form = Literal[
    "text",
    "sha",
    "flag",
    "plain",
    "count",
    "fixed",
    "significant",
    "perplexity",
    "percent",
    "ratio",
    "exponent",
]
LEFT = ("text", "sha", "flag")
SHA_SHOWN = 10
LARGE_PERPLEXITY = 1000


@dataclass(frozen=True)
class Column:
    """One column of the runs.

    Attributes:
        name: Its name in the database, in JSON and CSV, and as a sort key.
        title: Its heading in a table.
        form: How a value is written, see ``format_value``.
        help: What it means, one sentence without a full stop.
        unit: Unit, empty where there is none.
        digits: Decimals of ``fixed``, significant digits of ``significant``.
    """

    name: str
    title: str
    form: Form
    help: str
    unit: str = ""
    digits: int = 3

    @property
    def heading(self) -> str:
        """Its title with its unit, where that is not tokens, which titles tell themselves."""
        return self.title if self.unit in ("", "tokens") else f"{self.title} ({self.unit})"

    @property
    def align(self) -> Literal["left", "right"]:
        """Where a table sets it: numbers to the right."""
        return "left" if self.form in LEFT else "right"


_LIST = (
    Column("run_id", "run", "text", "Name of the run, a ULID; sorts by time"),
    Column("status", "status", "text", "running, done, failed or interrupted"),
    Column("model", "model", "text", "Model that really ran"),
    Column("dataset", "dataset", "text", "Text that was really read"),
    Column("method", "method", "text", "Cache method"),
    Column("mode", "mode", "text", "Form of evaluation"),
    Column("n_sink", "sinks", "count", "S, first tokens that are kept for good", "tokens"),
    Column("window", "window", "count", "W, last tokens that are kept", "tokens"),
    Column("attended_keys", "keys", "count", "Keys a query sees at most: S + W + 1 where evicted"),
    Column("dtype", "dtype", "text", "Number format of weights and cache"),
    Column("device", "device", "text", "Device that computed"),
    Column("engine", "engine", "text", "How a decode step was executed"),
    Column("threads", "threads", "count", "CPU threads"),
    Column("scored_tokens", "scored", "count", "Tokens that were scored", "tokens"),
    Column("ppl", "ppl", "perplexity", "Token perplexity, exp of the mean over all scored tokens"),
    Column("nll_nats", "nll", "fixed", "Mean negative log-likelihood of a token", "nats", 4),
    Column("word_ppl", "word ppl", "perplexity", "Perplexity a white-space separated word"),
    Column("bits_per_byte", "bits/byte", "fixed", "Bits a UTF-8 byte of the text", "bits", 4),
    Column("total_s", "total", "significant", "Time for the whole stream in this mode", "s"),
    Column("ms_per_token", "time a token", "significant", "Mean time a token", "ms"),
    Column("ms_per_token_p50", "step, p50", "significant", "Median time of a decode step", "ms"),
    Column("ms_per_token_p95", "step, p95", "significant", "Their 95th percentile", "ms"),
    Column("tokens_per_s", "speed", "significant", "Scored tokens over the total time", "tokens/s"),
    Column("kv_mib", "KV", "significant", "Measured size of the keys and values held", "MiB"),
    Column("peak_mem_mib", "peak", "significant", "Peak memory during the run", "MiB"),
    Column("git_commit", "commit", "sha", "Commit of streamcli that ran"),
    Column("created_at", "began", "text", "When the run began, UTC"),
    # The public columns end here.
    Column("finished_at", "ended", "text", "When the run ended, UTC"),
    Column("error", "error", "text", "Why the run failed"),
    Column("repeat", "repeat", "plain", "Number of this repeat, from 0"),
    Column("config_key", "config", "text", "Name of the configuration; equal ones, equal keys"),
    Column("max_tokens", "max tokens", "count", "Most tokens to read", "tokens"),
    Column("timed_tokens", "timed", "count", "Decode steps to time, then scaled up", "tokens"),
    Column("context_tokens", "context", "count", "Tokens read at once before the rest", "tokens"),
    Column("evict_every", "evict every", "count", "Steps between evictions", "tokens"),
    Column("chunk_size", "chunk", "count", "Tokens a chunk in chunked mode", "tokens"),
    Column("batch_size", "batch", "count", "Streams side by side"),
    Column("seed", "seed", "plain", "Seed of every random choice"),
    Column("source", "source", "text", "Where model and text might come from"),
    Column("trust", "trust", "flag", "Whether the model's own code might run"),
    Column("requested_model", "model asked", "text", "Model that was asked for"),
    Column("requested_dataset", "dataset asked", "text", "Text that was asked for"),
    Column("model_revision", "model rev", "sha", "Commit or version of the model"),
    Column("weights_sha256", "weights", "sha", "Hash of the model's weights"),
    Column("parameters", "parameters", "count", "Number of the model's parameters"),
    Column("trained_length", "trained", "count", "Positions the model was trained on", "tokens"),
    Column("dataset_form", "text form", "text", "How the text was made from its source"),
    Column("dataset_revision", "text rev", "sha", "Commit or hash of the text's source"),
    Column("tokens_sha256", "tokens", "sha", "Hash of the tokens; equal hashes, equal tokens"),
    Column("bos", "BOS", "text", "What stands before each document"),
    Column("documents", "documents", "count", "Number of documents, each a stream of its own"),
    Column("attended_keys_min", "keys min", "count", "Fewest keys that a scored query saw"),
    Column("attended_keys_mean", "keys mean", "fixed", "Mean number of keys they saw", digits=1),
    Column("attended_keys_max", "keys max", "count", "Most keys that a scored query saw"),
    Column("keys_before", "keys before", "count", "Keys that the longest context made"),
    Column("keys_after", "keys after", "count", "Keys that compressing it left"),
    Column("positions", "positions", "text", "Where keys and query sit, cache or absolute"),
    Column("eviction", "eviction", "text", "When keys are dropped"),
    Column("byte_ppl", "byte ppl", "perplexity", "Perplexity a UTF-8 byte of the scored text"),
    Column("total_is_estimate", "estimate", "flag", "Whether the total is timed tokens scaled up"),
    Column("prefill_s", "prefill", "significant", "Time that filled the cache", "s"),
    Column("elapsed_s", "elapsed", "significant", "Wall time of the evaluation", "s"),
    Column("warmup_tokens", "warm-up", "count", "Decode steps left out of the times", "tokens"),
    Column("ms_per_token_p99", "step, p99", "significant", "Their 99th percentile", "ms"),
    Column(
        "time_growth", "late/early", "fixed", "Time a forward, last tenth over second", digits=3
    ),
    Column("kv_formula_mib", "KV formula", "significant", "That size by formula", "MiB"),
    Column("notes", "notes", "text", "What a reader of the figures must know"),
    Column("git_dirty", "dirty", "flag", "Whether streamcli's tracked files were changed"),
    Column("workdir_commit", "workdir", "sha", "Commit of the working folder, if another one"),
    Column("workdir_dirty", "workdir dirty", "flag", "Whether its tracked files were changed"),
    Column("versions", "versions", "text", "Versions of the packages that matter"),
    Column("python", "python", "text", "Version of Python"),
    Column("host", "host", "text", "Name of the machine"),
    Column("cpu", "CPU", "text", "Name of the processor"),
    Column("gpu", "GPU", "text", "Name of the accelerator"),
    Column("load_1m", "load", "fixed", "Load average when the run began", digits=2),
    Column("pid", "pid", "plain", "Process that ran it"),
    Column("sweep", "sweep", "text", "Sweep that it belongs to, a ULID"),
    Column("tags", "tags", "text", "Your tags, separated by spaces"),
    Column("comment", "comment", "text", "Your words on it"),
    Column("compile_s", "compiling", "significant", "Time that made a decode step fast", "s"),
    Column("files_sha256", "files", "sha", "Hash of the model's configuration and tokenizer files"),
    Column("layers", "layers", "text", "What each kind of layer keeps and sees"),
    Column("proof", "proof", "text", "What was proved of the model's layers before the run"),
    Column("param", "own options", "text", "Options that the method alone has, as JSON"),
    Column("method_package", "package", "text", "Package of the method, if not streamcli's own"),
)
COLUMNS: dict[str, Column] = {column.name: column for column in _LIST}
PUBLIC = tuple(COLUMNS)[: tuple(COLUMNS).index("created_at") + 1]
VIEW = (*PUBLIC, "repeat", "sweep", "tags", "comment")  # of the SQL view ``results``
DEFAULT = (
    "model",
    "dataset",
    "method",
    "mode",
    "n_sink",
    "window",
    "attended_keys",
    "scored_tokens",
    "ppl",
    "ms_per_token",
    "tokens_per_s",
    "kv_mib",
    "peak_mem_mib",
)


def format_value(column: Column, value: Any) -> str:
    """A value as a table's cell shows it; ``-`` where there is none (None, NaN or pandas' NA)."""
    if missing(value):
        return "-"
    match column.form:
        case "text" | "plain":
            return " ".join(str(value).split())
        case "sha":
            is_hash = re.fullmatch(r"[0-9a-f]{16,}", str(value))
            return str(value)[:SHA_SHOWN] if is_hash else str(value)
        case "flag":
            return "yes" if value else "no"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    match column.form:
        case "count":
            return f"{int(value):,}"
        case "fixed":
            return f"{value:,.{column.digits}f}"
        case "perplexity":
            return f"{value:.2f}" if round(value, 2) < LARGE_PERPLEXITY else f"{value:.2e}"
        case "exponent":
            return f"{value:.1e}"
        case "percent":
            return f"{value:+.2%}" if abs(value) < 1 else f"{value:+,.0%}"
        case "ratio":
            return f"{_significant(float(value), 3)}x"
        case "significant":
            return _significant(float(value), column.digits)


def _significant(value: float, digits: int) -> str:
    """At least ``digits`` significant digits, never an exponent, never a rounded integer part."""
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{value:,.{max(0, decimals)}f}"


def missing(value: Any) -> bool:
    """Whether there is no value: None, NaN or pandas' NA."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas' NA, which has no truth value
        return True
