"""Published figures, each with its source, and the runs of ours that answer to them.

The figures are data, ``data/bundled/published.json``: tables of the seed report, mode by mode and
text by text, series of perplexities from papers, and speed-ups.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

from core.packaged import bundled
from core.registry import MODES
from streamcli.analysis.comparison import Comparison, Row, comparisons, number, same_budget

if TYPE_CHECKING:
    import pandas as pd

FILE = "published.json"
SEED = "seed"  # the source whose tables ours stand beside


@dataclass(frozen=True)
class Source:
    """Who published figures.

    Attributes:
        name: The source in words.
        model: The model that was measured, by the name that the Hub has for it; empty where there
            were several.
        differs: What is not as it is here.
    """

    name: str
    model: str
    differs: str


@dataclass(frozen=True)
class Text:
    """A text of the seed report.

    Attributes:
        name: What it is called.
        stand_in: The bundled text that stands in for it here.
    """

    name: str
    stand_in: str


@dataclass(frozen=True)
class Published:
    """One row of a table of the seed report.

    Attributes:
        mode: The mode of ours that it answers to.
        dataset: Its text.
        method: The method of ours that it answers to; there, baseline, ours, MIT-style, kvpress.
        ppl: Perplexity.
        total_s: Seconds for the whole stream.
        speed_up: The time of re-computation over this one's; as printed, where one was printed.
        why: Why the figure is not the method's; empty where it is.
        really: The method of ours that does what was run, where there is one.
    """

    mode: str
    dataset: str
    method: str
    ppl: float
    total_s: float
    speed_up: float
    why: str = ""
    really: str = ""

    def as_printed(self) -> tuple[str, str, str]:
        """Perplexity, seconds and speed-up as they were published, digit by digit."""
        seconds = f"{self.total_s:.2f}" if self.total_s > 1 else f"{self.total_s:g}"
        return f"{self.ppl:.2f}", seconds, f"{self.speed_up:.2f}x"


@dataclass(frozen=True)
class Series:
    """Perplexities that were published together.

    Attributes:
        source: Who published them, by key.
        model: What was measured.
        text: On what; empty where it is not told.
        setting: What was the same for all of them.
        by: What varies.
        values: Perplexities by the value of what varies.
        table: The paper's table that they stand in, where ``streamcli paper`` makes it.
    """

    source: str
    model: str
    text: str
    setting: str
    by: str
    values: dict[str, float]
    table: str = ""


@dataclass(frozen=True)
class SpeedUp:
    """A speed-up that was published.

    Attributes:
        source: Who published it, by key.
        model: What was measured.
        setting: On what machine, with what cache.
        over: The method of ours that it is over.
        value: The ratio of times a token.
    """

    source: str
    model: str
    setting: str
    over: str
    value: float


@dataclass(frozen=True)
class Figures:
    """All that is in the file.

    Attributes:
        sources: Who published, by key.
        texts: The texts of the seed report, by the name of our dataset.
        tables: The rows of the seed report by mode and text, in its order.
        printed: Tables whose speed-ups were printed, and are not those of their seconds.
        series: Perplexities from elsewhere.
        speed_ups: Speed-ups from elsewhere.
    """

    sources: dict[str, Source]
    texts: dict[str, Text]
    tables: dict[tuple[str, str], list[Published]]
    printed: frozenset[tuple[str, str]]
    series: list[Series]
    speed_ups: list[SpeedUp]

    @property
    def methods(self) -> list[str]:
        """The methods of the seed report, in its order."""
        return list(dict.fromkeys(row.method for rows in self.tables.values() for row in rows))

    @property
    def artefacts(self) -> list[Published]:
        """The rows that are not what they seem."""
        return [row for rows in self.tables.values() for row in rows if row.why]


@cache
def figures() -> Figures:
    """What was published, read once."""
    found = json.loads(bundled(FILE).read_text(encoding="utf-8"))
    tables = {(each["mode"], each["text"]): each["rows"] for each in found["seed_tables"]}
    return Figures(
        sources={key: Source(**each) for key, each in found["sources"].items()},
        texts={name: Text(**each) for name, each in found["texts"].items()},
        tables={key: _rows_of(*key, rows) for key, rows in tables.items()},
        printed=frozenset(key for key, rows in tables.items() if "speed_up" in rows[0]),
        series=[Series(**each) for each in found["series"]],
        speed_ups=[SpeedUp(**each) for each in found["speed_ups"]],
    )


def _rows_of(mode: str, text: str, rows: list[dict[str, Any]]) -> list[Published]:
    """The rows of a table; the first is what the speed-ups are over."""
    slowest = rows[0]["total_s"]
    return [Published(mode, text, **{"speed_up": slowest / row["total_s"], **row}) for row in rows]


@dataclass(frozen=True)
class SeedTable:
    """One table of the seed report and what this database has to hold against it.

    Attributes:
        mode: Its mode.
        dataset: Its text.
        published: Its rows by method; none where the report has no such table.
        ours: The runs that answer to it; None where there are none.
        rows: The newest run of each method among them, all with one S and W, or one budget; their
            ``speed_up`` is of the time for the whole stream, as the seed report's is.
    """

    mode: str
    dataset: str
    published: dict[str, Published]
    ours: Comparison | None
    rows: dict[str, Row]


def seed_tables(runs: pd.DataFrame, mode: str | None, dataset: str | None) -> list[SeedTable]:
    """Tables of the seed report, each with the runs of ours that answer to it best.

    Those of ``mode`` and ``dataset`` where these are named; one of which nothing was published only
    where there are runs of ours. Models of another softmax than their own are left out.
    The same text is best, or else its bundled stand-in; then Pythia-70M; then the comparison with
    most of the methods, and of those the newest.
    """
    known = figures()
    runs = runs[runs["softmax_type"].isna()]
    texts = {name: _text(name) for name in runs["dataset"].unique()}
    found = comparisons(runs[runs["dataset"].isin([name for name in texts if texts[name]])])
    held = [(each, _rows(each)) for each in found]
    made = []
    for table_mode, text in product([mode] if mode else MODES, known.texts):
        if dataset and text != _text(dataset):
            continue
        alike = [pair for pair in held if pair[0].same["mode"] == table_mode]
        alike = [pair for pair in alike if texts[pair[0].same["dataset"]] == text]
        ours, rows = max(alike, key=lambda pair: _likeness(*pair), default=(None, {}))
        theirs = {row.method: row for row in known.tables.get((table_mode, text), ())}
        if ours or theirs:
            made.append(SeedTable(table_mode, text, theirs, ours, rows))
    return made


def _text(name: str) -> str:
    """Which text of the seed report a dataset of ours stands for; empty where it is none."""
    plain = name.partition(":")[0]
    texts = figures().texts
    return next((text for text in texts if plain in (text, texts[text].stand_in)), "")


def _likeness(ours: Comparison, rows: dict[str, Row]) -> tuple[bool, bool, int]:
    known = figures()
    same_text = ours.same["dataset"] not in {text.stand_in for text in known.texts.values()}
    model = known.sources[SEED].model.rpartition("/")[2]
    same_model = str(ours.same["model"]).endswith(model)
    return same_text, same_model, len(set(known.methods) & set(rows))


def _rows(ours: Comparison) -> dict[str, Row]:
    """The newest run of each method with the budget of the newest baseline.

    It is S and W that must be alike: in a chunk ``mit`` and ``kvpress`` see what their own code
    shows them, as they did in the seed report.
    """
    rows: list[Row] = sorted(ours.rows, key=lambda row: str(row["run_id"]), reverse=True)
    bases = [row for row in rows if row["method"] == ours.baseline]
    like = (bases or [row for row in rows if row["attended_keys"] in ours.keys] or rows)[0]
    methods = figures().methods
    found: dict[str, Row] = {}
    for row in rows:
        asked = all(row[name] == like[name] for name in ("n_sink", "window"))
        if asked or same_budget(row, like) or row["method"] not in methods:
            found.setdefault(str(row["method"]), row)
    base = found.get(ours.baseline)
    return {method: row | {"speed_up": _speed_up(row, base)} for method, row in found.items()}


def _speed_up(row: Row, base: Row | None) -> float | None:
    """Seconds of ``base`` over those of ``row``, where it is what ``row`` is held against."""
    if not base or row["baseline_run_id"] != base["run_id"] or not number(row["total_s"]) > 0:
        return None
    return number(base["total_s"]) / number(row["total_s"])
