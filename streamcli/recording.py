"""From settings to recorded runs: prepare, begin a row, evaluate, end the row, whatever happens."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager

from core import runner
from core.errors import StreamError
from core.modes.base import Progress
from core.runner import Prepared
from streamcli.results.store import Store
from streamcli.settings import Settings

Say = Callable[[str], None]
Watch = Callable[[Prepared], AbstractContextManager[Progress]]


def record(asked: Settings, say: Say, watch: Watch) -> tuple[Store, list[str]]:
    """Run what ``asked`` describes, ``repeats`` times, each a row of its own.

    Nothing is written before everything is loaded; from then on every run ends as a row.

    Args:
        asked: The settings.
        say: Is told what the user must know before a run.
        watch: Opens something to show progress on.

    Returns:
        The store and the names of the rows.

    Raises:
        StreamError: The run can't begin, or failed; its row then says failed, with the reason.
        KeyboardInterrupt: The run was interrupted; its row says so.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is an interrupt
    config = asked.config()
    prepared = runner.prepare(config, runner.load_model(config, explicit=asked.model_is_explicit))
    for note in prepared.notes:
        say(note)
    store = Store.open(asked.db)
    return store, [_record(prepared, store, watch, repeat) for repeat in range(asked.repeats)]


def _record(prepared: Prepared, store: Store, watch: Watch, repeat: int) -> str:
    run_id = store.begin(prepared.config, prepared.facts, prepared.environment, repeat)
    try:
        with watch(prepared) as progress:
            result = runner.execute(prepared, progress)
    except KeyboardInterrupt:
        store.interrupt(run_id)
        raise
    except StreamError as error:
        store.fail(run_id, str(error))
        raise
    except Exception as error:
        store.fail(run_id, f"{type(error).__name__}: {error}")
        raise
    store.finish(run_id, result)
    return run_id
