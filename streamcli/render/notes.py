"""Notes under a table: what its figures are, over what their intervals, what sets rows apart."""

from __future__ import annotations

from collections.abc import Sequence

from core import registry
from core.registry import BASELINE
from core.result import FILLING, WAITED
from streamcli.analysis import distances
from streamcli.analysis.clusters import scope
from streamcli.analysis.comparison import Comparison, Row, by_bytes, number, saw_tooths
from streamcli.analysis.repeats import OF_ROUNDS, RULE
from streamcli.analysis.statistics import ROUNDS
from streamcli.results.columns import ALL, missing

CHANGE, ACCURACY, HORIZON = "ppl_change", "accuracy", "horizon"
PROCESSORS = ("cpu", "gpu")
MARK = "*"  # on the keys of a row with another budget


def of_comparison(comparison: Comparison, mode: str) -> list[str]:
    """What holds for the table, then what was noted of some of its runs, and of which."""
    runs = comparison.runs
    methods: dict[str, list[str]] = {}
    for method, text in zip(runs["method"], runs["notes"].fillna(""), strict=True):
        for line in text.splitlines():
            methods.setdefault(line, []).append(str(method))
    notes = [
        "keys: the most a query may see, itself included; KV: all that is held between steps, "
        "working copies too; peak: of the process.",
        *changes(rows := comparison.rows),
        *answers(rows),
        f"{mode}: {timed(mode, rows)}{repeated(rows)}.",
        *doubted(rows),
        *_budgets(comparison),
    ]
    methods.pop(FILLING, None)
    for line, of in methods.items():
        names = list(dict.fromkeys(of))
        shared = len(of) == len(runs) or line.startswith(names[0])
        notes.append(line if shared else f"{', '.join(names)}: {line}")
    if comparison.older:
        what = "1 older run" if comparison.older == 1 else f"{comparison.older:,} older runs"
        notes.append(f"not shown: {what} of the same configurations.")
    return notes


def row_name(row: Row) -> str:
    """What tells a row from the others of its table, in words."""
    words = [f"{int(row['attended_keys']):,} keys"]
    if "n_sink" in registry.recorded(str(row["method"])).sizes:
        words.append(f"S = {row['n_sink']}")
    return f"{row['method']} ({', '.join([*words, *filter(None, [row.get('variant')])])})"


def intervals(found: Sequence[tuple[str, str, str]]) -> str:
    """What the intervals of a table hold for, and why rows have none, to be added to a note.

    Args:
        found: Of each row its name, its interval's scope, and how that was made or why it is not.
    """
    scopes = list(dict.fromkeys(holds for _, holds, _ in found if holds))
    reasons: dict[str, list[str]] = {}
    for name, holds, why in found:
        if not holds:
            reasons.setdefault(why, []).append(name)
    parts = [f"; 95 % interval {' or '.join(scopes)}"] if scopes else []
    for why, names in reasons.items():
        of = "" if len(names) == len(found) else f" for {', '.join(names)}"
        parts.append(f"; no interval{of}: {why}")
    return "".join(parts)


def changes(rows: Sequence[Row]) -> list[str]:
    """The note on the intervals of changes of perplexity, where a table shows any change."""
    found = [
        (row_name(row), _scope(row), str(row["clusters"]))
        for row in rows
        if not missing(row["clusters"])
    ]
    words = intervals(found).removeprefix("; ")
    return [f"{ALL[CHANGE].title}: {words}."] if words else []


def answers(rows: Sequence[Row]) -> list[str]:
    """What accuracy and horizon are, where the text of a table asks questions."""
    asked = sorted({(int(r["questions"]), float(r["chance"])) for r in rows if _asked(r)})
    if not asked:
        return []
    counts = " or ".join(f"{questions:,}" for questions, _ in asked)
    told = any(distances.horizon(row) for row in rows)
    near = ", near and far together" if told else ""
    found = [
        f"{ACCURACY}: of the {counts} questions in the text, the share whose true answer was the "
        f"likeliest of its candidates{near}; guessing gives {asked[0][1]:.0%}; 95 % intervals by "
        "Wilson, as if questions were independent."
    ]
    return [*found, HORIZONS] if told else found


_FIRST = distances.NEAREST
HORIZONS = (
    f"{HORIZON}: up to how many tokens after it was told a fact is known better than by guessing. "
    f"Questions are counted by distance, to {_FIRST} tokens, to {2 * _FIRST}, to {4 * _FIRST} and "
    "so on; the horizon ends where the exact 95 % interval of such a span first reaches down to "
    "chance, and + stands where none does. Spans of too few questions to tell are passed over. "
    "`streamcli plot recall` draws all."
)


def _asked(row: Row) -> bool:
    return not missing(row.get(ACCURACY))


def _scope(row: Row) -> str:
    """For what the interval of a change holds; nothing where it has none."""
    return "" if missing(row[f"{CHANGE}_low"]) else scope(str(row["clusters"]))


def repeated(rows: Sequence[Row]) -> str:
    """The rule on repeats, to be added to a note where a row has some."""
    most = max((row.get("runs") or 1 for row in rows), default=1)
    ratios = f", and {OF_ROUNDS}" if most >= ROUNDS else ""
    told = f"; of several runs of a configuration {RULE}{ratios}"
    return told if most > 1 else ""


def timed(mode: str, rows: Sequence[Row]) -> str:
    """What the time a token of some runs is."""
    words = registry.mode(mode).time_words
    together = max(int(row["batch_size"]) for row in rows)
    if together > 1 and not registry.mode(mode).chunked:
        return f"{words}; each step reads a token of {together} documents"
    return words


def doubted(rows: Sequence[Row]) -> list[str]:
    """The notes on times of several processors, of a filling cache, or of threads that waited."""
    notes = []
    by: dict[str, list[str]] = {}
    for row in rows:
        names = [str(row[name]) for name in PROCESSORS if not missing(row.get(name))]
        by.setdefault(", ".join(names), []).append(row_name(row))
    if len(by) > 1:
        of = "; ".join(f"{name} in {', '.join(dict.fromkeys(rows))}" for name, rows in by.items())
        notes.append(f"times are of several processors, and are not to be compared: {of}.")
    filling = [row_name(row) for row in rows if FILLING in str(row["notes"])]
    if filling:
        of = ", ".join(dict.fromkeys(filling))
        notes.append(f"too few tokens to fill the cache: the time is of its filling in {of}.")
    waited = [(row, number(row["compared_waited"])) for row in rows]
    busy = [(row, share) for row, share in waited if share > WAITED]
    if busy:
        shares = dict.fromkeys(f"{share:.0%} in {row_name(row)}" for row, share in busy)
        fewer = ", or with --threads 1" if any(row["threads"] != 1 for row, _ in busy) else ""
        notes.append(
            "times are too long where other programs had the processors: share of the time that "
            f"a thread waited for one {', '.join(shares)}; run these again on an idle "
            f"machine{fewer}."
        )
    return notes


def marked(row: Row) -> bool:
    """Whether a run's keys are another budget's, or not the same at every step."""
    return row.get("budget", "equal") != "equal" or saw_tooths(row)


def _budgets(comparison: Comparison) -> list[str]:
    """What the marks mean, and how many keys the marked rows see."""
    rows: list[Row] = [row for row in comparison.rows if marked(row)]
    if not rows:
        return []
    parts = []
    for row in rows:
        mean = f", {row['attended_keys_mean']:,.0f} on average" if saw_tooths(row) else ""
        unit = " keys" if comparison.mib else ""
        size = f"up to {int(row['attended_keys']):,}{unit}{mean}"
        if by_bytes(row):
            size = f"in {row['budget_mib']:.4g} MiB"
        parts.append(f"{row['method']} {size}")
    if not comparison.keys and not comparison.mib:
        return [f"{MARK} no budget: {'; '.join(dict.fromkeys(parts))}."]
    sizes = [f"{each:,}" for each in comparison.keys]
    keys = f"{' or '.join(sizes)} keys" if sizes else ""
    mib = " or ".join(f"{each:.4g}" for each in comparison.mib)
    budget = " or ".join(filter(None, (keys, mib and f"{mib} MiB")))
    base = "re-computation" if comparison.baseline == BASELINE else comparison.baseline
    whose = base if any(comparison.runs["method"] == comparison.baseline) else "most rows"
    return [f"{MARK} not the {budget} of {whose}: {'; '.join(dict.fromkeys(parts))}."]
