"""``streamcli rerun``: make a recorded run again from its record, and say what is different."""

from __future__ import annotations

from typing import Annotated

import typer

from core import extras
from core.errors import UsageError
from streamcli import options
from streamcli.jobs.database import opened


def rerun(
    ctx: typer.Context,
    run: options.Run,
    trust: Annotated[bool | None, options.of_run("trust")] = None,
    db: options.Database = None,
) -> None:
    """Make a recorded run again from its record, as a run of its own, and say what is different.

    Model, text, budget, threads and device are those that ran, not those
    that were asked for. Ends with code 1, and runs nothing, where the
    weights, the configuration files or the tokens are no longer the same.

    [dim]streamcli rerun latest[/dim]
    """
    from streamcli.analysis import repetition
    from streamcli.jobs import rerun
    from streamcli.jobs.record import Recorder
    from streamcli.render import output, records
    from streamcli.render.progress import watch

    store = opened(db)
    before = rerun.finished(store.get(run))
    if before.trust and not trust:
        raise UsageError(
            f"run {before.run_id} allowed pickled weights and the model's own code: add --trust "
            "if you trust its author."
        )
    config = rerun.pinned(before)
    extras.check(config.method)
    recorder = Recorder(
        store.engine.url.render_as_string(hide_password=False), True, output.say, watch
    )
    prepared = recorder.prepare(config)
    rerun.refuse_another(before, prepared)
    repeat = max([before.repeat, *recorder.finished(prepared.config, prepared.facts).values()]) + 1
    after, nats = recorder.ledger.run(recorder.run(prepared, repeat))
    scores = repetition.scores(store.trace(before.run_id)[0], nats)
    both = before.model_dump(), after.model_dump()
    output.page(records.repetition(*both, scores, repetition.surroundings(*both)))
    recorder.settle()
    output.say_recorded(store.place, db)
