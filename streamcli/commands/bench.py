"""``streamcli bench``: what a step costs, every arm timed in turn, beside what it must cost."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.config import LAZY, STATIC, RunConfig
from core.errors import UsageError, unknown
from core.registry import METHODS
from core.shapes import SHAPES
from streamcli import options

if TYPE_CHECKING:
    from core.bench import Arm
    from core.floors import Machine
    from core.models import Loaded

DECODE = ("streaming", "mit", "kvpress", "recompute")
PAPER = (252, 508, 1020, 2044)  # windows of the paper's figure 10
ONE_BY_ONE = "streaming, one by one"
BASES = ("mit", "kvpress", "plain forwards")  # an arm's time over theirs
SLOW = ("recompute", ONE_BY_ONE)  # their time over an arm's
LISTS = ("methods", "engines", "windows", "lengths", "intervals")
LENGTHS = (2048, 8192, 32768)

app = typer.Typer()


@app.callback(invoke_without_command=True)
def root(ctx: typer.Context) -> None:
    """Time steps in turn, beside what this machine must take for them.

    [dim]streamcli bench decode --shape pythia-70m[/dim]
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


Shape = Annotated[str, typer.Option(help=f"Random weights of this shape: {', '.join(SHAPES)}.")]
Methods = Annotated[list[str] | None, typer.Option(help="Methods, separated by spaces.")]
Engines = Annotated[
    list[str] | None,
    typer.Option(help="eager, compiled, cudagraph: those of streaming and window, by spaces."),
]
NSink = Annotated[int, typer.Option(help="S, sinks kept from the start.")]
Windows = Annotated[list[int] | None, typer.Option(help="W, separated by spaces.")]
Intervals = Annotated[
    list[int] | None,
    typer.Option(help=f"k, steps between evictions, by spaces: those of {', '.join(LAZY)}."),
]
Lengths = Annotated[list[int] | None, typer.Option(help="Tokens of stream, separated by spaces.")]
ChunkSize = Annotated[int, typer.Option(help="C, tokens a forward in chunks.")]
Rounds = Annotated[int, typer.Option(help="Rounds; each takes every arm once.", min=2)]
Steps = Annotated[int, typer.Option(help="Steps of an arm in a round.", min=1)]
Threads = Annotated[int | None, typer.Option(help="CPU threads; torch's choice if not given.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Seed = Annotated[int, typer.Option(help="Random seed of weights, tokens and order.")]
Json = Annotated[bool, typer.Option("--json", help="Print a list of rows to stdout.")]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What all benchmarks have in common."""

    bench: str
    shape: str
    rounds: int
    steps: int
    threads: int | None
    dtype: str
    device: str
    seed: int
    json: bool
    db: str | None


@app.command()
def decode(
    shape: Shape = "pythia-70m",
    methods: Methods = None,
    engines: Engines = None,
    n_sink: NSink = 4,
    windows: Windows = None,
    intervals: Intervals = None,
    rounds: Rounds = 15,
    steps: Steps = 20,
    threads: Threads = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
    db: options.Database = None,
) -> None:
    """Time one token with a full cache: every method, streaming with every engine.

    With --intervals, also how much it helps to evict only every k steps: the mean over whole
    cycles, in which the step that evicts counts as well.

    [dim]streamcli bench decode --shape pythia-70m --windows 1020
    streamcli bench decode --methods streaming mit --engines eager --json
    streamcli bench decode --methods streaming mit --engines eager --intervals 1 16 64[/dim]
    """
    asked = _asked("decode", shape, rounds, steps, threads, dtype, device, seed, json, db)
    every = intervals or [1]
    _decode(asked, methods or list(DECODE), engines, n_sink, windows or [1020], every)


@app.command()
def window(
    shape: Shape = "pythia-70m",
    methods: Methods = None,
    engines: Engines = None,
    n_sink: NSink = 4,
    windows: Windows = None,
    rounds: Rounds = 7,
    steps: Steps = 10,
    threads: Threads = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
    db: options.Database = None,
) -> None:
    """Time one token against the size of the cache, as the paper's figure 10 does.

    [dim]streamcli bench window --engines eager[/dim]
    """
    asked = _asked("window", shape, rounds, steps, threads, dtype, device, seed, json, db)
    named, sizes = methods or ["streaming", "recompute"], windows or list(PAPER)
    _decode(asked, named, engines, n_sink, sizes, [1])


@app.command()
def length(
    shape: Shape = "pythia-70m",
    methods: Methods = None,
    lengths: Lengths = None,
    n_sink: NSink = 4,
    windows: Windows = None,
    rounds: Rounds = 7,
    steps: Steps = 20,
    threads: Threads = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
    db: options.Database = None,
) -> None:
    """Time one token against the length of the stream: flat where the cache is bounded.

    [dim]streamcli bench length --methods streaming dense --lengths 2048 8192[/dim]
    """
    from core import bench

    asked = _asked("length", shape, rounds, steps, threads, dtype, device, seed, json, db)
    loaded = _loaded(asked)
    arms = []
    for size in windows or [252]:
        for tokens in lengths or LENGTHS:
            for method in methods or ["streaming", "dense"]:
                config = _config(asked, method, n_sink, size)
                arm = bench.decode_arm(loaded, config, tokens)
                arm.label = f"{method} after {tokens:,}"
                arms.append(arm)
    _run(asked, loaded, arms)


@app.command()
def perplexity(
    shape: Shape = "pythia-70m",
    n_sink: NSink = 4,
    windows: Windows = None,
    chunk_size: ChunkSize = RunConfig.chunk_size,
    rounds: Rounds = 15,
    steps: Steps = 4,
    threads: Threads = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
    db: options.Database = None,
) -> None:
    """Time the scoring of a token: exact chunks, plain forwards over chunks, the decode loop.

    [dim]streamcli bench perplexity --windows 1020 --chunk-size 256[/dim]
    """
    from core import bench

    asked = _asked("perplexity", shape, rounds, steps, threads, dtype, device, seed, json, db)
    loaded, arms = _loaded(asked), []
    for size in windows or [1020]:
        chunked = _config(asked, "streaming", n_sink, size, mode="chunked", chunk_size=chunk_size)
        arms.append(bench.chunk_arm(loaded, chunked))
        arms[-1].label = f"streaming, chunks of {chunk_size}"
        arms.append(bench.plain_arm(loaded, chunked))
        arms.append(bench.decode_arm(loaded, _config(asked, "streaming", n_sink, size)))
        arms[-1].label = ONE_BY_ONE
    _run(asked, loaded, arms)


@app.command()
def startup(
    rounds: Rounds = 5,
    json: Json = False,
) -> None:
    """Time whole commands, each in a process of its own: help, and a first run.

    [dim]streamcli bench startup[/dim]
    """
    import subprocess
    import sys
    import time
    from json import dumps
    from tempfile import TemporaryDirectory

    import numpy as np

    from core.bench import figure
    from streamcli.render import output, tables
    from streamcli.results.columns import Column, format_value

    with TemporaryDirectory() as folder:
        tiny = ["--model", "bundled", "--dataset", "bundled-narrative", "--max-tokens", "64"]
        tiny += ["--window", "28", "--db", f"{folder}/runs.db"]
        commands = {"--help": ["--help"], "run, 64 tokens": ["run", *tiny]}
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, words in commands.items():
                began = time.perf_counter()
                call = [sys.executable, "-m", "streamcli", *words]
                subprocess.run(call, check=True, capture_output=True)
                took[name].append(time.perf_counter() - began)
    rows = []
    for name, seconds in took.items():
        found = figure(np.array(seconds))
        rows.append({"command": name, "s": found.median, "low": found.low, "high": found.high})
    if json:
        typer.echo(dumps(rows))
        return
    columns = [
        Column("command", "command", "text", ""),
        *(
            Column(n, t, "significant", "")
            for n, t in (("s", "s"), ("low", "low"), ("high", "high"))
        ),
    ]
    cells = [[format_value(column, row[column.name]) for column in columns] for row in rows]
    note = "Median and its 95 % interval; the first run imports torch and loads the bundled model."
    output.page(tables.Sheet("bench startup", columns, cells, [note]))


def _asked(bench: str, *given: Any) -> _Asked:
    names = ("shape", "rounds", "steps", "threads", "dtype", "device", "seed", "json", "db")
    return _Asked(bench=bench, **dict(zip(names, given, strict=True)))


def _loaded(asked: _Asked) -> Loaded:
    import torch

    from core import shapes

    if asked.threads:
        torch.set_num_threads(asked.threads)
    return shapes.build(asked.shape, dtype=asked.dtype, device=asked.device, seed=asked.seed)


def _config(asked: _Asked, method: str, n_sink: int, size: int, **more: Any) -> RunConfig:
    return RunConfig(
        model=f"random:{asked.shape}",
        dataset="random tokens",
        method=method,
        n_sink=n_sink,
        window=size,
        dtype=asked.dtype,
        device=asked.device,
        threads=asked.threads,
        seed=asked.seed,
        **{"engine": "eager", **more},
    )


def _decode(
    asked: _Asked,
    methods: list[str],
    engines: list[str] | None,
    n_sink: int,
    windows: list[int],
    intervals: list[int],
) -> None:
    from core import bench
    from streamcli.render import output

    for method in methods:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
    loaded, arms = _loaded(asked), []
    second = "compiled" if loaded.model.device.type == "cpu" else "cudagraph"
    for size, method in product(windows, methods):
        kinds = (engines or ["eager", second]) if method in STATIC else ["eager"]
        for engine, every in product(kinds, intervals if method in LAZY else [None]):
            output.passing(f"{method} {engine}, W = {size}")
            config = _config(asked, method, n_sink, size, engine=engine, evict_every=every)
            try:
                arms.append(bench.decode_arm(loaded, config))
                arms[-1].label = f"{method}, every {every}" if (every or 1) > 1 else method
            except UsageError as error:
                if engines or method != "kvpress":
                    raise
                output.say(f"{method} is left out: {error}")
    output.passing("")
    _run(asked, loaded, arms)


def _run(asked: _Asked, loaded: Loaded, arms: list[Arm]) -> None:
    """Time the arms, record them, and show them."""
    from json import dumps

    from core import bench
    from core.floors import Machine
    from streamcli import settings
    from streamcli.render import output, tables
    from streamcli.results import benchmarks
    from streamcli.results.store import Store

    machine = Machine(str(loaded.model.device), loaded.model.dtype)
    for done in bench.run(arms, machine, asked.rounds, asked.steps, asked.seed):
        output.passing(f"round {done}/{asked.rounds}")
    output.passing("")
    rows = [_row(arm, arms, machine) for arm in arms]
    place = settings.read({"db": asked.db}).database_url
    store = Store.open(place)
    benchmarks.record(store, [_record(asked, loaded, arm, machine) for arm in arms])
    if asked.json:
        typer.echo(dumps(rows))
        return
    output.page(_sheet(asked, loaded, rows, machine, tables))
    output.say(f"recorded in the table benchmarks of {store.place}")


def _row(arm: Arm, arms: list[Arm], machine: Machine) -> dict[str, Any]:
    """What is printed of an arm: plain values, units in the names."""
    from core import bench

    found, floor_ms = bench.figure(arm.typical()), machine.floor_ms(arm.work) / arm.tokens
    row: dict[str, Any] = {
        "arm": arm.name,
        "method": arm.config.method,
        "engine": arm.config.engine,
        "n_sink": arm.config.n_sink,
        "window": arm.config.window,
        "ms_per_token": found.median,
        "ms_per_token_low": found.low,
        "ms_per_token_high": found.high,
        "floor_ms": floor_ms,
        "ratio_to_floor": found.median / floor_ms,
        "kv_mib": arm.kv_mib,
        "compile_s": arm.compile_s,
        "ratios": {},
        "speed_ups": {},
    }
    for base in arms:
        if base.config.attended_keys != arm.config.attended_keys or base.name == arm.name:
            continue
        if base.name in BASES:
            each = bench.ratio(arm, base)
            row["ratios"][base.name] = [each.median, each.low, each.high]
        elif base.name in SLOW:
            each = bench.ratio(base, arm)
            row["speed_ups"][base.name] = [each.median, each.low, each.high]
    return row


def _record(asked: _Asked, loaded: Loaded, arm: Arm, machine: Machine) -> dict[str, Any]:
    """An arm as a row of the database; its trace has every timed step, round after round."""
    import numpy as np
    import torch

    from core import bench, environment
    from streamcli.results.schema import Benchmark, pack

    on_gpu = loaded.model.device.type == "cuda"
    here = environment.describe(torch.cuda.get_device_name() if on_gpu else None)
    config, found = arm.config, bench.figure(arm.typical())
    known = {**vars(config), **vars(here)}
    return {name: known[name] for name in Benchmark.model_fields if name in known} | {
        "bench": asked.bench,
        "arm": arm.name,
        "device": str(loaded.model.device),
        "threads": torch.get_num_threads(),
        "attended_keys": config.attended_keys,
        "rounds": asked.rounds,
        "ms_per_token": found.median,
        "ms_per_token_low": found.low,
        "ms_per_token_high": found.high,
        "floor_ms": machine.floor_ms(arm.work) / arm.tokens,
        "read_gb_per_s": machine.bytes_per_s / 1e9,
        "gflops_per_s": machine.flops_per_s / 1e9,
        "compile_s": arm.compile_s,
        "kv_mib": arm.kv_mib,
        "latency_ms": pack(np.concatenate([np.array(each, np.float32) for each in arm.rounds_ms])),
    }


def _sheet(
    asked: _Asked, loaded: Loaded, rows: list[dict[str, Any]], machine: Machine, tables: Any
) -> Any:
    import torch

    from streamcli.results.columns import COLUMNS, Column, format_value

    columns = [
        Column("arm", "method", "text", ""),
        COLUMNS["engine"],
        COLUMNS["window"],
        Column("ms_per_token", "ms/token", "significant", ""),
        Column("interval", "95 % interval", "text", ""),
        Column("floor_ms", "floor (ms)", "significant", ""),
        Column("ratio_to_floor", "to floor", "ratio", ""),
    ]
    for key, names, title in (("ratios", BASES, "to"), ("speed_ups", SLOW, "speed-up on")):
        bases = [name for name in names if any(name in row[key] for row in rows)]
        columns += [Column(name, f"{title} {name}", "ratio", "") for name in bases]
    columns += [Column("compile_s", "compiling (s)", "significant", "")]
    cells = []
    for row in rows:
        interval = f"{row['ms_per_token_low']:.3g} to {row['ms_per_token_high']:.3g}"
        pairs = {
            name: each[0] for key in ("ratios", "speed_ups") for name, each in row[key].items()
        }
        values = {**dict.fromkeys((*BASES, *SLOW)), **row, "interval": interval, **pairs}
        values["compile_s"] = row["compile_s"] or None
        cells.append([format_value(column, values[column.name]) for column in columns])
    device = str(loaded.model.device)
    where = f"{torch.get_num_threads()} CPU threads" if device == "cpu" else device
    title = f"bench {asked.bench}: {loaded.name}, {asked.dtype}, {where}, {asked.rounds} rounds"
    notes = [
        *loaded.notes,
        "Arms are timed in turn; figures are medians over rounds, ratios are taken round by round.",
        f"This machine reads {machine.bytes_per_s / 1e9:.1f} GB/s and multiplies matrices at "
        f"{machine.flops_per_s / 1e9:,.0f} GFLOP/s; the floor is what a step must read or compute "
        "at these rates (core/floors.py).",
    ]
    return tables.Sheet(title, columns, cells, notes)
