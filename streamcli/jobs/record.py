"""From configurations to recorded runs: prepare, begin a row, evaluate, end it in any case."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

from core import runner
from core.config import RunConfig
from core.errors import Interrupted, StreamError, UsageError
from core.models.loading import Loaded
from core.modes.base import Progress
from core.runner import Prepared, Text
from streamcli.jobs import processes
from streamcli.results.store import Store

Say = Callable[[str], None]
Watch = Callable[[Prepared], AbstractContextManager[Progress]]
Made = TypeVar("Made")


class Unrecordable(UsageError):
    """The results database can't be opened as it was named, so no run can be recorded."""


@dataclass
class Recorder:
    """Runs configurations and records each as a row of its own.

    A model stays in memory until another is asked for, and a text is read once a model; what could
    not be had is not asked for again. The database is opened when the first run can begin, so that
    what can't even begin leaves no trace; rows of processes that were killed are then closed.

    Attributes:
        place: The results database, a path or URL.
        explicit: Whether the user named the model, so that no stand-in may take its place.
        say: Is told, once, what the user must know.
        watch: Opens something to show progress on.
        sweep: The sweep that the runs belong to, if any.
    """

    place: str
    explicit: bool
    say: Say
    watch: Watch
    sweep: str | None = None
    _store: Store | None = None
    _loaded: dict[tuple[str, ...], Loaded | StreamError] = field(default_factory=dict)
    _texts: dict[tuple[str, int | None], Text | StreamError] = field(default_factory=dict)
    _notes_shown: set[str] = field(default_factory=set)

    @property
    def store(self) -> Store:
        """The results database, opened when it is first needed.

        Raises:
            Unrecordable: It can't be.
        """
        if self._store is None:
            try:
                self._store = Store.open(self.place)
            except UsageError as error:
                raise Unrecordable(str(error)) from error
            if dead := self._store.reap(processes.host(), processes.process_ended):
                self.say(f"runs whose process was killed are now interrupted: {', '.join(dead)}.")
        return self._store

    def record(self, config: RunConfig, repeat: int = 0) -> str:
        """Run ``config`` and return the name of its row.

        Raises:
            StreamError: The run can't begin, or failed; its row then says failed, with the reason.
            Interrupted: The run was stopped; its row says so.
        """
        return self.run(self.prepare(config), repeat)

    def prepare(self, config: RunConfig) -> Prepared:
        """Load what ``config`` needs, and settle what it left open.

        Raises:
            StreamError: The run can't begin.
            Interrupted: It was stopped.
        """
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop, likewise
        try:
            prepared = self._prepare(config)
        except KeyboardInterrupt as stop:
            raise Interrupted("interrupted before the run began.") from stop
        except StreamError:
            raise
        except Exception as error:
            raise _failure(error) from error
        for note in prepared.notes:
            if note not in self._notes_shown:
                self.say(note)
                self._notes_shown.add(note)
        return prepared

    def run(self, prepared: Prepared, repeat: int) -> str:
        """Evaluate a prepared run and return the name of its row; raises as ``record`` does."""
        run_id = self.store.begin(
            prepared.config, prepared.facts, prepared.environment, repeat, self.sweep
        )
        try:
            with self.watch(prepared) as progress:
                result = runner.execute(prepared, progress)
            self.store.finish(run_id, result)
        except KeyboardInterrupt as stop:
            self.store.interrupt(run_id)
            raise Interrupted(f"interrupted; run {run_id} is recorded as such.") from stop
        except StreamError as error:
            self.store.fail(run_id, str(error))
            raise
        except Exception as error:
            failure = _failure(error)
            self.store.fail(run_id, str(failure))
            raise failure from error
        return run_id

    def finished(self, prepared: Prepared) -> dict[str, int]:
        """The finished runs of this very configuration, model, tokens and host: their repeats."""
        from streamcli.results import frames

        rows = frames.runs(
            self.store,
            columns=("run_id", "repeat"),
            config_key=prepared.config.key,
            weights_sha256=prepared.facts.weights_sha256,
            files_sha256=prepared.facts.files_sha256,
            tokens_sha256=prepared.facts.tokens_sha256,
            host=prepared.environment.host,
        )
        return {str(row.run_id): int(row.repeat) for row in rows.itertuples()}

    def _prepare(self, config: RunConfig) -> Prepared:
        key = (config.model, config.dtype, config.device, config.source, str(config.trust))
        if key not in self._loaded:
            self._loaded.clear()  # before the next one comes in: two may not fit
            self._texts.clear()
        loaded = _once(self._loaded, key, lambda: runner.load_model(config, explicit=self.explicit))
        asked = (config.dataset, config.max_tokens)
        text = _once(self._texts, asked, lambda: runner.read_text(config, loaded))
        return runner.prepare(config, loaded, text)


Key = TypeVar("Key")


def _once(known: dict[Key, Made | StreamError], key: Key, make: Callable[[], Made]) -> Made:
    """What ``make`` gave, or raised, when ``key`` was first asked for."""
    if key not in known:
        try:
            known[key] = make()
        except StreamError as error:
            known[key] = error
        except Exception as error:
            known[key] = _failure(error)
    found = known[key]
    if isinstance(found, StreamError):
        raise found
    return found


def _failure(error: Exception) -> StreamError:
    failure = StreamError(f"{type(error).__name__}: {' '.join(str(error).split())}")
    failure.__cause__ = error
    return failure
