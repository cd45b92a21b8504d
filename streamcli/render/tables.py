"""Comparisons in, tables of words out, and these as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from core import registry
from core.errors import unknown
from streamcli import harmless
from streamcli.analysis import distances
from streamcli.analysis.comparison import Comparison, Row, has_budget, stands_in
from streamcli.harmless import visible
from streamcli.render import notes
from streamcli.render.notes import ACCURACY, CHANGE, HORIZON, MARK, marked
from streamcli.results.columns import (
    ALL,
    TABLE,
    TASK,
    Column,
    format_ends,
    format_span,
    format_value,
    missing,
)

if TYPE_CHECKING:
    import pandas as pd

    from core.proof.verify import Finding

SELDOM = (ACCURACY, HORIZON, "budget_mib")  # in a table only where one of its runs has them
VERDICT = "verdict"  # a last column of this name moves below the table where there is no room
BASE = "baseline"  # the verdict on what the others are held against
SHARED_TITLE = "Notes on these tables"


@dataclass(frozen=True)
class Sheet:
    """A table in words.

    Attributes:
        title: What the rows share.
        columns: Title and alignment of each column.
        rows: The cells.
        notes: What a reader must know.
        name: What notes call it among others; empty where they number it.
    """

    title: str
    columns: list[Column]
    rows: list[list[str]]
    notes: list[str]
    name: str = ""

    def __post_init__(self) -> None:
        """Make what names and notes of others say harmless, wherever the table is shown."""
        columns = [replace(column, title=visible(column.title)) for column in self.columns]
        for name, held in (
            ("columns", columns),
            ("title", visible(self.title)),
            ("rows", [list(map(visible, row)) for row in self.rows]),
            ("notes", list(map(visible, self.notes))),
        ):
            object.__setattr__(self, name, held)

    def only(self, names: Sequence[str]) -> Sheet:
        """The table with these of its columns, in this order.

        Raises:
            UsageError: It has no such column.
        """
        places = {column.name: place for place, column in enumerate(self.columns)}
        for name in names:
            if name not in places:
                raise unknown("column of this table", name, places)
        chosen = [places[name] for name in names]
        rows = [[row[place] for place in chosen] for row in self.rows]
        return replace(self, columns=[self.columns[place] for place in chosen], rows=rows)


def sheet(comparison: Comparison) -> Sheet:
    """One comparison as a table."""
    mode = str(comparison.same["mode"])
    columns = _columns(mode, comparison.runs)
    rows = [cells(row, columns) for row in comparison.rows]
    return Sheet(title(comparison.same), columns, rows, notes.of_comparison(comparison, mode))


TOLD = Column("distance", "tokens since it was told", "text", "How far back a question asks")


def distances_sheet(comparison: Comparison) -> tuple[Sheet, list[Row]] | None:
    """Accuracy by distance, a column a run, and the shares; None where nothing was told."""
    rows: list[Row] = [row for row in comparison.rows if distances.horizon(row)]
    if not rows:
        return None
    several = len({row["method"] for row in rows}) < len(rows)
    names = [notes.row_name(row) if several else str(row["method"]) for row in rows]
    found = [{span.last: span for span in distances.spans(row["answers"])} for row in rows]
    columns = [
        TOLD,
        Column("asked", "questions", "count", "How many were asked"),
        *(Column(name, name, "share", "Share of right answers") for name in names),
    ]
    cells, held = [], []
    for last in distances.ends(each.values() for each in found):
        of = [each.get(last) for each in found]
        asked = max(span.asked for span in of if span)
        shares = [f"{span.accuracy:.0%}{format_span(*span.ends)}" if span else "-" for span in of]
        cells.append([next(span.words for span in of if span), f"{asked:,}", *shares])
        values = [span.accuracy if span else None for span in of]
        held.append({"distance": last, "asked": asked} | dict(zip(names, values, strict=True)))
    head = f"Right answers by distance: {title(comparison.same)}"
    return Sheet(head, columns, cells, []), held


def _horizon(row: Row) -> str:
    """Up to where a run knew more than chance, in words."""
    found = distances.horizon(row)
    return found.words if found else "-"


CHECKS = [
    Column("subject", "what", "text", "A method, or what must hold"),
    Column("form", "how", "text", "Mode, or sizes"),
    Column("largest", "largest (nats)", "exponent", "Largest difference on a token"),
    Column("mean", "mean (nats)", "exponent", "Mean difference"),
    Column("claimed", "claimed exact", "flag", "Whether they are claimed to be equal"),
    Column("verdict", "verdict", "text", "Whether the claim holds"),
    Column("departs_at", "departs at", "count", "First token more than 1e-3 nats off"),
    Column("diagnosis", "likely cause", "text", "What that place tells of the cause"),
]


def findings(found: list[Finding], title: str) -> Sheet:
    """What was proved, as a table."""
    rows = []
    for each in found:
        verdict = ("pass" if each.passed else "FAIL") if each.claimed else "-"
        values = {
            "subject": each.subject,
            "form": each.form,
            "largest": each.largest_nats,
            "mean": each.mean_nats,
            "claimed": each.claimed,
            "verdict": verdict,
            "departs_at": each.departs_at,
            "diagnosis": each.diagnosis or "-",
        }
        rows.append([format_value(column, values[column.name]) for column in CHECKS])
    held = sum(each.passed for each in found if each.claimed)
    proved = (
        f"{held} of {sum(each.claimed for each in found)} claims hold, for this model, text and"
    )
    notes = [
        "Compared with a loop that reads one token at a time and makes every kept key afresh; a "
        "claim holds where no token differs by more than 1e-4 nats; in half precision, where the "
        "mean error is at most 1.3 times that of dense attention.",
        f"{proved} these sizes only.",
    ]
    if any(registry.recorded(each.subject).chooses for each in found):
        alike = (
            "Where several choices are equally good, such as keys whose scores differ by less than "
            "0.1 %, rounding may take any: the loop goes on with what was chosen, and the claim "
            "fails where that was a worse one."
        )
        notes.insert(1, alike)
    return Sheet(title, CHECKS, rows, notes)


def together(pages: Sequence[Sheet]) -> tuple[list[Sheet], list[str]]:
    """Several tables without their notes; and these, each once, to stand below all.

    A note names the tables that it is on, by number, which these then have, or by name where each
    has one; unless it is on all, or tells by itself, as one on a mode does.
    """
    if len(pages) < 2:
        return list(pages), []
    on: dict[str, list[int]] = {}
    for number, page in enumerate(pages, start=1):
        for note in dict.fromkeys(page.notes):
            on.setdefault(note, []).append(number)
    named = [page.name for page in pages]
    notes = [_on_tables(note, held, named) for note, held in on.items()]
    numbered = set(notes) != set(on) and not all(named)
    titles = [f"{n}. {p.title}" if numbered else p.title for n, p in enumerate(pages, start=1)]
    return [replace(p, title=t, notes=[]) for p, t in zip(pages, titles, strict=True)], notes


def _on_tables(note: str, held: Sequence[int], named: Sequence[str]) -> str:
    if len(held) == len(named) or note.partition(":")[0] in registry.MODES:
        return note
    if all(named):
        return f"{', '.join(named[number - 1] for number in held)}: {note}"
    spans: list[list[int]] = []
    for number in held:
        if spans and number == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    words = ", ".join("-".join(map(str, span)) for span in spans)
    return f"Table{'s' if len(held) > 1 else ''} {words}: {note}"


def markdown_pages(
    pages: Sequence[Sheet], below: Sequence[str] = (), above: Sheet | None = None
) -> str:
    """Tables one after the other, each with ``below`` it; of several, the notes stand last.

    ``above`` is a table over all of them, without a number.
    """
    apart, shared = together(pages)
    parts = [markdown(above)] if above else []
    for page, words in zip_longest(apart, below, fillvalue=""):
        parts += filter(None, (markdown(page) if isinstance(page, Sheet) else "", words))
    if shared:
        parts.append(
            "\n".join(
                [
                    f"**{SHARED_TITLE}**",
                    "",
                    *(f"- {harmless.markdown(' '.join(note.split()))}" for note in shared),
                ]
            )
        )
    return "\n\n".join(parts)


def markdown(page: Sheet) -> str:
    """A pipe table with its title above and its notes below."""
    table = pipes(page.columns, page.rows)
    notes = [f"- {harmless.markdown(' '.join(note.split()))}" for note in page.notes]
    return "\n".join(
        [f"**{harmless.markdown(page.title)}**", "", table, *([""] if notes else []), *notes]
    )


def pipes(columns: list[Column], rows: list[list[str]]) -> str:
    """Rows as a Markdown table."""
    rule = "|" + "|".join("---:" if c.align == "right" else ":---" for c in columns) + "|"
    head, *body = (
        "| " + " | ".join(harmless.markdown(cell.replace("|", r"\|")) for cell in row) + " |"
        for row in ([column.title for column in columns], *rows)
    )
    return "\n".join([head, rule, *body])


def _columns(mode: str, runs: pd.DataFrame) -> list[Column]:
    """The columns of a comparison; its time is what the mode measures, and few runs have some."""
    title = "ms/token (mean)" if registry.mode(mode).chunked else "ms/token"
    time = replace(ALL["compared_ms"], title=title)
    empty = {name for name in SELDOM if name not in runs or not runs[name].notna().any()}
    names = [name for name in TABLE if name not in TASK and name not in empty]
    return [time if name == "compared_ms" else ALL[name].headed for name in names]


def cells(row: Row, columns: list[Column]) -> list[str]:
    """The cells of a run; its method with what tells it from a like row, its keys with a mark."""
    texts = values(row, columns)
    if row.get("variant"):
        texts["method"] += f" ({row['variant']})"
    if marked(row):
        texts["attended_keys"] += MARK
    return [texts[column.name] for column in columns]


def values(row: Row, columns: list[Column]) -> dict[str, str]:
    """What columns say of a run, by name; a method without sinks or a window shows none."""
    unused = unused_sizes(row)
    texts = {
        column.name: "-" if column.name in unused else format_value(column, row.get(column.name))
        for column in columns
    }
    if CHANGE in texts:
        texts[CHANGE] += format_ends(row[f"{CHANGE}_low"], row[f"{CHANGE}_high"])
    if ACCURACY in texts:
        texts[ACCURACY] += format_span(row[f"{ACCURACY}_low"], row[f"{ACCURACY}_high"])
    if HORIZON in texts:
        texts[HORIZON] = _horizon(row)
    return texts


def unused_sizes(row: Row) -> set[str]:
    """Which of ``n_sink`` and ``window`` say nothing of what a run's method keeps."""
    if "method" not in row:
        return set()
    spec = registry.recorded(str(row["method"]))
    return {"n_sink", "window"} - set(spec.sizes if has_budget(row) else ())


def asked(same: Row, name: str) -> str:
    """The ``model`` or ``dataset`` that ran, and what it stands in for."""
    typed = stands_in(same, name)
    return f"{same[name]}, for {typed}" if typed else str(same[name])


def title(same: Row) -> str:
    """What the runs of a table share, in words."""
    threads = f"{same['threads']} CPU thread{'' if str(same['threads']) == '1' else 's'}"
    device = threads if same["device"] == "cpu" else same["device"]
    rows = f"{same['batch_size']} documents in step, " if same["batch_size"] > 1 else ""
    tokens = f"{int(same['scored_tokens']):,} tokens scored"
    kind = same.get("softmax_type")
    softmax = "" if missing(kind) else f"softmax {kind}, "
    apart = f", {same['apart']}" if same.get("apart") else ""
    return (
        f"{asked(same, 'model')} on {asked(same, 'dataset')} ({tokens}), "
        f"{same['mode']}, {softmax}{rows}{same['dtype']}, {device}{apart}"
    )
