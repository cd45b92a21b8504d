"""``streamcli bundle``: a folder of runs for others to check and make again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamcli import options
from streamcli.jobs.database import opened


def bundle(
    run: options.Runs,
    out: Annotated[Path, typer.Option(help="A folder that is not there yet.")],
    db: options.Database = None,
) -> None:
    """Write a folder of runs for others: rows, traces, configurations, versions, hashes, a script.

    Its run.sh makes the runs again, its README.md says what everything is.

    [dim]streamcli bundle latest --out for-the-paper[/dim]
    """
    from streamcli.jobs import bundle as job
    from streamcli.jobs import rerun
    from streamcli.render import output, records

    store = opened(db)
    runs = [rerun.finished(each) for each in store.several(run)]
    job.write(store, runs, out)
    output.say(
        f"{out} holds {records.number_of(len(runs))}; its README.md says what everything is."
    )
