"""Workers at one queue, forked from a process that has torch and the model, and killed at random.

For ``test_workers``, which looks at the database afterwards.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time

from streamcli.results import queue
from streamcli.results.queue import OVER
from streamcli.results.store import Store
from tests.support import forked

METHODS = ("streaming", "window", "dense")
REPEATS = 4
GROUPS = 4  # two texts, one and two documents in step
RUNS = GROUPS * REPEATS * len(METHODS)
PLAN = (
    *("--models", "bundled", "--datasets", "bundled-narrative", "bundled-encyclopedia"),
    *("--modes", "chunked", "--max-tokens", "60", "--windows", "20", "--batch-sizes", "1", "2"),
    *("--methods", *METHODS, "--repeats", f"{REPEATS}", "--threads", "1"),
)
WORKERS = 4
KILLS = 6


def left(place: str) -> int:
    """Groups that are not over."""
    groups = queue.Queue(Store.open(place), "", None, lambda _: None).groups()
    return sum(each.state != OVER for each in groups)


def killed(place: str) -> None:
    """Four workers, of which one is killed at a random moment and replaced, again and again.

    Prints, as JSON, how the processes ended.
    """
    queue.DEATHS = KILLS + 1  # random moments may hit one group over and over
    ends = [forked.ended(forked.start("sweep", "--enqueue", *PLAN, "--db", place))]
    moments = random.Random(7)
    alive = [forked.start("worker", "--db", place) for _ in range(WORKERS)]
    while ends.count(-signal.SIGKILL) < KILLS and left(place):
        time.sleep(moments.uniform(0, 0.4))
        victim = alive.pop(moments.randrange(len(alive)))
        os.kill(victim, signal.SIGKILL)
        ends.append(forked.ended(victim))
        alive.append(forked.start("worker", "--db", place))
    ends += [*map(forked.ended, alive), forked.ended(forked.start("worker", "--db", place))]
    print(json.dumps(ends))
