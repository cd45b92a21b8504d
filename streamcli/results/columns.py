"""The one list of columns: what each is, what it tells, where it comes from, and its uses.

Tables, exports, comparisons, sort keys, help and docs choose from it with ``chosen``; none of them
types a list of names. A stored column stands in the list where it stands in the table ``runs``,
which is the order of every export; ``reading`` gives the order of tables and pages. Imports nothing
heavy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Flag, StrEnum, auto
from typing import Any, Literal

from core.errors import StreamError

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
    "share",
    "ratio",
    "exponent",
]
LEFT = ("text", "sha", "flag")
SHA_SHOWN = 10
LARGE_PERPLEXITY = 1000
STATUSES = ("running", "done", "failed", "interrupted")
STATES = ("waiting", "claimed", "held", "done")  # of a group in the queue


class Group(StrEnum):
    """What a column tells, in the order in which tables and pages tell it."""

    RUN = "run"
    MODEL = "model"
    TEXT = "text"
    FORM = "form"  # of evaluation: the mode and how much of the text it reads
    METHOD = "method"
    SETTING = "setting"
    REPEATS = "repeats"
    QUALITY = "quality"
    ANSWERS = "answers"  # to the questions in a text that has some
    TIME = "time"
    SPEED = "speed"
    MEMORY = "memory"
    KEYS = "keys"
    CODE = "code"
    MACHINE = "machine"
    WORDS = "words"


class Origin(StrEnum):
    """Where a column's values come from."""

    CONFIG = "config"  # a field of ``RunConfig``
    FACTS = "facts"  # of ``RunFacts``
    ENVIRONMENT = "environment"  # of ``Environment``
    RESULT = "result"  # a field or property of ``RunResult``
    DATABASE = "database"  # made where the row is written
    DERIVED = "derived"  # made of recorded rows, never stored
    TABLE = "table"  # a heading of one table


class Use(Flag):
    """What a column is used for, where its group and origin don't tell."""

    PUBLIC = auto()  # in the view ``results`` and stable by promise
    VIEW = auto()  # in the view, too
    TABLE = auto()  # in tables of comparable runs
    SHARED = auto()  # equal for all runs of one comparison
    CLOCK = auto()  # equal where times are compared
    REPEAT = auto()  # equal for the repeats of one run
    AROUND = auto()  # code and machine as far as they matter to another run
    ADDED = auto()  # what a report adds to a run
    PAIR = auto()  # what a paired comparison adds to a run


FOUND = "What it found"
HEADINGS = {  # of a page on one run
    "What ran": (Group.RUN, Group.MODEL, Group.TEXT, Group.FORM, Group.METHOD, Group.SETTING),
    FOUND: (Group.QUALITY, Group.ANSWERS, Group.TIME, Group.SPEED, Group.MEMORY, Group.KEYS),
    "Where it comes from": (Group.CODE, Group.MACHINE),
    "In words": (Group.WORDS,),
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Its name in the database, in JSON and CSV, and as a sort key.
        title: Its heading in a table.
        form: How a value is written, see ``format_value``.
        help: What it means, one sentence without a full stop.
        unit: Unit, empty where there is none.
        digits: Decimals of ``fixed``, significant digits of ``significant``.
        group: What it tells.
        origin: Where its values come from.
        use: What it is used for beside that.
        symbol: The letter that formulas have for it, empty where there is none.
        variant: How it tells two runs of one method apart, in words about ``{}``; empty where it
            does not.
    """

    name: str
    title: str
    form: Form
    help: str
    unit: str = ""
    digits: int = 3
    group: Group = Group.WORDS
    origin: Origin = Origin.TABLE
    use: Use = Use(0)
    symbol: str = ""
    variant: str = ""

    @property
    def heading(self) -> str:
        """Its title with its unit, where that is not tokens, which titles tell themselves."""
        return self.title if self.unit in ("", "tokens") else f"{self.title} ({self.unit})"

    @property
    def align(self) -> Literal["left", "right"]:
        """Where a table sets it: numbers to the right."""
        return "left" if self.form in LEFT else "right"

    @property
    def headed(self) -> Column:
        """Itself with its unit in its title, for a table that has no other room for it."""
        return replace(self, title=self.heading)


def _column(name: str, title: str, form: Form, facets: str, help: str, **more: Any) -> Column:
    """A column; ``facets`` are its group, its origin and its uses, by name."""
    group, origin, *uses = facets.split()
    use = Use(0)
    for each in uses:
        use |= Use[each.upper()]
    return Column(
        name, title, form, help, group=Group(group), origin=Origin(origin), use=use, **more
    )


def _by_name(*columns: Column) -> dict[str, Column]:
    return {column.name: column for column in columns}


# fmt: off
COLUMNS = _by_name(
    _column("run_id", "run", "text", "run database public",
            "Name of the run, a ULID; sorts by time"),
    _column("status", "status", "text", "run database public",
            "running, done, failed or interrupted"),
    _column("model", "model", "text", "model config public table shared", "Model that really ran"),
    _column("dataset", "dataset", "text", "text config public table shared",
            "Text that was really read"),
    _column("method", "method", "text", "method config public table", "Cache method"),
    _column("mode", "mode", "text", "form config public table shared clock", "Form of evaluation"),
    _column("n_sink", "sinks", "count", "method config public table",
            "S, first tokens that are kept for good", unit="tokens", symbol="S"),
    _column("window", "window", "count", "method config public table",
            "W, last tokens that are kept", unit="tokens", symbol="W"),
    _column("attended_keys", "keys", "count", "method database public table",
            "Keys a query sees at most: S + W + 1 where evicted"),
    _column("dtype", "dtype", "text", "setting config public shared",
            "Number format of weights and cache"),
    _column("device", "device", "text", "setting config public shared clock",
            "Device that computed"),
    _column("engine", "engine", "text", "method config public",
            "How a decode step was executed", variant="{}"),
    _column("threads", "threads", "count", "setting config public shared clock", "CPU threads"),
    _column("scored_tokens", "scored", "count", "quality result public",
            "Tokens that were scored", unit="tokens"),
    _column("ppl", "ppl", "perplexity", "quality result public table",
            "Token perplexity, exp of the mean over all scored tokens"),
    _column("nll_nats", "nll", "fixed", "quality result public",
            "Mean negative log-likelihood of a token", unit="nats", digits=4),
    _column("word_ppl", "word ppl", "perplexity", "quality result public",
            "Perplexity a white-space separated word"),
    _column("bits_per_byte", "bits/byte", "fixed", "quality result public",
            "Bits a UTF-8 byte of the text", unit="bits", digits=4),
    _column("total_s", "total", "significant", "time result public",
            "Time for the whole stream in this mode", unit="s"),
    _column("ms_per_token", "time a token", "significant", "time result public",
            "Mean time a token", unit="ms"),
    _column("ms_per_token_p50", "step, p50", "significant", "time result public",
            "Median time of a decode step", unit="ms"),
    _column("ms_per_token_p95", "step, p95", "significant", "time result public",
            "Their 95th percentile", unit="ms"),
    _column("tokens_per_s", "speed", "significant", "speed result public",
            "Scored tokens over the total time", unit="tokens/s"),
    _column("kv_mib", "KV", "significant", "memory result public table",
            "Measured size of the keys and values held", unit="MiB"),
    _column("peak_mem_mib", "peak", "significant", "memory result public table",
            "Peak memory during the run", unit="MiB"),
    _column("git_commit", "commit", "sha", "code environment public around",
            "Commit of streamcli that ran"),
    _column("created_at", "began", "text", "run database public", "When the run began, UTC"),
    _column("finished_at", "ended", "text", "machine database", "When the run ended, UTC"),
    _column("error", "error", "text", "words database", "Why the run failed"),
    _column("repeat", "repeat", "plain", "run database view", "Number of this repeat, from 0"),
    _column("config_key", "config", "text", "run database repeat",
            "Name of the configuration; equal ones, equal keys"),
    _column("max_tokens", "max tokens", "count", "form config",
            "Most tokens to read", unit="tokens", variant="{} tokens"),
    _column("timed_tokens", "timed", "count", "form config",
            "Decode steps to time, then scaled up", unit="tokens", variant="{} timed"),
    _column("context_tokens", "context", "count", "form config shared",
            "Tokens read at once before the rest", unit="tokens"),
    _column("evict_every", "evict every", "count", "method config view",
            "Steps between evictions", unit="tokens", variant="every {}"),
    _column("chunk_size", "chunk", "count", "method config",
            "Tokens a chunk in chunked mode", unit="tokens", variant="chunks of {}"),
    _column("batch_size", "batch", "count", "form config shared clock view",
            "Streams side by side"),
    _column("seed", "seed", "plain", "setting config",
            "Seed of every random choice", variant="seed {}"),
    _column("source", "source", "text", "setting config",
            "Where model and text might come from", variant="source {}"),
    _column("trust", "trust", "flag", "setting config",
            "Whether the model's own code might run", variant="trust {}"),
    _column("requested_model", "model asked", "text", "model facts", "Model that was asked for"),
    _column("requested_dataset", "dataset asked", "text", "text facts", "Text that was asked for"),
    _column("model_revision", "model rev", "sha", "model facts", "Commit or version of the model"),
    _column("weights_sha256", "weights", "sha", "model facts shared repeat",
            "Hash of the model's weights"),
    _column("parameters", "parameters", "count", "model facts", "Number of the model's parameters"),
    _column("trained_length", "trained", "count", "model facts",
            "Positions the model was trained on", unit="tokens"),
    _column("dataset_form", "text form", "text", "text facts",
            "How the text was made from its source"),
    _column("dataset_revision", "text rev", "sha", "text facts",
            "Commit or hash of the text's source"),
    _column("tokens_sha256", "tokens", "sha", "text facts shared repeat",
            "Hash of the tokens; where questions are asked, of them as well"),
    _column("bos", "BOS", "text", "text facts", "What stands before each document"),
    _column("documents", "documents", "count", "text result view",
            "Number of documents, each a stream of its own"),
    _column("attended_keys_min", "keys min", "count", "keys result",
            "Fewest keys that a scored query saw"),
    _column("attended_keys_mean", "keys mean", "fixed", "keys result",
            "Mean number of keys they saw", digits=1),
    _column("attended_keys_max", "keys max", "count", "keys result",
            "Most keys that a scored query saw"),
    _column("keys_before", "keys before", "count", "keys result",
            "Keys that the longest context made"),
    _column("keys_after", "keys after", "count", "keys result", "Keys that compressing it left"),
    _column("positions", "positions", "text", "method result",
            "Where keys and query sit, cache or absolute"),
    _column("eviction", "eviction", "text", "method result", "When keys are dropped"),
    _column("byte_ppl", "byte ppl", "perplexity", "quality result",
            "Perplexity a UTF-8 byte of the scored text"),
    _column("total_is_estimate", "estimate", "flag", "time result",
            "Whether the total is timed tokens scaled up"),
    _column("prefill_s", "prefill", "significant", "time result",
            "Time that filled the cache", unit="s"),
    _column("elapsed_s", "elapsed", "significant", "time result",
            "Wall time of the evaluation", unit="s"),
    _column("warmup_tokens", "warm-up", "count", "time result",
            "Decode steps left out of the times", unit="tokens"),
    _column("ms_per_token_p99", "step, p99", "significant", "time result",
            "Their 99th percentile", unit="ms"),
    _column("time_growth", "late/early", "fixed", "time result",
            "Time a forward, last tenth over second"),
    _column("kv_formula_mib", "KV formula", "significant", "memory result",
            "That size by formula", unit="MiB"),
    _column("notes", "notes", "text", "words result", "What a reader of the figures must know"),
    _column("git_dirty", "dirty", "flag", "code environment around",
            "Whether streamcli's tracked files were changed"),
    _column("workdir_commit", "workdir", "sha", "code environment",
            "Commit of the working folder, if another one"),
    _column("workdir_dirty", "workdir dirty", "flag", "code environment",
            "Whether its tracked files were changed"),
    _column("versions", "versions", "text", "code environment around",
            "Versions of the packages that matter"),
    _column("python", "python", "text", "code environment around", "Version of Python"),
    _column("host", "host", "text", "machine environment shared clock repeat around",
            "Name of the machine"),
    _column("cpu", "CPU", "text", "machine environment clock around", "Name of the processor"),
    _column("gpu", "GPU", "text", "machine environment clock around", "Name of the accelerator"),
    _column("load_1m", "load", "fixed", "machine environment",
            "Load average when the run began", digits=2),
    _column("pid", "pid", "plain", "machine environment", "Process that ran it"),
    _column("sweep", "sweep", "text", "machine database view", "Sweep that it belongs to, a ULID"),
    _column("tags", "tags", "text", "words database view", "Your tags, separated by spaces"),
    _column("comment", "comment", "text", "words database view", "Your words on it"),
    _column("compile_s", "compiling", "significant", "time result",
            "Time that made a decode step fast", unit="s"),
    _column("files_sha256", "files", "sha", "model facts shared repeat",
            "Hash of the model's configuration and tokenizer files"),
    _column("layers", "layers", "text", "model facts", "What each kind of layer keeps and sees"),
    _column("proof", "proof", "text", "model facts",
            "What was proved of the model's layers before the run"),
    _column("param", "own options", "text", "method config view",
            "Options that the method alone has, as JSON"),
    _column("method_package", "package", "text", "method facts",
            "Package of the method, if not streamcli's own"),
    _column("process", "process", "text", "machine environment",
            "That process, told apart from every other: machine, boot, namespaces, pid, start"),
    _column("tokens_per_document", "a document", "count", "form config",
            "Most tokens of each document", unit="tokens"),
    _column("skip_tokens", "skipped", "count", "form config",
            "Tokens of each document that were left out before", unit="tokens"),
    _column("concatenate", "concatenated", "flag", "form config",
            "Whether all documents were one stream"),
    _column("questions", "questions", "count", "answers result",
            "Questions that the text asks and the run was scored on"),
    _column("accuracy", "accuracy", "share", "answers result table view",
            "Share of questions whose true answer was the likeliest of the candidates"),
    _column("accuracy_low", "accuracy from", "share", "answers result",
            "Lower end of its 95 % interval, by Wilson"),
    _column("accuracy_high", "accuracy to", "share", "answers result", "Upper end"),
    _column("chance", "chance", "share", "answers result", "Accuracy of guessing"),
    _column("answers", "answers", "text", "answers result",
            "Of each question in order its distance in tokens, null where its answer was not told, "
            "and 1 where right, as JSON"),
    _column("budget_mib", "KV asked", "significant", "method config table view",
            "Keys and values that the window was made to fit, between steps", unit="MiB",
            variant="in {} MiB"),
    _column("softmax_type", "softmax", "text", "model config shared view",
            "Softmax of the model's attention, where that is not its own"),
    _column("waited", "waited", "share", "time result",
            "Share of the evaluation for which a thread had to wait for a processor"),
)
DERIVED_COLUMNS = _by_name(
    _column("runs", "runs", "count", "repeats derived added",
            "Finished runs of this configuration"),
    _column("ppl_change", "vs recompute", "percent", "quality derived table added",
            "Perplexity against re-computation"),
    _column("ppl_change_low", "vs recompute from", "percent", "quality derived added",
            "Lower end of its 95 % interval"),
    _column("ppl_change_high", "vs recompute to", "percent", "quality derived added",
            "Upper end"),
    _column("horizon", "horizon", "count", "answers derived table added",
            "Distance up to which all spans that tell are above chance by exact 95 % intervals",
            unit="tokens"),
    _column("horizon_open", "horizon open", "flag", "answers derived added",
            "Whether no span was at chance, so that the horizon may be further"),
    _column("accuracy_difference", "accuracy apart", "share", "answers derived pair",
            "Accuracy of the run less that of its baseline, question by question"),
    _column("accuracy_difference_low", "apart from", "share", "answers derived pair",
            "Lower end of its 95 % interval"),
    _column("accuracy_difference_high", "apart to", "share", "answers derived pair", "Upper end"),
    _column("accuracy_p", "p of accuracy", "exponent", "answers derived pair",
            "P value of no difference in accuracy, Holm-corrected over its table"),
    _column("right_alone", "right alone", "count", "answers derived pair",
            "Questions that the run answers rightly and its baseline does not"),
    _column("baseline_right_alone", "baseline alone", "count", "answers derived pair",
            "Those that its baseline does and the run does not"),
    _column("variant", "variant", "text", "method derived",
            "What tells a row from others of its method, sinks and window"),
    _column("budget", "budget", "text", "method derived",
            "Whether the keys are those of the baseline: equal, other or none"),
    _column("kept", "S+W", "text", "setting derived", "Sinks and window"),
    _column("repeats", "runs", "count", "repeats derived pair", "Repeats at one commit"),
    _column("baseline_run_id", "baseline run", "text", "run derived pair",
            "Run that this one is held against"),
    _column("baseline_method", "baseline", "text", "method derived pair", "Its method"),
    _column("baseline_ppl", "baseline ppl", "perplexity", "quality derived pair", "Its perplexity"),
    _column("difference_nats", "nats", "fixed", "quality derived pair",
            "Paired difference a token, the run less its baseline", unit="nats", digits=4),
    _column("difference_low_nats", "nats from", "fixed", "quality derived pair",
            "Lower end of its 95 % interval", unit="nats", digits=4),
    _column("difference_high_nats", "nats to", "fixed", "quality derived pair",
            "Upper end", unit="nats", digits=4),
    _column("largest_nats", "largest", "exponent", "quality derived pair",
            "Largest difference on a token", unit="nats"),
    _column("clusters", "interval", "text", "quality derived added pair",
            "What the interval of a difference is over, or why there is none"),
    _column("difference_p", "p", "exponent", "quality derived pair",
            "P value of no difference, Holm-corrected over its table"),
    _column("equivalence_p", "p beyond margin", "exponent", "quality derived pair",
            "P value of a difference beyond --margin, likewise"),
    _column("needed_tokens", "tokens needed", "count", "quality derived pair",
            "Tokens of one text that show a difference of --margin with 80 % power"),
    _column("needed_documents", "documents needed", "count", "quality derived pair",
            "Documents that do"),
    _column("ms", "ms/token", "significant", "time derived pair",
            "Median time a token over the repeats", unit="ms"),
    _column("baseline_ms", "baseline ms/token", "significant", "time derived pair",
            "That of the baseline", unit="ms"),
    _column("speed_up", "speed-up", "ratio", "speed derived table added pair",
            "Time a token of re-computation over this one's"),
    _column("speed_up_low", "speed-up from", "ratio", "speed derived pair",
            "Lower end of its 95 % interval"),
    _column("speed_up_high", "speed-up to", "ratio", "speed derived pair", "Upper end"),
    _column("speed_up_p", "p of time", "exponent", "speed derived pair",
            "P value of no difference in time, Holm-corrected over its table"),
    _column("rounds", "rounds", "count", "repeats derived pair",
            "Repeats that the speed-up's interval is made of"),
    _column("verdict", "verdict", "text", "words derived pair", "What may be said"),
    _column("compared_ms", "ms/token", "significant", "time derived table added",
            "Time a token that speed-ups compare"),
    _column("compared_waited", "waited at most", "share", "time derived added",
            "Largest share for which a thread of this run or its repeats waited for a processor"),
)
DOCUMENTS = _by_name(
    _column("run_id", "run", "text", "run database", "The run"),
    _column("position", "document", "plain", "text database", "Place in reading order, from 0"),
    _column("name", "name", "text", "text result", "Its title, book number, row or file name"),
    _column("scored_tokens", "scored", "count", "quality result",
            "Tokens that were scored: all but the first, or those after a context", unit="tokens"),
    _column("nll_nats", "nats", "fixed", "quality result",
            "Sum of their negative log-likelihoods, in nats", digits=2),
    _column("words", "words", "count", "text result",
            "White-space separated words of the scored text"),
    _column("utf8_bytes", "bytes", "count", "text result", "Bytes of the scored text in UTF-8"),
    _column("questions", "questions", "count", "answers result",
            "Questions that it asks and the run was scored on"),
    _column("right_answers", "right", "count", "answers result",
            "How many of them were answered rightly"),
)
TRACES = _by_name(
    _column("run_id", "run", "text", "run database", "The run"),
    _column("nll", "nats", "plain", "quality result",
            "Nats of every scored token, documents end to end in reading order"),
    _column("latency_ms", "ms", "plain", "time result",
            "Milliseconds of every forward that was timed, a step or a chunk"),
)
BENCHMARKS = _by_name(
    _column("benchmark_id", "benchmark", "text", "run database", "Name of the row, a ULID"),
    _column("created_at", "ended", "text", "run database", "When the benchmark ended, UTC"),
    _column("bench", "bench", "text", "form config",
            "Which benchmark: decode, window, prompt, length or perplexity"),
    _column("arm", "method", "text", "method config", "What was timed in turn with the others"),
    _column("rounds", "rounds", "count", "form config",
            "Rounds, in each of which every arm was timed once"),
    _column("ms_per_token", "ms/token", "significant", "time result",
            "Milliseconds a token, or to a prompt's first: median over rounds of a round's median"),
    _column("ms_per_token_low", "from", "significant", "time result",
            "Lower end of its 95 % interval, over resampled rounds"),
    _column("ms_per_token_high", "to", "significant", "time result", "Upper end"),
    _column("floor_ms", "floor", "significant", "time result",
            "Milliseconds that this machine must take for what an arm reads and computes",
            digits=3, unit="ms"),
    _column("step_mib", "step", "significant", "memory result",
            "Most memory that a step's tensors take at one moment, beside cache and weights",
            unit="MiB"),
    _column("length", "tokens", "count", "form config",
            "Tokens of the stream before a step, or of the prompt that it reads"),
    _column("read_gb_per_s", "reads", "significant", "machine result",
            "Speed at which this machine reads memory, measured beside the arms", unit="GB/s"),
    _column("gflops_per_s", "multiplies", "significant", "machine result",
            "Speed at which it multiplies, measured likewise", unit="GFLOP/s"),
    _column("latency_ms", "steps", "plain", "time result",
            "Milliseconds of every timed step, round by round, packed as a trace is"),
    _column("shown", "shown", "plain", "time result",
            "The arm as its table shows it, with its ratios to others and their ends, as JSON"),
    _column("about", "about", "plain", "time result",
            "What the table says of all arms: model, machine, notes, as JSON"),
    _column("interval", "95 % interval", "text", "time derived", "Both ends of that interval"),
    _column("ratio_to_floor", "to floor", "ratio", "time derived", "Time a token over its floor"),
)
PROBES = _by_name(
    _column("probe_id", "probe", "text", "run database", "Name of the row, a ULID"),
    _column("created_at", "ended", "text", "run database", "When the probe ended, UTC"),
    _column("threshold", "threshold", "significant", "form config",
            "Attention beyond which a token is a sink of a head (epsilon)"),
    _column("tokens", "tokens", "count", "text result",
            "Tokens of the first document, on which attention was looked at", unit="tokens"),
    _column("pieces", "texts", "count", "text result",
            "Texts of 64 tokens that the sink rate is an average over"),
    _column("scored_tokens", "scored", "count", "quality result",
            "Tokens that the perplexities are of", unit="tokens"),
    _column("n_layers", "layers", "count", "model result", "Layers of the model"),
    _column("n_heads", "heads", "count", "model result", "Query heads of a layer"),
    _column("sink_rate", "sink rate", "fixed", "quality result",
            "Share of all heads whose mean attention to the first token is beyond the threshold"),
    _column("mass_before", "before", "fixed", "quality result",
            "Attention to the first S tokens, mean over heads, where nothing is evicted"),
    _column("mass_after", "after", "fixed", "quality result",
            "The same in a stream of S sinks and a window, once something was evicted"),
    _column("suffices", "S that suffices", "count", "quality result",
            "The smallest S that no larger one betters by more than 1 % of perplexity"),
    _column("perplexities", "perplexities", "plain", "quality result",
            "Perplexity by S, at a budget of as many keys, as JSON"),
    _column("sinks", "sinks", "plain", "quality result",
            "Tokens that are sinks: position, text, share of heads and attention, as JSON"),
    _column("before", "before", "plain", "quality result",
            "Attention to the first S tokens by layer and head, row by row, packed as a trace is"),
    _column("after", "after", "plain", "quality result", "The same after eviction"),
)
QUEUE = _by_name(
    _column("group_id", "group", "text", "run database", "Name of the group, a ULID"),
    _column("state", "state", "text", "run database",
            "waiting, claimed by a worker, held by a sweep that makes its own runs, or done"),
    _column("sweep", "sweep", "text", "run database",
            "Sweep that it belongs to, a ULID, which its runs bear"),
    _column("created_at", "enqueued", "text", "run database", "When it was enqueued, UTC"),
    _column("arms", "arms", "plain", "setting config", "Its configurations, as JSON"),
    _column("keys", "keys", "plain", "setting config", "Their names, separated by spaces"),
    _column("repeats", "repeats", "count", "repeats config", "Rounds of them"),
    _column("within_trained", "within trained", "flag", "setting config",
            "Whether a budget beyond the trained length is left out"),
    _column("explicit", "explicit", "flag", "setting config",
            "Whether the model was named, so that no stand-in may take its place"),
    _column("force", "force", "flag", "setting config",
            "Whether what is finished elsewhere is made again"),
    _column("ended", "ended", "plain", "words database",
            "How each run ended that has, as JSON: by number, how, and its name or why"),
    _column("deaths", "deaths", "count", "repeats database",
            "Workers that died with it since a run of it ended last"),
    _column("worker", "worker", "text", "machine database", "Who has claimed it, a ULID"),
    _column("host", "host", "text", "machine environment", "Name of the machine that had it last"),
    _column("process", "process", "text", "machine environment", "Process that had it last"),
    _column("beat", "beat", "count", "machine database",
            "Grows while its worker lives and reaches the database"),
    _column("seen_at", "seen", "text", "machine database", "When it last grew, UTC"),
)
# fmt: on
ALL = COLUMNS | DERIVED_COLUMNS


def chosen(
    *groups: Group, origin: Origin | None = None, use: Use | None = None, stored: bool = False
) -> tuple[str, ...]:
    """The names of the columns that meet every condition, in the order of exports.

    Args:
        *groups: Groups, one of which a column is in; any where none is given.
        origin: Where its values come from; anywhere where none is given.
        use: A use that it has.
        stored: Whether only columns of the table ``runs`` are meant.
    """
    return tuple(
        name
        for name, column in (COLUMNS if stored else ALL).items()
        if (not groups or column.group in groups)
        and (origin is None or column.origin is origin)
        and (use is None or use in column.use)
    )


def reading(names: Iterable[str]) -> tuple[str, ...]:
    """These names in the order of tables and pages: group by group, as in exports within one."""
    order, groups = list(ALL), list(Group)
    return tuple(sorted(names, key=lambda name: (groups.index(ALL[name].group), order.index(name))))


PUBLIC = chosen(use=Use.PUBLIC)
VIEW = (*PUBLIC, *chosen(use=Use.VIEW))  # of the SQL view ``results``
# What repeats of one another share. ``files_sha256`` is NULL in rows of an older version, which are
# repeats of each other only.
SAME_RUN = reading(chosen(use=Use.REPEAT))
SHARED = reading(chosen(use=Use.SHARED))  # what the runs of one comparison share
CLOCK = reading(chosen(use=Use.CLOCK))  # what is equal where times are compared
TABLE = reading(chosen(use=Use.TABLE))
ASKED = tuple(name for name in chosen(origin=Origin.CONFIG) if Use.TABLE in ALL[name].use)
TASK = tuple(name for name in TABLE if Use.SHARED in ALL[name].use)  # what a table's title says
NAMED = tuple(name for name in ASKED if ALL[name].form == "text")
FILTERS = (*NAMED, "since", "commit", "sweep", "tag")  # by which a query chooses runs
HASHES = reading(name for name in COLUMNS if name.endswith("_sha256"))
ADDED = chosen(use=Use.ADDED)  # what a report adds to a run
AROUND = chosen(use=Use.AROUND)  # code and machine, as far as they matter to another run


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
        case "share":
            return f"{value:.1%}"
        case "ratio":
            return f"{_significant(float(value), 3)}x"
        case "significant":
            return _significant(float(value), column.digits)


def format_ends(low: Any, high: Any) -> str:
    """An interval of a percentage beside it, to two digits of its width; nothing if unknown."""
    if missing(low) or missing(high):
        return ""
    width = 100 * abs(high - low)
    digits = 2
    if 0 < width < math.inf:
        digits = min(4, max(int(width < 100), 1 - math.floor(math.log10(width))))
    return f" ({100 * low:+,.{digits}f} to {100 * high:+,.{digits}f})"


def format_span(low: Any, high: Any) -> str:
    """The interval of a share beside it, in percent; nothing if unknown."""
    if missing(low) or missing(high):
        return ""
    return f" ({100 * low:.0f} to {100 * high:.0f})"


def _significant(value: float, digits: int) -> str:
    """At least ``digits`` significant digits, never an exponent, never a rounded integer part."""
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{value:,.{max(0, decimals)}f}"


def moment(stamped: str) -> datetime:
    """The time that the tables keep as this text.

    Raises:
        StreamError: It is none, as another program may have written it.
    """
    try:
        return datetime.fromisoformat(stamped)
    except ValueError as error:
        raise StreamError(
            f"the database holds {stamped[:40]!r} as a time, which is none: streamcli db check "
            "names the run."
        ) from error


def missing(value: Any) -> bool:
    """Whether there is no value: None, NaN or pandas' NA."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas' NA, which has no truth value
        return True
