"""Paired comparisons as tables and as records: methods, commits, two runs, published figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from streamcli.render.tables import MARK, TIMED, VERDICT, Sheet, cells, title
from streamcli.results import published
from streamcli.results.columns import COLUMNS, Column, format_value
from streamcli.results.comparison import Row
from streamcli.results.paired import Pair, Paired
from streamcli.results.published import Beside, Published
from streamcli.results.stats import Interval
from streamcli.results.verdicts import decimals, verdict

TIME = Column("ms", "ms/token", "significant", "Median time a token over the repeats", "ms")
RATIO = Column("speed_up", "speed-up", "ratio", "Time of the baseline over this one's")
PPL, TOTAL = COLUMNS["ppl"], COLUMNS["total_s"]
RUN = (  # of a run, what a record holds
    *("model", "dataset", "mode", "dtype", "device", "threads", "host", "scored_tokens"),
    *("tokens_sha256", "method", "variant", "n_sink", "window", "attended_keys"),
    *("attended_keys_mean", "budget", "run_id", "git_commit", "ppl", "kv_mib", "peak_mem_mib"),
)
ONE_EACH = "one run each: use sweep --repeats 5 for an interval"
APART = "no interval below 3 runs each: use --repeats 5"
NO_TURNS = "no interval where they did not take turns, as in sweep --repeats 5"


def methods(paired: Paired, *, across: bool) -> Sheet:
    """Methods against a baseline."""
    comparison = paired.comparison
    counted = sum(len(pair.times.every) for pair in paired.pairs)
    older = comparison.older + len(paired.pairs) - counted
    notes = _notes(paired.pairs, str(comparison.same["mode"]), comparison.baseline)
    budgets = {pair.run["budget"] for pair in paired.pairs if pair.why and not pair.is_base}
    if budgets - {"equal"} and comparison.baseline in {p.run["method"] for p in paired.pairs}:
        how = "compared all the same" if across else "not compared; --across-budgets does it"
        notes.append(f"{MARK} another budget than {comparison.baseline} has, or none: {how}.")
    if older > 0:
        notes.append(f"{older} runs of other commits, or without a time, are not counted.")
    return _sheet(title(comparison.same), paired.pairs, notes, comparison.baseline)


def commits(pairs: Sequence[Pair], before: str, after: str) -> Sheet:
    """Configurations of one kind at a commit against the same at another."""
    first = pairs[0].run
    heading = f"{title(first)}: {after} against {before}"
    notes = _notes(pairs, str(first["mode"]), before, apart=True)
    return _sheet(heading, pairs, notes, before)


def two(pair: Pair) -> Sheet:
    """Two runs side by side: what differs between them, then their figures."""
    run, base = pair.run, pair.base or pair.run
    columns = [
        Column("what", "", "text", "A column"),
        Column("before", str(base["run_id"]), "text", "The run that is held against"),
        Column("after", str(run["run_id"]), "text", "The other"),
        Column("apart", "the second against the first", "text", "What became of it"),
    ]
    rows = [
        [COLUMNS[name].title, _differing(name, base, run), _differing(name, run, base), ""]
        for name in DIFFERING
        if str(base[name]) != str(run[name])
    ]
    rows.append([PPL.title, *(format_value(PPL, each["ppl"]) for each in (base, run))])
    rows[-1].append(f"{_nats(pair)} nats a token")
    times = (pair.base_times.median, pair.times.median)
    speed = f"{_ratio(pair)} speed-up, one run each" if pair.speed_up else pair.why or "-"
    rows.append([TIME.title, *(format_value(TIME, each) for each in times), speed])
    for name in ("kv_mib", "peak_mem_mib"):
        column = COLUMNS[name]
        values = [format_value(column, each[name]) for each in (base, run)]
        rows.append([f"{column.title} (MiB)", *values, _change(run[name], base[name])])
    rows.append([VERDICT, "", "", verdict(pair)])
    notes = [_of_nats([pair], "the first")]
    if base["attended_keys"] != run["attended_keys"]:
        notes.append("The budgets differ: the two don't see as many keys.")
    return Sheet(title(base), columns, rows, notes)


DIFFERING = tuple(
    name
    for name in COLUMNS
    if name
    in (
        *("model", "dataset", "method", "mode", "n_sink", "window", "attended_keys", "dtype"),
        *("device", "engine", "threads", "timed_tokens", "context_tokens", "evict_every"),
        *("chunk_size", "batch_size", "seed", "weights_sha256", "bos", "positions", "eviction"),
        *("git_commit", "git_dirty", "versions", "python", "host", "cpu", "gpu", "created_at"),
    )
)


def records(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Pairs as objects keyed by column name; what is missing is None or NaN."""
    made = []
    for pair in pairs:
        nats = pair.difference.nats if pair.difference else Interval(math.nan)
        speed = pair.speed_up or Interval(math.nan)
        made.append(
            {name: pair.run.get(name) for name in RUN}
            | {
                "repeats": len(pair.times.every),
                "baseline_run_id": pair.base["run_id"] if pair.base else None,
                "baseline_method": pair.base["method"] if pair.base else None,
                "baseline_ppl": pair.base["ppl"] if pair.base else None,
                "difference_nats": nats.estimate,
                "difference_low_nats": nats.low,
                "difference_high_nats": nats.high,
                "largest_nats": pair.difference.largest if pair.difference else None,
                "clusters": pair.difference.clusters if pair.difference else None,
                "ms": pair.times.median,
                "baseline_ms": pair.base_times.median if pair.base else None,
                "speed_up": speed.estimate,
                "speed_up_low": speed.low,
                "speed_up_high": speed.high,
                "rounds": pair.rounds,
                "verdict": verdict(pair),
            }
        )
    return made


def seed(each: Beside) -> Sheet:
    """A table of the seed report with our figures in the last columns."""
    theirs = {figure.method: figure for figure in published.of(each.mode, each.dataset)}
    columns = [
        COLUMNS["method"],
        *(replace(c, title=f"published {t}") for c, t in ((PPL, "ppl"), (TOTAL, "s"))),
        replace(RATIO, title="published speed-up"),
        *(replace(c, title=f"ours {t}") for c, t in ((PPL, "ppl"), (TOTAL, "s"))),
        replace(RATIO, title="ours speed-up"),
    ]
    rows = []
    for method in published.METHODS:
        figure, mine = theirs.get(method), each.rows.get(method, {})
        printed = published.as_printed(figure) if figure else ("-", "-", "-")
        names = ("ppl", "total_s", "speed_up")
        texts = [format_value(c, mine.get(n)) for c, n in zip(columns[4:], names, strict=True)]
        rows.append([f"{method}{MARK if figure and figure.why else ''}", *printed, *texts])
    notes = [
        f"published: {published.SEED}; a speed-up is against recompute, a time is the stream's."
    ]
    if not theirs:
        notes = ["Of this table of the seed report no figures are at hand."]
    elif any(figure.why for figure in theirs.values()):
        notes.append(f"{MARK} an artefact, see the last table.")
    if each.ours:
        notes.append(f"ours: {title(each.ours.same)}.")
        keys = {
            m: int(row["attended_keys"]) for m, row in each.rows.items() if m in published.METHODS
        }
        if len(set(keys.values())) > 1:
            seen = ", ".join(f"{method} {count:,}" for method, count in keys.items())
            notes.append(f"ours, the most keys that a token sees: {seen}.")
    else:
        command = f"streamcli sweep --datasets {each.dataset} --modes {each.mode}"
        notes.append(f"ours: nothing is recorded yet; {command} does it.")
    return Sheet(f"{each.mode} on {published.TEXTS[each.dataset]}", columns, rows, notes)


def artefacts(found: Sequence[Beside]) -> Sheet:
    """The published figures that are not what they seem, with what the method really gives."""
    columns = [
        COLUMNS["mode"],
        Column("text", "text", "text", "Text"),
        Column("published", "seed's kvpress", "text", "Perplexity and time as published"),
        Column("really", "kvpress here", "text", "What the method gives in this database"),
        Column("why", "why the seed's is not it", "text", "Why the published figure is another"),
    ]
    ours = {(each.mode, each.dataset): each.rows for each in found}
    rows = []
    for figure in published.ARTEFACTS:
        mine = ours.get((figure.mode, figure.dataset), {})
        rows.append(
            [
                figure.mode,
                published.TEXTS[figure.dataset],
                "{} in {} s".format(*published.as_printed(figure)),
                _really(figure, mine),
                figure.why,
            ]
        )
    quoted: dict[str, list[str]] = {}
    for each in published.QUOTED:
        keys, values = "/".join(each.values), "/".join(_perplexity(v) for v in each.values.values())
        quoted.setdefault(each.source, []).append(f"{each.what} {keys}: {values}")
    speed = f"a token up to {published.PAPER_SPEED_UP}x faster than re-computation (one A6000)"
    quoted[published.PAPER].append(speed)
    notes = [f"{source}: {'; '.join(said)}." for source, said in quoted.items()]
    return Sheet("Published figures of kvpress that are artefacts", columns, rows, notes)


def published_records(found: Sequence[Beside]) -> list[dict[str, Any]]:
    """Every published figure with ours beside it, as objects keyed by column name."""
    made = []
    for each in found:
        theirs = {figure.method: figure for figure in published.of(each.mode, each.dataset)}
        for method in published.METHODS:
            figure, mine = theirs.get(method), each.rows.get(method, {})
            made.append(
                {
                    "mode": each.mode,
                    "text": published.TEXTS[each.dataset],
                    "method": method,
                    "published_ppl": figure and figure.ppl,
                    "published_total_s": figure and figure.total_s,
                    "published_speed_up": figure and published.speed_up(figure),
                    "source": figure and published.SEED,
                    "artefact": (figure and figure.why) or None,
                }
                | {name: mine.get(name) for name in OURS}
            )
    return made


OURS = ("run_id", "model", "dataset", "scored_tokens", "ppl", "total_s", "speed_up")


def _both(ppl: float, total_s: float) -> str:
    return f"{format_value(PPL, ppl)} in {format_value(TOTAL, total_s)} s"


def _really(figure: Published, mine: dict[str, Row]) -> str:
    """What the method gives here, and what doing as the seed did gives; or how to measure it."""
    row, as_run = mine.get(figure.method), mine.get(figure.really)
    if row is None:
        return (
            f"- (streamcli run --dataset {figure.dataset} --method {figure.method} "
            f"--mode {figure.mode})"
        )
    told = _both(row["ppl"], row["total_s"])
    if as_run is not None:
        told += (
            f"; run as the seed did ({figure.really}): {_both(as_run['ppl'], as_run['total_s'])}"
        )
    return told


def _sheet(heading: str, pairs: Sequence[Pair], notes: list[str], base: str) -> Sheet:
    """One row a pair."""
    first = [
        COLUMNS["method"],
        replace(COLUMNS["n_sink"], title="S"),
        replace(COLUMNS["window"], title="W"),
        COLUMNS["attended_keys"],
    ]
    last = replace(COLUMNS["kv_mib"], title=COLUMNS["kv_mib"].heading)
    columns = [
        *first,
        Column("repeats", "runs", "count", "Repeats at one commit"),
        PPL,
        Column("nats", f"nats vs {base}", "fixed", "Paired difference a token"),
        TIME,
        RATIO,
        last,
        Column(VERDICT, VERDICT, "text", "What may be said"),
    ]
    rows = [
        [
            *cells(pair.run, first),
            str(len(pair.times.every)),
            format_value(PPL, pair.run["ppl"]),
            "-" if pair.is_base else _nats(pair),
            format_value(TIME, pair.times.median),
            "-" if pair.is_base else _ratio(pair),
            format_value(last, pair.run["kv_mib"]),
            verdict(pair),
        ]
        for pair in pairs
    ]
    return Sheet(heading, columns, rows, notes)


def _notes(pairs: Sequence[Pair], mode: str, base: str, *, apart: bool = False) -> list[str]:
    """How the figures were made."""
    notes = [_of_nats(pairs, base)] if any(pair.difference for pair in pairs) else []
    timed = TIMED[mode].replace(" is ", " is the median over the runs of ", 1)
    rounds = sorted({pair.rounds for pair in pairs if pair.rounds})
    most = max(len(pair.times.every) for pair in pairs)
    alone = any(pair.speed_up and not pair.rounds for pair in pairs)
    said = [f"speed-up: time of {base} over this one's"]
    if rounds:
        counts = " or ".join(map(str, rounds))
        what = "repeats, made at different times" if apart else "rounds"
        said.append(f"95 % interval by Student's t on the logs of {counts} {what}")
    if alone:
        said.append(APART if apart else ONE_EACH if most == 1 else NO_TURNS)
    return [*notes, f"{timed}; {'; '.join(said)}."]


def _of_nats(pairs: Sequence[Pair], base: str) -> str:
    over: dict[str, None] = {}
    without: dict[str, None] = {}
    for each in [pair.difference for pair in pairs if pair.difference]:
        (over if each.nats.known else without)[each.clusters] = None
    said = f"nats: mean over all scored tokens of this row's less those of {base}, lower is better"
    if over:
        said += f"; 95 % interval by bootstrap over {' or '.join(over)}"
        said += ", so for this text only" if any("blocks" in each for each in over) else ""
    return f"{said}{''.join(f'; no interval: {each}' for each in without)}."


def _nats(pair: Pair) -> str:
    """A difference with its interval, two digits of the interval's width."""
    if pair.difference is None:
        return "-"
    nats = pair.difference.nats
    if pair.difference.equal:
        return "0.0000"
    places = decimals(nats)
    if not nats.known:
        return f"{nats.estimate:+.{places}f}"
    return f"{nats.estimate:+.{places}f} [{nats.low:+.{places}f}, {nats.high:+.{places}f}]"


def _ratio(pair: Pair) -> str:
    if pair.speed_up is None:
        return "-"
    middle, low, high = (
        format_value(RATIO, each)
        for each in (pair.speed_up.estimate, pair.speed_up.low, pair.speed_up.high)
    )
    return f"{middle} [{low[:-1]}, {high[:-1]}]" if pair.speed_up.known else middle


def _differing(name: str, row: Row, other: Row) -> str:
    """A value as its column shows it; of versions, those that the other doesn't have."""
    if name != "versions":
        return format_value(COLUMNS[name], row[name])
    theirs = str(other[name]).split()
    return " ".join(word for word in str(row[name]).split() if word not in theirs) or "-"


def _change(after: Any, before: Any) -> str:
    try:
        return f"{float(after) / float(before) - 1:+.1%}"
    except (TypeError, ZeroDivisionError):
        return "-"


def _perplexity(value: float) -> str:
    """As published: two decimals, none on whole thousands."""
    return f"{value:.2f}" if value % 1 or value < 1000 else f"{value:.0f}"
