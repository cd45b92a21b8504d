"""Published figures to be printed beside ours, each with its source, and why some are not so.

The seed report's are of Pythia-70M on a GPU. The paper's are from two public transcriptions of it
that agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from core.registry import MODES
from streamcli.analysis.comparison import Comparison, Row, comparisons, number, same_budget

if TYPE_CHECKING:
    import pandas as pd

SEED = "the seed report, Pythia-70M on a GPU"
PAPER = "Xiao et al. 2023 (arXiv 2309.17453), as two public transcriptions have it"
PACKAGE = "benchmark of the package attention_sinks"
STAND_INS = {"wikitext": "bundled-encyclopedia", "pg19": "bundled-narrative"}
TEXTS = {"wikitext": "WikiText-103", "pg19": "PG19"}
METHODS = ("recompute", "streaming", "mit", "kvpress")  # in the order of the seed's tables


@dataclass(frozen=True)
class Published:
    """One row of a table of the seed report.

    Attributes:
        mode: The mode of ours that it answers to.
        dataset: Its text.
        method: The method of ours that it answers to; there, baseline, ours, MIT-style, kvpress.
        ppl: Perplexity.
        total_s: Seconds for the whole stream.
        why: Why the figure is not the method's; empty where it is.
        really: The method of ours that does what was run, where there is one.
    """

    mode: str
    dataset: str
    method: str
    ppl: float
    total_s: float
    why: str = ""
    really: str = ""


NEVER_EVICTED = (
    "Its loop compressed once and never evicted again: the cache ended at {} keys, past Pythia's "
    "2,048 positions for {} of the tokens."
)
NO_OP = (
    "It ran with a compression ratio of 0.0: the press did nothing, and the speed-up is CUDA's "
    "warm-up."
)
FIGURES = (
    Published("decode-loop", "wikitext", "recompute", 36.72, 18.80),
    Published("decode-loop", "wikitext", "streaming", 36.79, 10.95),
    Published("decode-loop", "wikitext", "mit", 36.79, 12.10),
    Published(
        *("decode-loop", "wikitext", "kvpress", 39.14, 10.04),
        *(NEVER_EVICTED.format("2,895", "25 %"), "kvpress-prefill"),
    ),
    Published("decode-loop", "pg19", "recompute", 57.68, 23.79),
    Published("decode-loop", "pg19", "streaming", 57.99, 13.75),
    Published("decode-loop", "pg19", "mit", 57.99, 14.99),
    Published(
        *("decode-loop", "pg19", "kvpress", 69.51, 12.77),
        *(NEVER_EVICTED.format("3,584", "38 %"), "kvpress-prefill"),
    ),
    Published("chunked", "wikitext", "recompute", 36.72, 17.64),
    Published("chunked", "wikitext", "streaming", 36.79, 11.93),
    Published("chunked", "wikitext", "mit", 36.79, 10.96),
    Published("chunked", "wikitext", "kvpress", 40.46, 0.041, NO_OP),
    Published("chunked", "pg19", "recompute", 57.68, 23.81),
    Published("chunked", "pg19", "streaming", 57.99, 13.94),
    Published("chunked", "pg19", "mit", 57.99, 15.31),
    Published("chunked", "pg19", "kvpress", 58.04, 0.045, NO_OP),
)
PRINTED = {  # speed-ups as printed, where they are not the ratio of the times as printed
    ("chunked", "wikitext"): {"recompute": 1.0, "streaming": 1.55, "mit": 1.68, "kvpress": 7.79},
    ("chunked", "pg19"): {"recompute": 1.0, "streaming": 1.67, "mit": 1.52, "kvpress": 7.03},
}
ARTEFACTS = tuple(figure for figure in FIGURES if figure.why)


@dataclass(frozen=True)
class Quoted:
    """A series of published perplexities.

    Attributes:
        what: Model, text and what varies.
        values: Perplexities by the value of what varies.
        source: Who published it.
    """

    what: str
    values: dict[str, float]
    source: str


SINKS = ("0", "1", "2", "4", "8")
QUOTED = (
    Quoted(
        "Llama-2-13B, PG19 book 1, cache 1024, by method",
        {"dense": 5641, "window": 5158, "4+1020": 5.40, "recompute": 5.43},
        PAPER,
    ),
    Quoted(
        "Pythia-12B, concatenated PG19, cache 2048, by sinks",
        dict(zip(SINKS, (21.62, 11.95, 12.09, 12.09, 12.02), strict=True)),
        PAPER,
    ),
    Quoted(
        "Pythia-12B, concatenated PG19, 4 sinks, by window",
        {"252": 13.17, "508": 12.52, "1020": 12.08, "2044": 12.09},
        PAPER,
    ),
    Quoted(
        "Llama-2-7B, concatenated PG19, cache 4096, by sinks",
        dict(zip(SINKS, (3359.95, 11.88, 10.51, 9.59, 9.54), strict=True)),
        PAPER,
    ),
    Quoted(
        "Pythia-6.9B, PG19",
        {"4+1020 at 8,191 tokens": 8.47, "window": 16.72, "dense at 4,011 tokens": 24.61},
        PACKAGE,
    ),
)
PAPER_SPEED_UP = (
    "a token up to 22.2x faster than re-computation (Llama-2-7B and 13B, one A6000, largest cache)"
)


def of(mode: str, dataset: str) -> list[Published]:
    """The rows of one table, in order."""
    return [figure for figure in FIGURES if (figure.mode, figure.dataset) == (mode, dataset)]


def as_printed(figure: Published) -> tuple[str, str, str]:
    """Perplexity, seconds and speed-up as they were published, digit by digit."""
    seconds = f"{figure.total_s:.2f}" if figure.total_s > 1 else f"{figure.total_s:g}"
    return f"{figure.ppl:.2f}", seconds, f"{speed_up(figure):.2f}x"


def speed_up(figure: Published) -> float:
    """As printed; the ratio of the times where none was."""
    printed = PRINTED.get((figure.mode, figure.dataset), {})
    base = of(figure.mode, figure.dataset)[0]
    return printed.get(figure.method, base.total_s / figure.total_s)


@dataclass(frozen=True)
class Beside:
    """One table of the seed report and what this database has beside it.

    Attributes:
        mode: Its mode.
        dataset: Its text.
        ours: The runs that stand beside it; None where there are none.
        rows: The newest run of each method among them, all with one S and W, or one budget; their
            ``speed_up`` is of the time for the whole stream, as the seed report's is.
    """

    mode: str
    dataset: str
    ours: Comparison | None
    rows: dict[str, Row]


def beside(runs: pd.DataFrame, mode: str | None, dataset: str | None) -> list[Beside]:
    """Tables of the seed report, each with the runs of ours that answer to it best.

    Those of ``mode`` and ``dataset`` where these are named; one of which nothing was published only
    where there are runs of ours.
    The same text is best, or else its bundled stand-in; then Pythia-70M; then the comparison with
    most of the methods, and of those the newest.
    """
    texts = {name: _text(name) for name in runs["dataset"].unique()}
    found = comparisons(runs[runs["dataset"].isin([name for name in texts if texts[name]])])
    held = [(each, _rows(each)) for each in found]
    made = []
    for table_mode, text in product([mode] if mode else MODES, TEXTS):
        if dataset and text != _text(dataset):
            continue
        alike = [pair for pair in held if pair[0].same["mode"] == table_mode]
        alike = [pair for pair in alike if texts[pair[0].same["dataset"]] == text]
        ours, rows = max(alike, key=lambda pair: _likeness(*pair), default=(None, {}))
        if ours or of(table_mode, text):
            made.append(Beside(table_mode, text, ours, rows))
    return made


def _text(name: str) -> str:
    """Which text of the seed report a dataset of ours stands for; empty where it is none."""
    plain = name.partition(":")[0]
    return next((text for text in TEXTS if plain in (text, STAND_INS[text])), "")


def _likeness(ours: Comparison, rows: dict[str, Row]) -> tuple[bool, bool, int]:
    same = ours.same["dataset"] not in STAND_INS.values()
    pythia = str(ours.same["model"]).endswith("pythia-70m")
    return same, pythia, len(set(METHODS) & set(rows))


def _rows(ours: Comparison) -> dict[str, Row]:
    """The newest run of each method with the budget of the newest baseline.

    It is S and W that must be alike: in a chunk ``mit`` and ``kvpress`` see what their own code
    shows them, as they did in the seed report.
    """
    rows: list[Row] = sorted(
        ours.runs.to_dict("records"), key=lambda row: str(row["run_id"]), reverse=True
    )
    bases = [row for row in rows if row["method"] == ours.baseline]
    like = (bases or [row for row in rows if row["attended_keys"] in ours.keys] or rows)[0]
    found: dict[str, Row] = {}
    for row in rows:
        asked = all(row[name] == like[name] for name in ("n_sink", "window"))
        if asked or same_budget(row, like) or row["method"] not in METHODS:
            found.setdefault(str(row["method"]), row)
    base = found.get(ours.baseline)
    return {method: row | {"speed_up": _speed_up(row, base)} for method, row in found.items()}


def _speed_up(row: Row, base: Row | None) -> float | None:
    """Seconds of ``base`` over those of ``row``, where it is what ``row`` is held against."""
    if not base or row["baseline_run_id"] != base["run_id"] or not number(row["total_s"]) > 0:
        return None
    return number(base["total_s"]) / number(row["total_s"])
