"""``streamcli report``: show the recorded runs side by side, on screen or as a document."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import StreamError, UsageError
from streamcli import completion, options
from streamcli.jobs.database import opened, unmatched
from streamcli.results.columns import STATUSES

if TYPE_CHECKING:
    from streamcli.analysis.selection import Query
    from streamcli.results.store import Store


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    HTML = "html"
    LATEX = "latex"
    CSV = "csv"
    JSON = "json"


ENDINGS = {
    ".txt": Format.TABLE,
    ".md": Format.MARKDOWN,
    ".html": Format.HTML,
    ".tex": Format.LATEX,
    ".csv": Format.CSV,
    ".json": Format.JSON,
}
DATA = (Format.HTML, Format.CSV, Format.JSON)  # written even where there is nothing
TABLES = (Format.TABLE, Format.MARKDOWN, Format.HTML, Format.LATEX)


@options.filtered
def report(
    ctx: typer.Context,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="How to write it [dim]\\[default: as --out ends, else table][/dim]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to write to; it is replaced only once all went well.",
            show_default=False,
        ),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            help="List runs of this status one by one: failed, interrupted, running, done or any.",
            show_default=False,
            autocompletion=completion.among(lambda: (*STATUSES, "any")),
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            help="A column to sort by, smallest first, or -COLUMN. [dim]\\[default: newest "
            "first][/dim]",
            show_default=False,
            autocompletion=completion.columns,
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns",
            help="Columns of one flat table, separated by spaces [dim]\\[default: tables in which "
            "runs are compared][/dim]",
            show_default=False,
            autocompletion=completion.columns,
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            help="A column: each of its values gets a table of its own.",
            show_default=False,
            autocompletion=completion.columns,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", help="At most this many configurations; 0 for all.")
    ] = 500,
    update: Annotated[
        Path | None,
        typer.Option(
            "--update",
            help="Rewrite the marked blocks of this Markdown file, and nothing else in it.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="With --update: change nothing; fail where it would change."),
    ] = False,
    db: options.Database = None,
    **given: Any,
) -> None:
    """Show the recorded runs side by side, each against re-computation.

    [dim]streamcli report
    streamcli report --format markdown
    streamcli report --out report.html
    streamcli report --model bundled --mode decode-loop --sort -ppl
    streamcli report --columns method window ppl ms_per_token --format csv
    streamcli report --status failed[/dim]
    """
    from streamcli.analysis.selection import Query

    query = Query(
        where=options.filters(ctx.params),
        status=status,
        sort=sort,
        columns=tuple(columns or ()),
        group_by=group_by,
        limit=limit,
    )
    if check and not update:
        raise UsageError("--check is for --update: add --update README.md, or leave it out.")
    if update and (out or form or query != Query()):
        raise UsageError(
            f"--update {update} takes no other option but --check and --db: what a block shows "
            "stands in its marker, such as <!-- streamcli:begin results mode=chunked -->."
        )
    form = _form(form, out)
    if group_by and form not in TABLES:
        raise UsageError(f"--group-by makes tables, and {form} is none: leave it out.")
    store = opened(db)
    if update:
        _update(store, update, check)
    else:
        _show(store, query, form, out)


def _form(form: Format | None, out: Path | None) -> Format:
    """The format that was asked for, by name or by the file's ending."""
    if form is None and out is not None and out.suffix.lower() not in ENDINGS:
        raise UsageError(
            f"--out {out} tells no format: let it end in {', '.join(ENDINGS)}, or add --format."
        )
    ending = ENDINGS.get(out.suffix.lower()) if out else None
    if form and ending not in (None, Format.TABLE, form):  # .txt may hold any text
        own = next(suffix for suffix, each in ENDINGS.items() if each is form)
        raise UsageError(
            f"--format {form} and --out {out} ask for two formats: leave --format out for "
            f"{ending}, or let the file end in {own}."
        )
    form = form or (ENDINGS[out.suffix.lower()] if out else Format.TABLE)
    if form is Format.HTML and out is None and sys.stdout.isatty():
        raise UsageError("a page is for a browser, not for a terminal: add --out report.html.")
    return form


def _show(store: Store, query: Query, form: Format, out: Path | None) -> None:
    from streamcli.jobs import report as job
    from streamcli.jobs.select import select
    from streamcli.render import output

    found = select(store, query)
    if out:
        output.write(out, job.text(store, query, found, form))
        output.say(f"wrote {out}")
    elif form is Format.TABLE:
        job.show(query, found)
    elif len(found.rows) or form in DATA:
        sys.stdout.write(job.text(store, query, found, form))
    if found.more:
        output.say(job.left_out(query))
    if found.rows.empty:
        what = "run" if query.lists else "finished run"
        output.say(unmatched(store, what, query.where, "run"))


def _update(store: Store, path: Path, check: bool) -> None:
    from streamcli.jobs import report as job
    from streamcli.render import output

    before = output.read(path)
    after = job.updated(store, before, str(path))
    if before == after:
        output.say(f"{path} is up to date")
    elif check:
        raise StreamError(
            f"{path} is not what {store.place} says: streamcli report --update {path} rewrites it."
        )
    else:
        output.write(path, after)
        output.say(f"wrote {path}")
