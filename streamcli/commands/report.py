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
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.TABLE,
    model: Annotated[str | None, typer.Option(help="Only runs of this model.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only runs on this text.")] = None,
    method: Annotated[str | None, typer.Option(help="Only this method.")] = None,
    mode: Annotated[str | None, typer.Option(help="Only this mode.")] = None,
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

    store = Store.open(settings.read({"db": db}).db)
    runs = frames.runs(store, model=model, dataset=dataset, method=method, mode=mode)
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
