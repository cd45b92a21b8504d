"""Runs and sweeps in processes of their own, forked from one that has torch and the model already.

The scenarios below are for ``test_stopped_sweeps``, which looks at the databases afterwards.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from importlib import import_module
from typing import NoReturn

import torch

from tests.support.loaded_once import load_once

HEAVY = (
    "alembic.command",
    "sqlalchemy.dialects.sqlite",
    "streamcli.cli",
    "streamcli.jobs.worker",
    "streamcli.settings",
    "core.methods.dense",
    "core.methods.recompute",
    "core.cache",
    "core.methods.streaming",
    "core.modes.chunked",
    "pandas",
    "streamcli.render.output",
    "streamcli.results.frames",
    "streamcli.jobs.sweep",
    "transformers.models.gpt_neox.modeling_gpt_neox",
    "transformers.models.gpt_neox.tokenization_gpt_neox",
)
TEXT = ("--models", "bundled", "--datasets", "bundled-narrative", "--modes", "chunked")
SWEEP = ("sweep", *TEXT, "--max-tokens", "60")
LONG = (
    *("run", "--model", "bundled", "--dataset", "bundled-narrative", "--max-tokens", "9000"),
    *("--method", "recompute", "--window", "250"),
)
LARGE = (*SWEEP, "--methods", "streaming", "window", "recompute", "--windows", "10", "20")
REPEATS = 4
KILLS = 7
END = "\x1e"


def start(*words: str) -> int:
    """The number of a child process that runs streamcli with these words, and speaks on stderr."""
    child = os.fork()
    if not child:
        os.dup2(2, 1)
        become(*words)
    return child


def become(*words: str) -> NoReturn:
    """End this process, which was forked, as streamcli with these words."""
    from streamcli.__main__ import main

    code: object = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["streamcli", *words]
        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
        sys.stderr = os.fdopen(2, "w", buffering=1)
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
        finally:
            os._exit(code if isinstance(code, int) else 0)


def ended(child: int) -> int:
    """The exit code of a child, or its signal as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(db: str) -> list[int]:
    """A sweep that is killed ``KILLS`` times at random moments, then runs to its end."""
    began = time.monotonic()
    ends = [ended(start(*SWEEP, "--windows", "20", "--methods", "window", "--db", f"{db}.first"))]
    span_s = 1.2 * (time.monotonic() - began)  # a little more than one run takes from the start
    moments = random.Random(4)
    words = (*LARGE, "--repeats", f"{REPEATS}", "--db", db)
    while ends.count(-signal.SIGKILL) < KILLS:
        child = start(*words)
        time.sleep(moments.uniform(0, span_s))
        os.kill(child, signal.SIGKILL)
        ends.append(ended(child))
    return [*ends, ended(start(*words))]


def stopped(db: str) -> list[int]:
    """Two long runs, by a user and by a scheduler, and a sweep at its third run, which goes on."""
    ends = [stop(1, f"{db}.{number}", number, *LONG) for number in (signal.SIGINT, signal.SIGTERM)]
    return [*ends, stop(3, db, signal.SIGTERM, *LARGE), ended(start(*LARGE, "--db", db))]


def stop(begun: int, db: str, number: int, *words: str) -> int:
    """The exit code of a process that gets a signal when it has begun so many runs."""
    from streamcli.results import frames
    from streamcli.results.store import Store

    child = start(*words, "--db", db)
    while not os.path.exists(db) or len(frames.runs(Store.open(db), status=None)) < begun:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it has ended by itself"
        time.sleep(0.01)
    os.kill(child, number)
    return ended(child)


def together(db: str) -> list[int]:
    """Two sweeps at once that share half of their runs."""
    both = (("streaming", "window"), ("window", "dense"))
    words = (*SWEEP, "--windows", "10", "20", "--repeats", "4", "--db", db, "--methods")
    return [ended(child) for child in [start(*words, *methods) for methods in both]]


SCENARIOS = {scenario.__name__: scenario for scenario in (killed, stopped, together)}


def warm() -> None:
    """Import what children need, and load the model that all of them are to have."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background lacks
    for module in HEAVY:
        import_module(module)
    from core import runner
    from core.config import RunConfig
    from core.models import anatomy, loading

    loading.load = load_once
    for method in ("streaming", "recompute"):  # one that moves positions, and one that does not
        config = RunConfig(model="bundled", method=method)
        anatomy.of(runner.load_model(config, explicit=True).model)


def play() -> None:
    """Each in a database of its name here; prints, as JSON, how the processes ended.

    On stderr ``END`` stands after what the processes of each have said.
    """
    ends = {}
    for name, scenario in SCENARIOS.items():
        ends[name] = scenario(f"{name}.db")
        os.write(2, END.encode())
    print(json.dumps(ends))
