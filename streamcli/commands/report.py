"""``streamcli report``: show the recorded runs side by side."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from streamcli import options


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"


def report(
    ctx: typer.Context,
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.TABLE,
    model: options.OnlyModel = None,
    dataset: options.OnlyDataset = None,
    method: options.OnlyMethod = None,
    mode: options.OnlyMode = None,
    since: options.OnlySince = None,
    commit: options.OnlyCommit = None,
    sweep: options.OnlySweep = None,
    tag: options.OnlyTag = None,
    db: options.Database = None,
) -> None:
    """Show the recorded runs side by side, each against re-computation.

    [dim]streamcli report
    streamcli report --format markdown
    streamcli report --model bundled --mode decode-loop[/dim]
    """
    from streamcli import settings
    from streamcli.render import output
    from streamcli.results import frames
    from streamcli.results.comparison import comparisons
    from streamcli.results.store import Store

    store = Store.open(settings.read({"db": db}).database_url)
    runs = frames.latest(store, **options.filters(ctx.params))
    if form is Format.JSON:
        output.json_lines(runs)
    elif runs.empty:
        output.say(
            f"{store.place} holds no finished run that matches: record one with streamcli run."
        )
    elif form is Format.MARKDOWN:
        output.markdown(comparisons(runs))
    else:
        output.terminal(comparisons(runs))
