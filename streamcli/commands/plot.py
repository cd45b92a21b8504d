"""``streamcli plot``: figures from the recorded runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from streamcli import options
from streamcli.jobs.database import opened, unmatched
from streamcli.render.figures import NAMES, TITLES

STREAM = "stream"  # the figure that shows most of what the method is


class Format(StrEnum):
    """How a figure is written."""

    HTML = "html"
    PNG = "png"
    SVG = "svg"
    PDF = "pdf"
    TEXT = "text"


WHAT = "Figures to draw, all that have data where none is named: " + "; ".join(
    f"{name} ({title[0].lower()}{title[1:]})" for name, title in TITLES.items()
)


@options.filtered
def plot(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help=WHAT,
            show_default=False,
            autocompletion=lambda: list(NAMES),
        ),
    ] = None,
    form: Annotated[
        Format,
        typer.Option("--format", help="How to write them; text prints lines in the terminal."),
    ] = Format.HTML,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("figures"),
    width: Annotated[
        int, typer.Option("--width", min=200, max=8000, help="Width of an image, in pixels.")
    ] = 1000,
    curve: Annotated[
        list[Path] | None,
        typer.Option(
            "--curve",
            help="A .csv with a column nll, nats of every token in order, to lay over the figure "
            "stream; may be given again.",
        ),
    ] = None,
    db: options.Database = None,
    **given: Any,
) -> None:
    """Draw the recorded runs, a file a figure; runs that may not be compared share no panel.

    Pages load the plotly.min.js beside them; an image's caption is in the
    .txt beside it. Ends with code 1 where a figure that is named can't be drawn,
    or where none is named and none can be drawn.

    [dim]streamcli plot
    streamcli plot stream --format text
    streamcli plot stream --curve published.csv
    streamcli plot stream pareto --format pdf --width 500
    streamcli plot window --model bundled --out paper --format svg[/dim]
    """
    from core.errors import StreamError, unknown
    from streamcli.analysis.selection import Query
    from streamcli.jobs import curves as published
    from streamcli.jobs.select import select, times
    from streamcli.render import images, output, terminal_figures
    from streamcli.render.figures import draw_all
    from streamcli.render.figures.streams import laid_over

    for name in names or ():
        if name not in NAMES:
            raise unknown("figure", name, NAMES)
    if form is Format.TEXT:
        options.refuse(ctx, ("out", "width"), "--format text writes no file")
    elif form is Format.HTML:
        options.refuse(ctx, ("width",), "a page is as wide as its window")
    if names and STREAM not in names:
        options.refuse(ctx, ("curve",), f"a curve is laid over the figure {STREAM}")
    curves = {each.stem: published.read(each) for each in curve or ()}
    store = opened(db)
    where = options.filters(ctx.params)
    runs = select(store, Query(where=where)).rows
    if runs.empty:
        raise StreamError(unmatched(store, "finished run", where, "run"))
    text = form is Format.TEXT
    wanted = dict.fromkeys(names or ([STREAM] if text or curves else NAMES))
    drawn = draw_all(wanted, runs, store.trace, times(store, runs, where))
    if curves:
        drawn = [laid_over(each, curves) if each.name == STREAM else each for each in drawn]
    for each in drawn:
        if each.figure is None:
            output.say(f"{each.name}: {each.caption}")
    there = [each for each in drawn if each.figure is not None]
    for each in there if text else ():
        terminal_figures.show(each)
    for path in () if text else images.write(there, out, form.value, width=width):
        print(path, flush=True)
    if len(there) < len(drawn) if names else not there:
        raise typer.Exit(1)
