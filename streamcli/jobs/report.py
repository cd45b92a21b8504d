"""From a query to a report: its tables with their conclusions, in any format, or in a README."""

from __future__ import annotations

import io
import shlex
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from core.errors import UsageError, unknown
from core.registry import BASELINE, STREAMING, check
from streamcli.analysis import repeats, summary
from streamcli.analysis.comparison import Comparison, mode_place, rows_of
from streamcli.analysis.selection import ANY, Query, Selection
from streamcli.jobs import compare
from streamcli.jobs.select import select
from streamcli.render import blocks, compared, documents, html, output, overview, tables
from streamcli.render.documents import Section
from streamcli.results.columns import (
    ALL,
    ASKED,
    FILTERS,
    PUBLIC,
    TABLE,
    Group,
    chosen,
    format_value,
)
from streamcli.results.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from streamcli.render.figures import Drawn
    from streamcli.render.tables import Sheet


# The columns of a list of runs where none are named; of other tables they are ``TABLE``.
LISTED = tuple(
    name
    for name in chosen(stored=True)
    if name in ASKED or name == "error" or (ALL[name].group is Group.RUN and name in PUBLIC)
)
# Of a block's words, beside what chooses runs.
OPTIONS = {
    **dict.fromkeys(("results", "words"), ("status", "sort", "columns", "group_by", "limit")),
    "compare": ("baseline", "across_budgets", "columns"),
}


def sections(query: Query, found: Selection) -> list[Section]:
    """The tables of a report, in order."""
    rows = found.rows
    if rows.empty:
        return []
    if query.compares:
        pairs = list(zip(found.comparisons, found.whole, strict=True))
        pairs.sort(key=lambda pair: mode_place(str(pair[0].same["mode"])))
        return [each for p, w in pairs for each in _compared(p, _words(query, found, w))]
    columns = query.columns or (LISTED if query.lists else TABLE)
    if not query.group_by:
        return [Section(documents.flat(rows, columns, _title(query, rows)), rows)]
    column = ALL[query.group_by]
    rest = [name for name in columns if name != column.name]
    return [
        Section(documents.flat(part, rest, f"{column.title}: {format_value(column, value)}"), part)
        for value, part in _by(rows, column.name)
    ]


def _compared(shown: Comparison, words: list[str]) -> list[Section]:
    """The table of a comparison; of a task, also that of its answers by distance."""
    import pandas as pd

    table = Section(tables.sheet(shown), shown.runs, words)
    found = tables.distances_sheet(shown)
    return [table, Section(found[0], pd.DataFrame(found[1]))] if found else [table]


def over(query: Query, found: Selection) -> Section | None:
    """The overview of a report's tables, where it has several."""
    return overview.section(found.comparisons) if query.compares else None


def _by(rows: pd.DataFrame, name: str) -> list[tuple[Any, pd.DataFrame]]:
    """The rows of each value of a column, modes in their order."""
    parts = list(rows.groupby(name, dropna=False))
    return sorted(parts, key=lambda part: mode_place(str(part[0]))) if name == "mode" else parts


def text(store: Store, query: Query, found: Selection, form: str) -> str:
    """A report in one of the formats of ``streamcli report``, whole."""
    if form in ("json", "csv"):
        names = documents.names(found.rows, query.columns)
        if form == "csv":
            return documents.csv_table(found.rows, names)
        return documents.json_list(rows_of(found.rows[names]))
    parts, above = sections(query, found), over(query, found)
    if form == "html":
        return _page(store, query, found, parts, above)
    if form == "table":
        plain = io.StringIO()
        show(query, found, plain)
        return plain.getvalue()
    if form == "latex":
        return documents.latex([above, *parts] if above else parts)
    return documents.markdown(parts, summary.caution(found.comparisons), above)


def show(query: Query, found: Selection, to: IO[str] | None = None) -> None:
    """The tables for a terminal, or as it would show them."""
    above = over(query, found)
    sheets = [part.sheet for part in sections(query, found)]
    output.pages(sheets, to, above.sheet if above else None)


def left_out(query: Query) -> str:
    """What to say where the limit left something out."""
    stored = query.sort and query.stored_sort
    few = f"{query.limit:,}"
    which = (
        f"first {few} by {query.sort}" if stored else f"newest {few}"
    )  # others sort what is read
    return f"only the {which} are here: --limit {query.limit * 4} shows more, --limit 0 all."


def updated(store: Store, markdown: str, name: str) -> str:
    """The text of a Markdown file, its marked blocks filled from the database.

    Raises:
        UsageError: No markers, some that don't pair or ask for what there is not, or no runs.
    """
    return blocks.update(markdown, lambda kind, words: _block(store, kind, words, name), name)


def _block(store: Store, kind: str, words: str, name: str) -> str:
    block = f"block {' '.join([kind, words]).strip()!r}"
    empty = UsageError(
        f"{name}: no run in {store.place} is what {block} asks for; nothing was changed. Name the "
        "database with --db, or record runs."
    )
    where, asked = _asked(words, f"{name}: {block}", kind)
    if kind == "compare":
        pages = _held(store, where, asked)
        if not pages:
            raise empty
        return tables.markdown_pages(pages)
    found = select(store, query := Query(where=where, **asked))
    parts = sections(query, found)
    if not parts:
        raise empty
    if kind == "results":
        return documents.markdown([Section(part.sheet, part.rows) for part in parts])
    conclusions = [f"**{p.sheet.title}.** {' '.join(p.words)}" for p in parts if p.words]
    return "\n\n".join([*conclusions, summary.caution(found.comparisons)])


def _held(store: Store, where: dict[str, Any], asked: dict[str, Any]) -> list[Sheet]:
    """The tables of ``streamcli compare``, with the columns that are asked for."""
    baseline = asked.get("baseline", BASELINE)
    check("method", baseline)
    across = asked.get("across_budgets", "no") == "yes"
    found = compare.methods(store, where, baseline, across=across, most=0)
    only = asked.get("columns", ())
    return [compared.methods(each, across=across, only=only) for each in found.tables]


def _asked(words: str, where: str, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a marker asks for: which runs, and the other options of its command."""
    filters: dict[str, Any] = {}
    asked: dict[str, Any] = {}
    own = OPTIONS[kind]
    try:
        pairs = [word.partition("=") for word in shlex.split(words)]
    except ValueError as problem:
        raise UsageError(f"{where} can't be read: {problem}.") from problem
    for key, _, value in pairs:
        option = key.replace("-", "_")
        if option in FILTERS:
            filters[option] = value
        elif option not in own:
            raise unknown(f"option in {where}", key, (*FILTERS, *own))
        elif option == "limit" and not value.isdigit():
            raise UsageError(f"{where}: limit is {value!r}, it must be a number.")
        elif option == "across_budgets" and value not in ("yes", "no"):
            raise UsageError(f"{where}: {key} is {value!r}, it must be yes or no.")
        else:
            given = {"columns": tuple(filter(None, value.split(","))), "limit": value}
            asked[option] = int(value) if option == "limit" else given.get(option, value)
    return filters, asked


def _words(query: Query, found: Selection, whole: Comparison) -> list[str]:
    """Conclusions, unless the runs they need were not asked for, or left out."""
    streams = STREAMING in set(whole.runs["method"])
    asked = query.where.get("method", STREAMING) == STREAMING
    return summary.words(whole) if asked and (streams or not found.more) else []


def _title(query: Query, rows: pd.DataFrame) -> str:
    state = "" if query.status in (None, ANY) else f"{query.status} "
    one = "run" if query.lists else "finished configuration"
    what = f"{len(rows):,} {state}{one}{'' if len(rows) == 1 else 's'}"
    if not query.sort:
        return f"{what}, newest first"
    name = query.sort.removeprefix("-")
    largest = query.sort.startswith("-")
    return f"{what} by {ALL[name].title}, {'largest' if largest else 'smallest'} first"


def _drawn(store: Store, found: Selection) -> list[Drawn]:
    """Every figure of the runs that a page shows; one that can't be drawn says why."""
    from streamcli.render import figures

    alone = found.rows[found.rows["runs"] == 1]
    known = repeats.times(alone[list(repeats.TIMED)].itertuples(index=False, name=None))
    return figures.draw_all(figures.NAMES, found.rows, store.trace, {**known, **found.times})


def _page(
    store: Store, query: Query, found: Selection, parts: list[Section], above: Section | None
) -> str:
    """The page of HTML."""
    drawn = _drawn(store, found) if query.compares and parts else []
    only = ", ".join(f"`{name}` {value}" for name, value in query.where.items())
    remarks = [f"Only runs of {only}."] if only else []
    if found.more:
        remarks.append(f"Of all that match, {left_out(query)}")
    return html.page(
        parts,
        drawn,
        above=above,
        place=store.place,
        when=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC",
        caution=summary.caution(found.comparisons) if found.comparisons else "",
        remarks=remarks,
    )
