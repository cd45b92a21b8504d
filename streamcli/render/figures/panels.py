"""Which runs may stand in one panel.

A panel holds runs that share everything in ``comparison.SAME``, and the processor. Where the
database holds several such groups, the one with the most to show is drawn, of equals the newest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from core import registry
from core.registry import DATASETS, MethodSpec
from streamcli.analysis import repeats
from streamcli.analysis.comparison import has_budget, own_options, rows_of
from streamcli.analysis.repeats import TIMED, Key, Times
from streamcli.results.columns import AROUND, SAME_RUN, SHARED, Group, chosen

if TYPE_CHECKING:
    import pandas as pd

MODE = ("mode", "context_tokens")
TEXT = ("dataset", "tokens_sha256")
MACHINE = ("threads", "host", "cpu", "gpu")
SETTING = tuple(dict.fromkeys((*(n for n in SHARED if n not in (*MODE, *TEXT)), *MACHINE)))
TOLD = (  # of a run, by a caption or an axis
    *chosen(Group.RUN, Group.METHOD, Group.MEMORY, Group.ANSWERS, Group.WORDS, stored=True),
    *AROUND,
    *("scored_tokens", "documents", "trained_length", "attended_keys_mean"),
)
CHANGE = ("ppl_change", "ppl_change_low", "ppl_change_high")  # where runs were compared
READ = tuple(dict.fromkeys((*SETTING, *MODE, *TEXT, *SAME_RUN, *TIMED, *TOLD, *CHANGE)))
TEXTS = 2  # in one figure
Budget: TypeAlias = tuple[int, int] | float  # S and W, or MiB where these were asked for


@dataclass(frozen=True)
class Point:
    """The latest run of a configuration, and how far its repeats at its commit spread.

    Attributes:
        run: Its columns; None where there is no value.
        times: Of it and its repeats.
        variant: The options that its method alone has, where other points have others, in words.
        nth: Which of these variants of its method it is.
    """

    run: Mapping[str, Any]
    times: Times
    variant: str = ""
    nth: int = 0

    @property
    def method(self) -> str:
        """The cache method."""
        return str(self.run["method"])

    @property
    def spec(self) -> MethodSpec:
        """What the method is."""
        return registry.recorded(self.method)

    @property
    def bounded(self) -> bool:
        """Whether it has a budget."""
        return has_budget(self.run)

    @property
    def ppl(self) -> float:
        """Perplexity of the latest run."""
        return float(self.run["ppl"])

    @property
    def judged(self) -> bool:
        """Whether the change of its perplexity against re-computation has an interval."""
        return self.run["ppl_change_low"] is not None and self.run["ppl_change_high"] is not None

    @property
    def ppl_bar(self) -> tuple[float, float]:
        """The ends of its bar: of that interval, set about re-computation's; else of repeats."""
        if not self.judged:
            return _ends(self.times.ppl)
        change, *ends = (float(self.run[name]) for name in CHANGE)
        low, high = (self.ppl / (1 + change) * (1 + end) for end in ends)
        return low, high

    @property
    def ms_bar(self) -> tuple[float, float]:
        """The ends of its bar: the shortest and the longest of its repeats."""
        return _ends(self.times.every)

    @property
    def ms(self) -> float:
        """Median over the repeats of the time a token, as the mode tells it; NaN of none."""
        return self.times.median

    @property
    def repeats(self) -> int:
        """How many repeats there are, itself included."""
        return max(1, len(self.times.every))

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
        """Whether eviction was put off further than its method does: it then sees more keys."""
        return (self.run["evict_every"] or 1) > (self.spec.evict_every or 1)

    @property
    def label(self) -> str:
        """The method and its variant, k where eviction was put off, how its step is executed."""
        words = [self.method, *([self.variant] if self.variant else [])]
        words += [f"k = {self.run['evict_every']}"] if self.lazy else []
        engine = self.run["engine"]
        return ", ".join([*words, *([engine] if engine not in (None, "eager") else [])])

    def of(self, names: Iterable[str]) -> tuple[Any, ...]:
        """The values of these columns."""
        return tuple(self.run[name] for name in names)


@dataclass(frozen=True)
class Chosen:
    """What a figure draws.

    Attributes:
        panels: One list of points a panel, none of them empty.
        budget: S and W, or MiB, where all share them.
        others: How many more panels the database could fill.
    """

    panels: list[list[Point]]
    budget: Budget | None
    others: int

    @property
    def kept(self) -> int:
        """S + W, where all share them; 0 where they don't."""
        return sum(self.budget) if isinstance(self.budget, tuple) else 0

    @property
    def budget_in_words(self) -> str:
        """The budget that all share, if any."""
        if isinstance(self.budget, tuple):
            return "S + W = {:,} + {:,}".format(*self.budget)
        return "" if self.budget is None else f"{self.budget:g} MiB of keys and values"

    @property
    def points(self) -> list[Point]:
        """Every point of every panel."""
        return [point for panel in self.panels for point in panel]

    def among(self, choices: Iterable[Chosen]) -> Chosen:
        """The same, its ``others`` raised by the panels of ``choices`` that show more than it."""
        drawn = {point.run["run_id"] for point in self.points}
        panels = (panel for choice in choices for panel in choice.panels)
        more = sum(any(point.run["run_id"] not in drawn for point in each) for each in panels)
        return replace(self, others=self.others + more)


Pick = Callable[[list[Point]], list[Point]]
NOTHING = Chosen([], None, 0)


def points(runs: pd.DataFrame, times: Mapping[Key, Times] | None = None) -> list[Point]:
    """The latest run of each configuration, ``drawable`` or not.

    Args:
        runs: Runs, of which the latest of each configuration counts.
        times: Of these and their repeats; None where the repeats are among ``runs``.
    """
    if runs.empty:
        return []
    rows = runs.reindex(columns=list(READ)).sort_values("run_id", ascending=False)
    plain = rows.astype(object).where(rows.notna(), None)
    if times is None:
        times = repeats.times(plain[list(TIMED)].itertuples(index=False, name=None))
    latest = rows_of(plain.drop_duplicates(list(SAME_RUN)))
    found = [Point(run, times.get(repeats.key(run), Times())) for run in latest]
    return _told_apart(found)


def _told_apart(found: list[Point]) -> list[Point]:
    """The same, of a method those that have options of its own that others have otherwise."""
    words = own_options([point.run for point in found])
    variants: dict[str, list[str]] = {}
    for point, each in zip(found, words, strict=True):
        variants.setdefault(point.method, []).append(each)
    order = {method: sorted(set(each), reverse=True) for method, each in variants.items()}
    return [
        replace(point, variant=each, nth=order[point.method].index(each))
        for point, each in zip(found, words, strict=True)
    ]


def _ends(values: list[float]) -> tuple[float, float]:
    known = [value for value in values if not math.isnan(value)]
    return (min(known), max(known)) if known else (math.nan, math.nan)


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
        mine = (len(drawn), _is_first_mode(drawn[0]), _newest(drawn)) if drawn else rank
        if mine > rank:
            best, rank = Chosen(panels, None, 0), mine
    return Chosen(best.panels, None, seen - len(best.panels))


def choose_budget(found: list[Point], keep: Pick, *, modes_apart: bool = True) -> Chosen:
    """As ``choose``, for the one pair of S and W, or number of MiB, that shows the most.

    Window attention stands at S + W, which is its budget, and dense, which has none, at every one.
    """
    best, rank, every = NOTHING, (0, ""), []
    for size in dict.fromkeys(budget(p) for p in found if p.bounded):

        def pick(same: list[Point], size: Budget = size) -> list[Point]:
            return keep(one_a_label([p for p in same if fits(p, size)]))

        chosen = choose(found, pick, modes_apart=modes_apart)
        mine = (len(chosen.points), _newest(chosen.points))
        every.append(chosen)
        if mine > rank:
            best, rank = Chosen(chosen.panels, size, chosen.others), mine
    return best.among(every)


def one_a_label(same: list[Point]) -> list[Point]:
    """The newest point of each label, in the order of the registry."""
    newest: dict[str, Point] = {}
    for point in same:
        newest.setdefault(point.label, point)
    return sorted(newest.values(), key=lambda point: (registry.place(point.method), point.label))


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
    free = [p for p in eager if p.spec.budget == "window" or not p.bounded]
    s = commonest(int(p.run["n_sink"]) for p in eager if p not in free)
    newest: dict[tuple[str, int], Point] = {}
    for point in eager:
        if point in free or point.run["n_sink"] == s:
            size = point.kept if point.bounded else 0
            newest.setdefault((point.label, size), point)
    return list(newest.values())


def heading(panel: list[Point]) -> str:
    """The text that a panel is about."""
    return str(panel[0].run["dataset"])


def fits(point: Point, size: Budget) -> bool:
    """Whether a run stands at this budget, or at every one."""
    if not point.bounded:
        return True
    mine = budget(point)
    if point.spec.budget == "window" and isinstance(size, tuple) and isinstance(mine, tuple):
        return sum(mine) == sum(size)
    return mine == size


def budget(point: Point) -> Budget:
    """S and W, or the MiB that they were made to fit."""
    if point.run["budget_mib"] is not None:
        return float(point.run["budget_mib"])
    return int(point.run["n_sink"]), int(point.run["window"] or 0)


def _is_first_mode(point: Point) -> bool:
    """Whether a run is in the mode that is shown first."""
    return bool(point.run["mode"] == next(iter(registry.MODES)))


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
            not _is_first_mode(panel[0]),
            run["mode"],
        )

    texts = [list(each) for _, each in groupby(sorted(panels, key=order), key=heading)]
    fullest = sorted(texts, key=lambda text: _worth([p for panel in text for p in panel]))[-TEXTS:]
    return [panel for text in texts if text in fullest for panel in text]
