"""Which runs may stand in one panel, and what a caption says of them.

A panel holds runs that share everything in ``comparison.SAME``. Where the database holds several
such groups, the one with the most to show is drawn, and of equals the newest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from core.registry import DATASETS, METHODS
from streamcli.results.columns import COLUMNS, format_value
from streamcli.results.comparison import BUDGETLESS, time_column
from streamcli.results.schema import SAME_RUN

if TYPE_CHECKING:
    import pandas as pd

SETTING = ("model", "weights_sha256", "dtype", "device", "threads", "host", "batch_size")
MODE = ("mode", "context_tokens")
TEXT = ("dataset", "tokens_sha256")
SAME_CODE = ("git_commit", "git_dirty", "versions", "cpu", "gpu")  # repeats of other code differ
TOLD = (  # of a run, by a caption or an axis
    "run_id",
    "created_at",
    "method",
    "n_sink",
    "window",
    "evict_every",
    "attended_keys",
    "scored_tokens",
    "documents",
    "trained_length",
    "ppl",
    "ms_per_token",
    "ms_per_token_p50",
    "kv_mib",
    "kv_formula_mib",
)
READ = tuple(dict.fromkeys((*SETTING, *MODE, *TEXT, *SAME_RUN, *SAME_CODE, *TOLD)))
TEXTS = 2  # in one figure
DECODE = "decode-loop"


@dataclass(frozen=True)
class Point:
    """The latest run of a configuration, and how far its repeats by the same code spread.

    Attributes:
        run: Its columns; None where there is no value.
        ms: Median over the repeats of the time a token, as the mode tells it.
        ms_range: Lowest and highest of them.
        ppl_range: Lowest and highest perplexity of them.
        repeats: How many there are.
    """

    run: Mapping[str, Any]
    ms: float
    ms_range: tuple[float, float]
    ppl_range: tuple[float, float]
    repeats: int

    @property
    def method(self) -> str:
        """The cache method."""
        return str(self.run["method"])

    @property
    def ppl(self) -> float:
        """Perplexity of the latest run."""
        return float(self.run["ppl"])

    @property
    def drawable(self) -> bool:
        """Whether it has a finite perplexity and a time."""
        return self.run["ppl"] is not None and math.isfinite(self.ppl) and self.ms > 0

    @property
    def kept(self) -> int:
        """S + W, the tokens that the cache keeps."""
        return int(self.run["n_sink"]) + int(self.run["window"] or 0)

    @property
    def lazy(self) -> bool:
        """Whether eviction was put off where it need not be: another budget, so another name."""
        return (self.run["evict_every"] or 1) > 1 and self.method != "kvpress-interval"

    @property
    def label(self) -> str:
        """The method, with k where eviction was put off."""
        return f"{self.method}, k = {self.run['evict_every']}" if self.lazy else self.method

    def of(self, names: Iterable[str]) -> tuple[Any, ...]:
        """The values of these columns."""
        return tuple(self.run[name] for name in names)


@dataclass(frozen=True)
class Chosen:
    """What a figure draws.

    Attributes:
        panels: One list of points a panel, none of them empty.
        budget: S and W, where all share them.
        others: How many more panels the database could fill.
    """

    panels: list[list[Point]]
    budget: tuple[int, int] | None
    others: int

    @property
    def points(self) -> list[Point]:
        """Every point of every panel."""
        return [point for panel in self.panels for point in panel]


Pick = Callable[[list[Point]], list[Point]]
NOTHING = Chosen([], None, 0)


def points(runs: pd.DataFrame) -> list[Point]:
    """The latest run of each configuration, ``drawable`` or not."""
    if runs.empty:
        return []
    rows = runs[list(READ)].sort_values("run_id", ascending=False)
    means = rows["mode"].map(lambda mode: time_column(mode) == "ms_per_token")
    rows = rows.assign(_ms=rows["ms_per_token"].where(means, rows["ms_per_token_p50"]))
    latest = rows.drop_duplicates(list(SAME_RUN)).copy()
    alike = [*SAME_RUN, *SAME_CODE]
    groups = rows.groupby(alike, dropna=False, sort=False)
    for name in ("_ms", "ppl"):
        for what in ("min", "max"):
            latest[f"{name}_{what}"] = groups[name].transform(what)
    latest["_median"], latest["_size"] = groups["_ms"].transform("median"), groups.transform("size")
    plain = latest.astype(object).where(latest.notna(), None).to_dict("records")
    return [
        Point(
            run,
            run["_median"] or 0,
            (run["_ms_min"], run["_ms_max"]),
            (run["ppl_min"], run["ppl_max"]),
            run["_size"],
        )
        for run in plain
    ]


def choose(found: list[Point], pick: Pick, *, modes_apart: bool = True) -> Chosen:
    """The panels of one setting, a text each, that have the most points of those ``pick`` takes.

    Args:
        found: Every point.
        pick: From the points of one comparison those that are drawn; empty where it has too few.
        modes_apart: Whether all panels share the mode; otherwise each text has a panel a mode.
    """
    setting = (*SETTING, *MODE) if modes_apart else SETTING
    panel = (*TEXT, *MODE)
    best, rank, seen = NOTHING, (0, False, ""), 0
    for group in _groups(found, setting):
        by_text: dict[tuple[Any, ...], list[list[Point]]] = {}
        for same in _groups(group, panel):
            if picked := pick(same):
                by_text.setdefault(same[0].of(("dataset", "mode")), []).append(picked)
                seen += 1
        panels = _few_texts([max(many, key=_worth) for many in by_text.values()])
        drawn = [point for each in panels for point in each]
        mine = (len(drawn), drawn[0].run["mode"] == DECODE, _newest(drawn)) if drawn else rank
        if mine > rank:
            best, rank = Chosen(panels, None, 0), mine
    return Chosen(best.panels, None, seen - len(best.panels))


def choose_budget(found: list[Point], keep: Pick, *, modes_apart: bool = True) -> Chosen:
    """As ``choose``, for the one pair of S and W that shows the most.

    Window attention stands at S + W, which is its budget, and dense, which has none, at every one.
    """
    best, rank, others = NOTHING, (0, ""), 0
    for n_sink, window in dict.fromkeys(budget(p) for p in found if p.method not in BUDGETLESS):

        def pick(same: list[Point], s: int = n_sink, w: int = window) -> list[Point]:
            return keep(one_a_label([p for p in same if fits(p, s, w)]))

        chosen = choose(found, pick, modes_apart=modes_apart)
        mine = (len(chosen.points), _newest(chosen.points))
        others += len(chosen.panels) + chosen.others
        if mine > rank:
            best, rank = Chosen(chosen.panels, (n_sink, window), 0), mine
    return Chosen(best.panels, best.budget, others - len(best.panels))


def one_a_label(same: list[Point]) -> list[Point]:
    """The newest point of each label, in the order of the registry."""
    newest: dict[str, Point] = {}
    for point in same:
        newest.setdefault(point.label, point)
    return sorted(newest.values(), key=lambda point: (place(METHODS, point.method), point.label))


def place(table: Iterable[str], name: str) -> int:
    """Where a name stands in a table, the end where it doesn't."""
    names = list(table)
    return names.index(name) if name in names else len(names)


def commonest(values: Iterable[int]) -> int:
    """The value that occurs most often, the largest of equals; 0 of none."""
    counted = Counter(values)
    return max(counted, key=lambda value: (counted[value], value), default=0)


def at_common_sinks(same: list[Point]) -> list[Point]:
    """The newest of each method and W at the commonest S, with window attention and dense.

    None whose eviction is put off, since that is another budget.
    """
    eager = [point for point in same if not point.lazy]
    free = [p for p in eager if p.method == "window" or p.method in BUDGETLESS]
    s = commonest(int(p.run["n_sink"]) for p in eager if p not in free)
    newest: dict[tuple[str, int], Point] = {}
    for point in eager:
        if point in free or point.run["n_sink"] == s:
            size = 0 if point.method in BUDGETLESS else point.kept
            newest.setdefault((point.label, size), point)
    return list(newest.values())


def subtitle(chosen: Chosen, words: str = "") -> str:
    """Model, texts, budget and mode, in words."""
    model, modes = chosen.points[0].run["model"], _names(p.run["mode"] for p in chosen.points)
    texts = _names(p.run["dataset"] for p in chosen.points)
    if chosen.budget:
        words = "S + W = {:,} + {:,}".format(*chosen.budget)
    if " and " in modes:  # each panel names its own
        modes = ""
    said = [f"{model} on {texts}", words.replace(" ", "\N{NO-BREAK SPACE}"), modes]
    return ", ".join(filter(None, said))


def heading(panel: list[Point]) -> str:
    """The text that a panel is about."""
    return str(panel[0].run["dataset"])


def circumstances(chosen: Chosen) -> str:
    """How many tokens, in what format, on which machine, when and by which code."""
    every = chosen.points
    first = every[0].run
    texts = dict.fromkeys(
        f"{p.run['dataset']}: {p.run['scored_tokens']:,} tokens scored"
        f"{_documents(p.run['documents'])}{_mode(p, chosen)}"
        for p in every
    )
    device = first["gpu"] or "GPU" if str(first["device"]).startswith("cuda") else first["cpu"]
    threads = f", {_count(first['threads'], 'thread')}" if first["threads"] else ""
    batch = f", {first['batch_size']} streams side by side" if first["batch_size"] > 1 else ""
    where = f"{first['dtype']} on {first['device']}{threads}{batch} ({device}; {first['host']})"
    days = sorted({_day(p.run["created_at"]) for p in every})
    when = days[0].strftime("%d %B %Y").lstrip("0")
    if days[-1] != days[0]:
        when += f" to {days[-1].strftime('%d %B %Y').lstrip('0')}"
    dirty = any(point.run["git_dirty"] for point in every)
    code = _names(
        format_value(COLUMNS["git_commit"], p.run["git_commit"])
        for p in every
        if p.run["git_commit"]
    )
    code = code and f" at commit {code}{' with local changes' if dirty else ''}"
    said = f"{'; '.join(texts)}. {where}. Run {when}{code}."
    if chosen.others:
        said += (
            " Other runs are not shown: choose with --model, --dataset, --mode, --since or --sweep."
        )
    return said


def repeats(every: list[Point], what: str, *, median: bool = True) -> str:
    """What the error bars are, or that there are none."""
    counts = sorted({point.repeats for point in every if point.repeats > 1})
    if not counts:
        return "No configuration was repeated, so there are no error bars."
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    single = any(point.repeats == 1 for point in every)
    middle = ", a mark their median" if median else ", a mark the latest"
    return f"Error bars: lowest to highest {what} of {span} repeats{middle}" + (
        "; a mark without a bar was run once." if single else "."
    )


def fits(point: Point, n_sink: int, window: int) -> bool:
    """Whether a run stands at this budget, or at every one."""
    if point.method in BUDGETLESS:
        return True
    total = point.kept == n_sink + window
    return total if point.method == "window" else budget(point) == (n_sink, window)


def budget(point: Point) -> tuple[int, int]:
    """S and W."""
    return int(point.run["n_sink"]), int(point.run["window"] or 0)


def _groups(found: list[Point], columns: tuple[str, ...]) -> list[list[Point]]:
    groups: dict[tuple[Any, ...], list[Point]] = {}
    for point in found:
        groups.setdefault(point.of(columns), []).append(point)
    return list(groups.values())


def _worth(panel: list[Point]) -> tuple[int, str]:
    return len(panel), _newest(panel)


def _newest(panel: list[Point]) -> str:
    return max((point.run["run_id"] for point in panel), default="")


def _few_texts(panels: list[list[Point]]) -> list[list[Point]]:
    """The panels of the texts that show the most, text by text, decode-loop first."""

    def order(panel: list[Point]) -> tuple[int, str, bool, str]:
        run = panel[0].run
        return (
            place(DATASETS, run["dataset"]),
            run["dataset"],
            run["mode"] != DECODE,
            run["mode"],
        )

    texts = [list(each) for _, each in groupby(sorted(panels, key=order), key=heading)]
    fullest = sorted(texts, key=lambda text: _worth([p for panel in text for p in panel]))[-TEXTS:]
    return [panel for text in texts if text in fullest for panel in text]


def _names(names: Iterable[str]) -> str:
    every = list(dict.fromkeys(names))
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _documents(number: int | None) -> str:
    return f" in {number:,} documents" if (number or 1) > 1 else ""


def _mode(point: Point, chosen: Chosen) -> str:
    one = len({each.run["mode"] for each in chosen.points}) == 1
    return "" if one else f" in {point.run['mode']}"


def _day(stamp: str) -> datetime:
    return datetime.fromisoformat(str(stamp)[:10])
