"""Paired comparisons as tables and as records: methods, commits, two runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from streamcli.analysis import distances
from streamcli.analysis.answered import Answered
from streamcli.analysis.comparison import Row, by_bytes, same_budget
from streamcli.analysis.paired import UNMEASURED, Pair, Paired
from streamcli.analysis.repeats import RULE
from streamcli.analysis.statistics import Difference, Interval
from streamcli.analysis.verdicts import MARGIN, Judged, decimals, judged, tests
from streamcli.render.notes import (
    ACCURACY,
    HORIZON,
    MARK,
    answers,
    doubted,
    intervals,
    row_name,
    timed,
)
from streamcli.render.tables import SELDOM, VERDICT, Sheet, cells, title, values
from streamcli.results.columns import (
    ALL,
    AROUND,
    COLUMNS,
    HASHES,
    SHARED,
    TABLE,
    Column,
    Group,
    Origin,
    Use,
    chosen,
    format_value,
    missing,
)

TIME, RATIO, PPL = ALL["ms"], ALL["speed_up"], ALL["ppl"]
PAIR = chosen(use=Use.PAIR)  # what holding a run against another adds to it
METHOD = [COLUMNS[name] for name in TABLE if ALL[name].group is Group.METHOD]
VARIANT = [name for name in chosen(Group.METHOD, origin=Origin.DERIVED) if name not in PAIR]
RUN = (  # of a run, what a record holds
    *(*SHARED, "scored_tokens", "attended_keys_mean", "run_id", "git_commit"),
    *(column.name for column in METHOD),
    *VARIANT,
    *(name for name in chosen(Group.ANSWERS, origin=Origin.DERIVED) if name not in PAIR),
    *(name for name in TABLE if ALL[name].origin is Origin.RESULT),
)
NATS = ALL["difference_nats"]
TOLD_OF = (NATS.name, TIME.name, RATIO.name, VERDICT)  # columns of which a note tells
ONE_EACH = "one run each: use sweep --repeats 5 for an interval"
APART = "no interval below 3 runs each: use --repeats 5"
NO_TURNS = "no interval where runs were not made in turns, as sweep --repeats 5 makes them"


def methods(
    paired: Paired, *, across: bool, margin: float = MARGIN, only: Sequence[str] = ()
) -> Sheet:
    """Methods against a baseline; ``only`` some columns, and what is said of them, where named.

    Raises:
        UsageError: No such column in this table.
    """
    comparison, found = paired.comparison, judged(paired.pairs, margin)
    counted = sum(len(pair.times.every) for pair in paired.pairs)
    older = comparison.older + len(paired.pairs) - counted
    mode = str(comparison.same["mode"])
    notes = _notes(found, mode, comparison.baseline, without=set(TOLD_OF) - set(only or TOLD_OF))
    budgets = {pair.run["budget"] for pair in paired.pairs if pair.why and not pair.is_base}
    if budgets - {"equal"} and comparison.baseline in {p.run["method"] for p in paired.pairs}:
        how = "compared all the same" if across else "not compared; --across-budgets does it"
        notes.append(f"{MARK} another budget than {comparison.baseline} has, or none: {how}.")
    if older > 0 and not only:
        what = "1 run" if older == 1 else f"{older:,} runs"
        notes.append(f"not counted: {what} of another commit or processor, or without a time.")
    heading = title(comparison.same)
    if only:
        return _sheet(heading, found, notes, comparison.baseline, METHOD).only(only)
    return _sheet(heading, found, notes, comparison.baseline)


def kinds(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Pairs in the tables that two commits have, one for each kind of run."""
    return [list(kind) for _, kind in groupby(sorted(pairs, key=_kind), key=_kind)]


def commits(pairs: Sequence[Pair], before: str, after: str, margin: float = MARGIN) -> list[Sheet]:
    """Configurations at a commit against the same at another, a table for each kind of run."""
    return [_of_commits(judged(kind, margin), before, after) for kind in kinds(pairs)]


def _kind(pair: Pair) -> str:
    return title(pair.run)


def _of_commits(found: Sequence[Judged], before: str, after: str) -> Sheet:
    first = found[0].pair.run
    heading = f"{title(first)}: {after} against {before}"
    notes = _notes(found, str(first["mode"]), before, apart=True)
    return _sheet(heading, found, notes, before)


def two(pair: Pair, margin: float = MARGIN) -> Sheet:
    """Two runs side by side: what differs between them, then their figures."""
    found = judged([pair], margin)
    run, base = pair.run, pair.base or pair.run
    columns = [
        Column("what", "", "text", "A column"),
        Column("before", str(base["run_id"]), "text", "The run that is held against"),
        Column("after", str(run["run_id"]), "text", "The other"),
        Column("apart", "the second against the first", "text", "What became of it"),
    ]
    rows = [
        [COLUMNS[name].title, _differing(name, base, run), _differing(name, run, base), ""]
        for name in COLUMNS
        if name in DIFFERING and str(base[name]) != str(run[name])
    ]
    if not missing(run[ACCURACY]):
        shares = _shares([base, run])
        both = [values(each, shares) for each in (base, run)]
        law = f", {pair.answered.scope}" if pair.answered else ""
        apart = [f"{points_of(pair.answered)} points{law}", ""]
        rows += [
            [column.title, *(each[column.name] for each in both), words]
            for column, words in zip(shares, apart, strict=False)
        ]
    rows.append([PPL.title, *(format_value(PPL, each["ppl"]) for each in (base, run))])
    scope = f", {pair.difference.scope}" if pair.difference and pair.difference.scope else ""
    rows[-1].append(f"{nats_of(pair.difference)} nats a token{scope}")
    times = (pair.base_times.median, pair.times.median)
    speed = f"{_ratio(pair)} speed-up, one run each" if pair.speed_up else pair.why or "-"
    rows.append([TIME.title, *(format_value(TIME, each) for each in times), speed])
    for name in ("kv_mib", "peak_mem_mib"):
        column = COLUMNS[name]
        sizes = [format_value(column, each[name]) for each in (base, run)]
        rows.append([f"{column.title} (MiB)", *sizes, _change(run[name], base[name])])
    rows.append([VERDICT, "", "", found[0].verdict])
    notes = [_of_nats([pair], "the first"), *_of_answers([pair], "the first"), *_power(found)]
    if pair.speed_up:
        notes += doubted(_both([pair]))
    if base["attended_keys"] != run["attended_keys"]:
        alike = by_bytes(run) and same_budget(run, base)
        why = "The bytes are alike, the keys are not" if alike else "The budgets differ"
        notes.append(f"{why}: the two don't see as many keys.")
    return Sheet(title(base), columns, rows, notes)


DIFFERING = {  # what may tell two runs of the same tokens apart
    *chosen(origin=Origin.CONFIG),
    *chosen(Group.METHOD, stored=True),
    *("bos", "created_at", *HASHES, *AROUND),
} - set(UNMEASURED)


def records(tables: Sequence[Sequence[Pair]], margin: float = MARGIN) -> list[dict[str, Any]]:
    """Pairs, table by table, as objects keyed by column name; what is missing is None or NaN."""
    found = [each for pairs in tables for each in judged(pairs, margin)]
    return [{name: each.pair.run.get(name) for name in RUN} | _figures(each) for each in found]


def _figures(found: Judged) -> dict[str, Any]:
    """What holding a run against another adds to it."""
    pair, difference, told = found.pair, found.pair.difference, found.pair.answered
    nats = difference.nats if difference else Interval(math.nan)
    speed = pair.speed_up or Interval(math.nan)
    several = bool(difference and difference.documents > 1)
    figures = {
        "repeats": len(pair.times.every),
        "difference_nats": nats.estimate,
        "difference_low_nats": nats.low,
        "difference_high_nats": nats.high,
        "difference_p": found.difference_p,
        "equivalence_p": found.equivalence_p,
        "accuracy_difference": told and told.share.estimate,
        "accuracy_difference_low": told and told.share.low,
        "accuracy_difference_high": told and told.share.high,
        "accuracy_p": found.accuracy_p,
        "right_alone": told and told.alone[0],
        "baseline_right_alone": told and told.alone[1],
        "needed_tokens": None if several else found.needed,
        "needed_documents": found.needed if several else None,
        "largest_nats": difference.largest if difference else None,
        "clusters": difference.clusters if difference else None,
        "ms": pair.times.median,
        "baseline_ms": pair.base_times.median if pair.base else None,
        "speed_up": speed.estimate,
        "speed_up_low": speed.low,
        "speed_up_high": speed.high,
        "speed_up_p": found.speed_up_p,
        "rounds": pair.rounds,
        "verdict": found.verdict,
    }
    base = pair.base or {}
    figures |= {f"baseline_{name}": base.get(name) for name in ("run_id", "method", "ppl")}
    return {name: figures[name] for name in PAIR}


SHORT = [replace(column, title=column.symbol or column.title) for column in METHOD]


def _sheet(
    heading: str,
    found: Sequence[Judged],
    notes: list[str],
    base: str,
    first: Sequence[Column] = SHORT,
) -> Sheet:
    """One row a pair."""
    runs = [each.pair.run for each in found]
    empty = [name for name in SELDOM if all(missing(run.get(name)) for run in runs)]
    first = [column for column in first if column.name not in empty]
    kv = COLUMNS["kv_mib"].headed
    nats = replace(NATS, title=f"nats vs {base}")
    shares = _shares(runs)
    told = any(each.pair.answered for each in found)
    points = [replace(ALL["accuracy_difference"], title=f"points vs {base}")] if told else []
    asked = [*shares[:1], *points, *shares[1:]]
    columns = [*first, ALL["repeats"], PPL, nats, *asked, TIME, RATIO, kv, ALL[VERDICT]]
    rows = []
    for each in found:
        pair = each.pair
        texts = values(pair.run, shares)
        texts["accuracy_difference"] = "-" if pair.is_base else points_of(pair.answered)
        rows.append(
            [
                *cells(pair.run, list(first)),
                str(len(pair.times.every)),
                format_value(PPL, pair.run["ppl"]),
                "-" if pair.is_base else nats_of(pair.difference),
                *(texts[column.name] for column in asked),
                format_value(TIME, pair.times.median),
                "-" if pair.is_base else _ratio(pair),
                format_value(kv, pair.run["kv_mib"]),
                each.verdict,
            ]
        )
    return Sheet(heading, columns, rows, notes)


def _notes(
    found: Sequence[Judged],
    mode: str,
    base: str,
    *,
    apart: bool = False,
    without: Collection[str] = (),
) -> list[str]:
    """How the figures were made, but for columns that are not shown."""
    pairs = [each.pair for each in found]
    told = NATS.name not in without and any(pair.difference for pair in pairs)
    notes = [_of_nats(pairs, base)] if told else []
    if VERDICT not in without:
        notes += [*_equal(found), *_power(found)]
    if (several := tests(found)) > 1 and VERDICT not in without:
        notes.append(
            f"verdicts are Holm-corrected over the {several} comparisons of this table, intervals "
            "are not."
        )
    rows = _both(pairs)
    notes += [*answers(rows), *_of_answers(pairs, base)]
    if TIME.name in without and RATIO.name in without:
        return notes
    rounds = sorted({pair.rounds for pair in pairs if pair.rounds})
    most = max(len(pair.times.every) for pair in pairs)
    alone = any(pair.speed_up and not pair.rounds for pair in pairs)
    words = [f"speed-up: time of {base} divided by this row's"]
    if most > 1:
        words.insert(0, f"of several runs of a configuration {RULE}")
    if rounds:
        counts = " or ".join(map(str, rounds))
        what = "repeats, made at different times" if apart else "rounds"
        words.append(f"95 % interval by Student's t on the logs of {counts} {what}")
    if alone:
        words.append(APART if apart else ONE_EACH if most == 1 else NO_TURNS)
    return [*notes, f"{timed(mode, rows)}; {'; '.join(words)}.", *doubted(rows)]


def _both(pairs: Sequence[Pair]) -> list[Row]:
    """The runs of pairs and those that they are held against, with how long these waited."""
    return [
        row | {"compared_waited": times.waited}
        for pair in pairs
        for row, times in ((pair.run, pair.times), (pair.base, pair.base_times))
        if row
    ]


def _of_nats(pairs: Sequence[Pair], base: str) -> str:
    note = f"nats: this row's minus those of {base}, mean over all scored tokens; lower is better"
    found = [
        (row_name(pair.run), pair.difference.scope, pair.difference.clusters)
        for pair in pairs
        if pair.difference and not pair.difference.equal
    ]
    return f"{note}{intervals(found)}."


def _of_answers(pairs: Sequence[Pair], base: str) -> list[str]:
    """How accuracies were compared, where they were."""
    told = [pair.answered for pair in pairs if pair.answered]
    if not told:
        return []
    laws = dict.fromkeys(each.law for each in told if not each.same)
    law = f"; 95 % interval {' or '.join(laws)}" if laws else ""
    return [f"points: percentage points of accuracy, this row's minus that of {base}{law}."]


def _shares(rows: Sequence[Row]) -> list[Column]:
    """Accuracy and horizon, where the runs have them."""
    asked = any(not missing(row[ACCURACY]) for row in rows)
    told = any(distances.horizon(row) for row in rows)
    return [ALL[name] for name, there in ((ACCURACY, asked), (HORIZON, told)) if there]


def _equal(found: Sequence[Judged]) -> list[str]:
    """By which test a difference is called none, where one is."""
    words = f"equal within {found[0].margin:g} nats"
    if not any(each.cost == words for each in found):
        return []
    return [f"{words}: by two one-sided tests at 5 %: the 90 % interval is within it."]


def _power(found: Sequence[Judged]) -> list[str]:
    """How much text would show a difference, where none is shown."""
    lacking = [(each, each.pair.difference) for each in found if each.needed]
    if not lacking:
        return []
    counts = [f"{row_name(e.pair.run)} {_about(e.needed or 0)}" for e, _ in lacking]
    of_one = any(difference and difference.documents == 1 for _, difference in lacking)
    margin = found[0].margin
    return [
        f"no difference shown: to show one of {margin:g} nats ({math.expm1(margin):.1%} of "
        f"perplexity) with 80 % power takes about so many "
        f"{'tokens of this text' if of_one else 'documents'}: {'; '.join(counts)}."
    ]


def _about(count: int) -> str:
    """A count with two digits."""
    return f"{int(float(f'{count:.2g}')):,}"


def nats_of(difference: Difference | None) -> str:
    """A difference with its interval, two digits of the interval's width."""
    if difference is None or math.isnan(difference.nats.estimate):
        return "-"
    nats = difference.nats
    if difference.equal:
        return "0.0000"
    places = decimals(nats)
    if not nats.known:
        return f"{nats.estimate:+.{places}f}"
    return f"{nats.estimate:+.{places}f} [{nats.low:+.{places}f}, {nats.high:+.{places}f}]"


def points_of(told: Answered | None) -> str:
    """A difference of accuracies with its interval, in percentage points."""
    if told is None:
        return "-"
    share, low, high = (100 * x for x in (told.share.estimate, told.share.low, told.share.high))
    return f"{share:+.1f} [{low:+.1f}, {high:+.1f}]"


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
