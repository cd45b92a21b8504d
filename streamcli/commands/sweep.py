"""``streamcli sweep``: every combination of some lists, one model in memory at a time."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import typer

from core.errors import Interrupted, StreamError
from core.registry import MODES
from streamcli import options

if TYPE_CHECKING:
    from core.config import RunConfig
    from streamcli.settings import Settings

MATRIX = ("streaming", "mit", "kvpress", "recompute")  # what is run where no method is named

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
    context_tokens: options.ContextTokens = None,
    evict_every: options.EvictEvery = None,
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
    lists = {LISTS[name]: ctx.params[name] or [getattr(asked, LISTS[name])] for name in LISTS}
    lists["method"] = methods or list(MATRIX)
    lists["mode"] = modes or list(MODES)
    named = (dict(zip(lists, values, strict=True)) for values in product(*lists.values()))
    cells = list(dict.fromkeys(_cell(asked, **each) for each in named))
    recorder = Recorder(
        asked.database_url, bool(models) or asked.model_is_explicit, output.say, watch
    )
    names, failed = [], []
    for number, config in enumerate(cells, start=1):
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


def _cell(asked: Settings, **named: Any) -> RunConfig:
    """One run; an option that only some modes or methods have is left out of the others."""
    from core.config import LAZY, OFFICIAL, ONLY_IN

    unfit: dict[str, Any] = {name: None for name, mode in ONLY_IN.items() if mode != named["mode"]}
    if named["method"] not in LAZY:
        unfit["evict_every"] = None
    if named["method"] == "dense":  # it keeps everything, so one run stands beside every budget
        named |= {"n_sink": asked.n_sink, "window": None}
    if named["mode"] == OFFICIAL:
        unfit["batch_size"] = 1
    return asked.config(**named, **unfit)
