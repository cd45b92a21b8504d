"""Carrying out a benchmark: its arms are made, timed in turn, recorded, and shown again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from core import registry
from core.config import AS_SHIPPED, STATIC, RunConfig, engines
from core.errors import StreamError, UsageError
from streamcli.jobs.database import opened
from streamcli.jobs.ledger import Ledger
from streamcli.render.benchmarks import Timed
from streamcli.results.columns import moment

if TYPE_CHECKING:
    from core.measure.bench import Arm
    from core.measure.floors import Machine
    from core.models.loading import Loaded
    from streamcli.results.store import Store

ONE_BY_ONE = f"{registry.STREAMING}, one by one"
PLAIN = "plain forwards"
WIDE = 1.25  # ends of an interval of one arm over itself, above which times are doubted


def run(what: str, asked: dict[str, Any], db: str | None) -> tuple[Timed, Ledger]:
    """Time the arms of a benchmark and record them; the ledger says in the end what is not.

    Args:
        what: ``decode``, ``window``, ``prompt``, ``length`` or ``perplexity``.
        asked: Its options by name.
        db: The results database, or None for that of the settings.

    Raises:
        StreamError: An arm can't run on this model or machine.
    """
    import torch

    from core.measure import bench
    from core.measure.floors import Machine
    from core.measure.meters import MIB
    from core.measure.quiet import Quiet
    from core.models import shapes
    from streamcli import settings
    from streamcli.render import output
    from streamcli.results import alone
    from streamcli.results.schema import Benchmark

    if asked["threads"]:
        torch.set_num_threads(asked["threads"])
    loaded = shapes.build(
        asked["shape"], dtype=asked["dtype"], device=asked["device"], seed=asked["seed"]
    )
    store = opened(db, new=True)
    kinds = {"length": _lengths, "prompt": _prompts, "perplexity": _perplexities}
    make = kinds.get(what, _decodes)
    arms = list(make(asked, loaded))
    if first := next((arm for arm in arms if arm.config.engine == "eager"), None):
        arms.append(bench.again(first))
    quiet = Quiet()
    machine = Machine(str(loaded.model.device), loaded.model.dtype)
    for done in bench.run(arms, machine, asked["rounds"], asked["steps"], asked["seed"]):
        output.passing(f"round {done}/{asked['rounds']}")
    output.passing("")
    device, cores = str(loaded.model.device), torch.get_num_threads()
    timed = Timed(
        what=what,
        rounds=asked["rounds"],
        rows=[{"bench": what, **_row(arm, arms, machine)} for arm in arms],
        model=f"{loaded.name}, {asked['dtype']}",
        command=_command(what, asked),
        where=f"{cores} CPU thread{'s' * (cores > 1)}" if device == "cpu" else device,
        notes=(*loaded.notes, *_notes(arms), *_twice(arms), quiet.words()),
        read_gb_per_s=machine.bytes_per_s / 1e9,
        gflops_per_s=machine.flops_per_s / 1e9,
        weights_mib=sum(weight.nbytes for weight in loaded.model.parameters()) / MIB,
    )
    pairs = zip(arms, timed.rows, strict=True)
    rows = alone.named(Benchmark, [_record(timed, loaded, arm, row) for arm, row in pairs])
    ledger = Ledger(store, settings.place(db), output.say)
    if ledger.alone("benchmark", rows):
        output.say(f"recorded in the table benchmarks of {store.place}")
    return timed, ledger


def shown(which: str, store: Store) -> Timed:
    """A benchmark that was recorded, by a name as ``recorded`` has it, its beginning, or latest.

    Raises:
        UsageError: There is none, there are several, or its table was not kept.
    """
    from streamcli.results import alone
    from streamcli.results.schema import Benchmark

    first = store.row(Benchmark, which)
    if first["about"] is None:
        raise UsageError(
            f"benchmark {which!r} is of a version of streamcli that kept times and no table: its "
            "rows are in the table benchmarks; time it again with `streamcli bench`."
        )
    arms = [row for row in reversed(alone.listed(store, Benchmark)) if _together(row, first)]
    found = Timed(rows=[json.loads(row["shown"]) for row in arms], **json.loads(first["about"]))
    return replace(found, notes=(f"`{found.command}`: {_origin(first)}", *found.notes))


def recorded(store: Store) -> list[dict[str, Any]]:
    """The first arm of every benchmark that is recorded, newest benchmark first."""
    from streamcli.results import alone
    from streamcli.results.schema import Benchmark

    first: dict[Any, dict[str, Any]] = {}
    for row in alone.listed(store, Benchmark):
        row = {name: value for name, value in row.items() if not isinstance(value, bytes)}
        first[row["created_at"], row["host"], row["bench"]] = row
    return list(first.values())


def _command(what: str, asked: dict[str, Any]) -> str:
    """What was typed, with nothing that is so by default."""
    words = ["streamcli bench", what]
    for name, value in asked.items():
        if name in asked["named"]:
            values = value if isinstance(value, list | tuple) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return " ".join(words)


def _together(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two arms were timed in turn: they were recorded at once."""
    return all(row[name] == other[name] for name in ("created_at", "host", "bench"))


def _origin(row: dict[str, Any]) -> str:
    """Where, when and from which code a benchmark is."""
    when = moment(row["created_at"])
    code = f", commit {row['git_commit'][:7]}" if row["git_commit"] else ""
    changed = " and uncommitted changes" if row["git_dirty"] else ""
    return f"{row['gpu'] or row['cpu']}, {when:%-d %B %Y, %H:%M} UTC{code}{changed}."


def startup(rounds: int) -> list[dict[str, Any]]:
    """Time whole commands in turn: the help, a run, and what reads the runs so far.

    Raises:
        StreamError: A command failed.
    """
    import numpy as np

    from core.measure.bench import figure

    with TemporaryDirectory() as folder:
        tiny = ["--model", "bundled", "--dataset", "bundled-narrative", "--max-tokens", "64"]
        db = ["--db", f"{folder}/runs.db"]
        commands = {
            "--help": ["--help"],
            "run, 64 tokens": ["run", *tiny, "--window", "28", *db],
            "report": ["report", *db],
            "compare": ["compare", *db],
            "plot": ["plot", *db, "--out", f"{folder}/figures"],
        }
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, words in commands.items():
                began = time.perf_counter()
                call = [sys.executable, "-m", "streamcli", *words]
                done = subprocess.run(call, capture_output=True, text=True, check=False)
                if done.returncode:
                    why = [*done.stderr.strip().splitlines(), f"code {done.returncode}"][0]
                    raise StreamError(f"`streamcli {' '.join(words)}` failed: {why}")
                took[name].append(time.perf_counter() - began)
    found = {name: figure(np.array(seconds)) for name, seconds in took.items()}
    return [
        {"command": name, "s": each.median, "low_s": each.low, "high_s": each.high}
        for name, each in found.items()
    ]


def _config(asked: dict[str, Any], method: str, window: int, **more: Any) -> RunConfig:
    same = {name: asked[name] for name in ("n_sink", "dtype", "device", "threads", "seed")}
    options = {"engine": "eager", **same, **more}
    model = f"random:{asked['shape']}"
    return RunConfig(model=model, dataset="random tokens", method=method, window=window, **options)


def _decodes(asked: dict[str, Any], loaded: Loaded) -> Iterator[Arm]:
    """Every method with a full cache, by every engine and at every k that it has."""
    from core.measure import bench
    from streamcli.render import output

    named = asked["named"]  # what nobody asked for is left out where it can't run
    second = STATIC[loaded.model.device.type != "cpu"]
    batches = asked.get("batch_sizes", [1])
    for window, batch, method in product(asked["windows"], batches, asked["methods"]):
        spec = registry.method(method)
        usual = ["eager", second if spec.static else AS_SHIPPED]
        had = engines(method, registry.DECODE)
        kinds = [each for each in asked["engines"] or usual if each in had] or ["eager"]
        ks = asked.get("evict_every", [1]) if spec.evict_every else [None]
        for engine, every in product(kinds, ks):
            output.passing(f"{method} {engine}, W = {window}")
            more = {"engine": engine, "evict_every": every, "batch_size": batch}
            config = _config(asked, method, window, **more)
            try:
                arm = bench.decode_arm(loaded, config)
            except UsageError as error:
                if ("engines" if engine in STATIC else "methods") in named:
                    raise
                output.say(f"{method} {engine} is left out: {error}")
                continue
            also = [f"every {every}"] if (every or 1) > 1 else []
            also += ["as shipped"] if engine == AS_SHIPPED else []
            arm.label = ", ".join([method, *also])
            yield arm
    output.passing("")


def _lengths(asked: dict[str, Any], loaded: Loaded) -> Iterator[Arm]:
    from core.measure import bench

    for window, tokens, method in product(asked["windows"], asked["lengths"], asked["methods"]):
        yield bench.decode_arm(loaded, _config(asked, method, window), tokens)


def _prompts(asked: dict[str, Any], loaded: Loaded) -> Iterator[Arm]:
    from core.measure import bench

    for window, tokens, method in product(asked["windows"], asked["lengths"], asked["methods"]):
        config = _config(asked, method, window, chunk_size=asked["chunk_size"])
        yield bench.prompt_arm(loaded, config, tokens)


def _perplexities(asked: dict[str, Any], loaded: Loaded) -> Iterator[Arm]:
    from core.measure import bench

    size = asked["chunk_size"]
    for window in asked["windows"]:
        ours = registry.STREAMING
        chunked = _config(asked, ours, window, mode=registry.CHUNKED, chunk_size=size)
        arm = bench.chunk_arm(loaded, chunked)
        arm.label = f"{ours}, chunks of {size}"
        yield arm
        yield bench.plain_arm(loaded, chunked)
        arm = bench.decode_arm(loaded, _config(asked, ours, window))
        arm.label = ONE_BY_ONE
        yield arm


def _notes(arms: list[Arm]) -> tuple[str, ...]:
    """What a reader must know of the arms, each thing once."""
    return tuple(dict.fromkeys(note for arm in arms for note in arm.notes))


def _twice(arms: list[Arm]) -> Iterator[str]:
    """What the arm that stands there twice says of all differences."""
    from core.measure import bench

    for arm in arms:
        if arm.twin:
            found = bench.ratio(arm, arm.twin)
            words = f"{found.median:.3f}x ({found.low:.3f} to {found.high:.3f})"
            if found.holds(1) and found.high < WIDE * found.low:
                yield f"{arm.twin.name} was timed as two arms: one over the other is {words}."
            else:
                yield (
                    f"UNSTABLE: {arm.twin.name} was timed as two arms, and one over the other is "
                    f"{words}, where 1 is right: other ratios may be off by as much; repeat on a "
                    "quieter machine."
                )


def _row(arm: Arm, arms: list[Arm], machine: Machine) -> dict[str, Any]:
    import numpy as np

    from core.measure import bench

    found, floor_ms = bench.figure(arm.typical()), machine.floor_ms(arm.work) / arm.tokens
    steps = np.concatenate([np.array(each) for each in arm.rounds_ms])
    row: dict[str, Any] = {
        "arm": arm.name,
        "twin": arm.twin is not None,
        "method": arm.config.method,
        "engine": arm.config.engine,
        "n_sink": arm.config.n_sink,
        "window": arm.config.window,
        "attended_keys": arm.config.attended_keys,
        "batch_size": arm.config.batch_size,
        "length": arm.length,
        "ms_per_token": found.median,
        "ms_per_token_low": found.low,
        "ms_per_token_high": found.high,
        "floor_ms": floor_ms,
        "ratio_to_floor": found.median / floor_ms,
        "tokens_per_s": 1000 * arm.read / found.median,
        "p95_ms": float(np.percentile(steps, 95)),
        "p99_ms": float(np.percentile(steps, 99)),
        "kv_mib": arm.kv_mib,
        "step_mib": arm.step_mib,
        "compile_s": arm.compile_s,
        "ratios": {},
        "speed_ups": {},
    }
    for base in arms:
        alike = {
            (each.config.attended_keys, each.config.batch_size, each.length) for each in (arm, base)
        }
        bounded = arm.bounded and base.bounded
        if len(alike) > 1 or not bounded or base.name == arm.name or base.twin:
            continue
        spec, every = base.config.spec, base.config.steps_between_evictions()
        peer = spec.peer and spec.exact and every == 1
        if base.name == PLAIN or peer or _beside_ours(arm, base):
            each = bench.ratio(arm, base)
            row["ratios"][base.name] = [each.median, each.low, each.high]
        elif base.config.method == registry.BASELINE or base.name == ONE_BY_ONE:
            each = bench.ratio(base, arm)
            row["speed_ups"][base.name] = [each.median, each.low, each.high]
    return row


def _beside_ours(arm: Arm, base: Arm) -> bool:
    """Whether ``base`` is our streaming cache, and ``arm`` another rule for which keys stay."""
    theirs = arm.config.spec.peer or arm.config.method in (registry.STREAMING, registry.BASELINE)
    alike = arm.config.engine == base.config.engine
    return base.name == registry.STREAMING and alike and not theirs


def _record(timed: Timed, loaded: Loaded, arm: Arm, row: dict[str, Any]) -> dict[str, Any]:
    """An arm as a row of the database; its trace has every timed step, round after round."""
    import numpy as np
    import torch

    from core import environment
    from streamcli.results.schema import Benchmark, pack

    on_gpu = loaded.model.device.type == "cuda"
    here = environment.describe(torch.cuda.get_device_name(loaded.model.device) if on_gpu else None)
    about = {name: each for name, each in asdict(timed).items() if name != "rows"}
    known = {**about, **vars(arm.config), **vars(here), **row} | {
        "chunk_size": arm.config.chunk,
        "device": str(loaded.model.device),
        "threads": torch.get_num_threads(),
        "latency_ms": pack(np.concatenate([np.array(each, np.float32) for each in arm.rounds_ms])),
        "shown": json.dumps(row),
        "about": json.dumps(about),
    }
    return {name: known[name] for name in Benchmark.model_fields if name in known}
