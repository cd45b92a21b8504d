"""``streamcli rerun``: make a recorded run again from its record, and say what is different."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import StreamError, UsageError
from streamcli import options
from streamcli.commands import opened

if TYPE_CHECKING:
    from core.runner import Prepared
    from streamcli.results.schema import Run

SAME = {  # or it is another run
    "weights_sha256": ("weights", "model"),
    "files_sha256": ("configuration and tokenizer files", "model"),
    "tokens_sha256": ("tokens", "dataset"),
}


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
    recorder = Recorder(
        store.engine.url.render_as_string(hide_password=False), True, output.say, watch
    )
    prepared = recorder.prepare(rerun.pinned(before))
    _refuse_another(before, prepared)
    repeat = max([before.repeat, *recorder.finished(prepared).values()]) + 1
    after = store.get(recorder.run(prepared, repeat))
    scores = rerun.scores(store.trace(before.run_id)[0], store.trace(after.run_id)[0])
    output.page(records.repetition(before, after, scores, rerun.surroundings(before, after)))
    output.say_recorded(store.place, db)


def _refuse_another(before: Run, prepared: Prepared) -> None:
    for column, (words, what) in SAME.items():
        was, now = getattr(before, column), getattr(prepared.facts, column)
        if was and was != now:  # older versions did not record every hash
            name = getattr(prepared.config, what)
            raise StreamError(
                f"the {words} of {name} are not those of run {before.run_id} ({now[:10]} now, "
                f"{was[:10]} then): it can't be made again, and nothing was run."
            )
