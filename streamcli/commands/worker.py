"""``streamcli worker``: make the runs that wait in the database, beside other workers."""

from __future__ import annotations

from typing import Annotated

import typer

from core.errors import UsageError
from streamcli import options


def worker(
    forever: Annotated[
        bool, typer.Option("--forever", help="When no run waits, wait for one instead of ending.")
    ] = False,
    sweep: Annotated[
        str | None,
        typer.Option(help="Only runs of this sweep, as --enqueue names it.", show_default=False),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Show the queue instead: what waits, and who has what.")
    ] = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Empty the queue instead, except for what workers have.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", hidden=True, help="Say nothing of single runs.")
    ] = False,
    db: options.Database = None,
) -> None:
    """Make the runs that streamcli sweep --enqueue left in the database, beside other workers.

    Any number of workers, on any machines, share one queue, and no run is
    made twice. Runs that are compared with each other form a group, which one
    worker takes as a whole. Where a worker dies or is stopped, another takes
    over its group. A worker ends when no run waits.

    [dim]streamcli worker
    streamcli worker --status
    streamcli worker --clear[/dim]
    """
    from streamcli.jobs.database import opened, place

    if status and clear:
        raise UsageError("--status and --clear are two things: give one of them.")
    if (status or clear) and forever:
        raise UsageError("--forever is for making runs: leave it out.")
    if status or clear:
        from streamcli.jobs.claims import queue_of
        from streamcli.render import output, plans, records
        from streamcli.results.queue import standing

        store = opened(db)
        queue = queue_of(store)
        if clear:
            number = queue.clear(sweep)
            output.say(f"{records.number_of(number)} that waited {_are(number)} out of the queue.")
        groups = queue.groups(sweep)
        if groups:
            output.page(plans.queue(standing(groups), store.place))
        elif sweep and not clear:
            output.say(f"the queue of {store.place} has no run of a sweep {sweep}.")
        elif not clear:
            output.say(f"the queue of {store.place} is empty: streamcli sweep --enqueue fills it.")
        return
    from streamcli.jobs import worker as job

    job.make(place(db), sweep, forever=forever, quiet=quiet)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
