"""``streamcli runs``: the recorded runs one by one: list, show, tag, note, delete."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer

from core.config import LARGEST
from core.errors import UsageError, unknown
from streamcli import options
from streamcli.jobs.database import opened

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,39}")
LIMIT = 20

app = typer.Typer()


@app.callback(invoke_without_command=True)
def root(ctx: typer.Context) -> None:
    """List, show, tag, note and delete recorded runs. The beginning of a run's name is enough.

    [dim]streamcli runs[/dim]
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command("list")
@options.filtered
def list_(
    ctx: typer.Context,
    status: Annotated[
        str | None,
        typer.Option(
            help="Only runs of this status: running, done, failed or interrupted.",
            show_default=False,
            autocompletion=lambda: _statuses(),
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(min=0, max=LARGEST, help="At most this many, the newest first; 0 for all."),
    ] = LIMIT,
    db: options.Database = None,
    json: options.Json = False,
    **given: Any,
) -> None:
    """List the recorded runs, newest first, whatever became of them.

    [dim]streamcli runs list
    streamcli runs list --status failed
    streamcli runs list --method streaming --limit 5 --json[/dim]
    """
    from streamcli.jobs import processes
    from streamcli.render import output, records
    from streamcli.results import frames

    if status is not None and status not in _statuses():
        raise unknown("status", status, _statuses())
    store = opened(db)
    where = {"status": status, **options.filters(ctx.params)}
    runs = frames.runs(store, limit=limit or None, columns=None if json else records.READ, **where)
    if json:
        output.json_lines(runs)
    elif runs.empty:
        output.say(f"{store.place} holds no run that matches.")
    else:
        total = len(frames.runs(store, columns=("run_id",), **where)) if limit else len(runs)
        untold = sum(map(processes.untold, runs.to_dict("records")))
        output.page(records.listing(runs, store.place, total, untold))


@app.command()
def show(
    run: options.Run,
    db: options.Database = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show all that is known of one run: what ran, what it found, where it comes from.

    [dim]streamcli runs show latest
    streamcli runs show latest --json[/dim]
    """
    from json import dumps

    from streamcli.render import output, records
    from streamcli.results import frames
    from streamcli.results.columns import COLUMNS

    store = opened(db)
    found = store.get(run)
    documents = frames.documents(store, [found.run_id])
    if json:
        rows = documents.drop(columns="run_id").to_dict("records")
        plain = [{name: output.plain(value) for name, value in row.items()} for row in rows]
        whole = {name: output.plain(getattr(found, name)) for name in COLUMNS}
        typer.echo(dumps({**whole, "per_document": plain}))
        return
    for sheet in records.details(found.model_dump(), documents):
        output.page(sheet)


@app.command()
def tag(
    run: options.Runs,
    add: Annotated[list[str] | None, typer.Option(help="Tags to add, one or more.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Tags to take away.")] = None,
    db: options.Database = None,
) -> None:
    """Add tags to runs, or take them away, for --tag of report, compare and plot.

    [dim]streamcli runs tag latest --add paper baseline
    streamcli runs tag latest --remove baseline[/dim]
    """
    from streamcli.render import output

    adding, removing = set(add or ()), set(remove or ())
    if not adding | removing:
        raise UsageError("no tag was given: use --add TAG or --remove TAG.")
    for each in sorted(adding):
        if not TAG.fullmatch(each):
            raise UsageError(
                f"{each!r} can't be a tag: it begins with a letter or digit, then come at most 39 "
                "of those or of . _ : / + -"
            )
    store = opened(db)
    found = store.several(run)
    names = [each.run_id for each in found]
    there = sorted({each for one in found for each in (one.tags or "").split()})
    for each in sorted(removing - set(there)):
        which = names[0] if len(names) == 1 else f"these {len(names)} runs"
        if not there:
            has = "has" if len(names) == 1 else "have"
            raise UsageError(f"there is no tag {each!r} to remove: {which} {has} none.")
        raise unknown(f"tag of {which}", each, there)
    store.mark(
        names, tags=lambda had: " ".join(sorted({*(had or "").split(), *adding} - removing)) or None
    )
    for name in names:
        output.say(f"{name} has the tags: {store.get(name).tags or 'none'}.")


@app.command()
def note(
    run: options.Run,
    text: Annotated[str, typer.Argument(help="Your words on it; empty takes them away.")],
    db: options.Database = None,
) -> None:
    """Keep a comment on a run, in place of the one before.

    [dim]streamcli runs note latest "the machine was busy"[/dim]
    """
    from streamcli.render import output

    store = opened(db)
    found = store.get(run)
    store.mark([found.run_id], comment=lambda _: " ".join(text.split()) or None)
    output.say(f"{found.run_id} has {'a note' if text.split() else 'no note'}.")


@app.command()
def delete(
    run: options.Runs,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Delete also a run that may still be running.")
    ] = False,
    db: options.Database = None,
) -> None:
    """Delete runs with their documents and traces, for good. Asks first.

    [dim]streamcli runs delete latest --yes[/dim]
    """
    from streamcli.jobs import processes
    from streamcli.render import output, records

    store = opened(db)
    found = store.several(run)
    for each in found:
        if processes.may_live(each.model_dump()) and not force:
            raise UsageError(
                f"run {each.run_id} may still be running (process {each.pid} on {each.host}): "
                "stop it; where you know that it has ended, add --force."
            )
    lines = [
        f"{e.run_id}  {e.status}, {e.method} {e.mode}, {e.model} on {e.dataset}" for e in found
    ]
    number = records.number_of(len(found))
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{number} would be gone for good: add --yes.")
        for line in lines:
            output.say(line)
        if not typer.confirm(f"Delete {number} for good?", err=True):
            output.say("nothing was deleted.")
            return
    store.delete(*(each.run_id for each in found))
    for line in lines:
        output.say(f"deleted {line}")


def _statuses() -> tuple[str, ...]:
    from streamcli.results.columns import STATUSES

    return STATUSES
