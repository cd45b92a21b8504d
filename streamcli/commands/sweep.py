"""``streamcli sweep``: every combination of some lists, one model in memory at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import typer

from core.errors import Interrupted, StreamError
from core.registry import METHODS, MODES
from streamcli import options

LISTS = {  # in the order in which runs are made: whatever takes long to load changes last
    "models": "model",
    "datasets": "dataset",
    "modes": "mode",
    "windows": "window",
    "n_sinks": "n_sink",
    "methods": "method",
}


def sweep(
    ctx: typer.Context,
    models: options.Models = None,
    datasets: options.Datasets = None,
    methods: options.Methods = None,
    modes: options.Modes = None,
    n_sinks: options.NSinks = None,
    windows: options.Windows = None,
    max_tokens: options.MaxTokens = None,
    timed_tokens: options.TimedTokens = None,
    chunk_size: options.ChunkSize = None,
    batch_size: options.BatchSize = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    threads: options.Threads = None,
    seed: options.Seed = None,
    repeats: options.Repeats = None,
    source: options.Source = None,
    trust: options.Trust = None,
    db: options.Database = None,
) -> None:
    """Run every combination of the lists, record each, and show them side by side.

    [dim]streamcli sweep --datasets wikitext pg19
    streamcli sweep --methods streaming window --windows 60 124 252 --modes chunked[/dim]
    """
    from streamcli import settings
    from streamcli.recording import Recorder
    from streamcli.render import output
    from streamcli.render.progress import watch
    from streamcli.results import frames
    from streamcli.results.comparison import comparisons

    asked = settings.read({k: v for k, v in ctx.params.items() if k not in LISTS})
    base = asked.config()
    lists = {LISTS[name]: ctx.params[name] or [getattr(base, LISTS[name])] for name in LISTS}
    lists["method"] = methods or list(METHODS)
    lists["mode"] = modes or list(MODES)
    cells = [
        replace(base, **dict(zip(lists, values, strict=True)))
        for values in product(*lists.values())
    ]
    recorder = Recorder(asked.db, bool(models) or asked.model_is_explicit, output.say, watch)
    names, failed = [], []
    for number, config in enumerate(dict.fromkeys(cells), start=1):
        what = f"{config.method} {config.mode} on {config.dataset}"
        try:
            names += [recorder.record(config, repeat) for repeat in range(asked.repeats)]
            output.say(f"{number}/{len(cells)} {what}: done")
        except Interrupted:
            raise
        except StreamError as error:
            failed.append(f"{what}: {error}")
            output.say(f"{number}/{len(cells)} {what}: failed: {error}")
    if names:
        runs = frames.runs(recorder.store, run_id=names)
        output.terminal(comparisons(runs))
        output.say_recorded(recorder.store.place, db)
    if failed:
        raise StreamError(f"{len(failed)} of {len(cells)} runs failed; the first: {failed[0]}")
