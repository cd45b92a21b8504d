"""From configurations to recorded runs: prepare, begin a row, evaluate, end it in any case."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from core import runner
from core.config import RunConfig
from core.errors import Interrupted, StreamError
from core.models import Loaded
from core.modes.base import Progress
from core.runner import Prepared, Text
from streamcli.results.store import Store

Say = Callable[[str], None]
Watch = Callable[[Prepared], AbstractContextManager[Progress]]


@dataclass
class Recorder:
    """Runs configurations and records each as a row of its own.

    A model stays in memory until another is asked for, and a text is read once a model. The
    database is opened when the first run can begin, so that what can't even begin leaves no trace.

    Attributes:
        place: The results database, a path or URL.
        explicit: Whether the user named the model, so that no stand-in may take its place.
        say: Is told, once, what the user must know.
        watch: Opens something to show progress on.
    """

    place: str
    explicit: bool
    say: Say
    watch: Watch
    _store: Store | None = None
    _loaded: tuple[tuple[str, ...], Loaded] | None = None
    _texts: dict[tuple[str, int | None], Text] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    @property
    def store(self) -> Store:
        """The results database, opened when it is first needed."""
        if self._store is None:
            self._store = Store.open(self.place)
        return self._store

    def record(self, config: RunConfig, repeat: int = 0) -> str:
        """Run ``config`` and return the name of its row.

        Raises:
            StreamError: The run can't begin, or failed; its row then says failed, with the reason.
            Interrupted: The run was stopped; its row says so.
        """
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop, likewise
        prepared = self._prepare(config)
        for note in prepared.notes:
            if note not in self._said:
                self.say(note)
                self._said.add(note)
        run_id = self.store.begin(prepared.config, prepared.facts, prepared.environment, repeat)
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
            failure = StreamError(f"{type(error).__name__}: {' '.join(str(error).split())}")
            self.store.fail(run_id, str(failure))
            raise failure from error
        return run_id

    def _prepare(self, config: RunConfig) -> Prepared:
        key = (config.model, config.dtype, config.device, config.source, str(config.trust))
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # before the next one comes in: two may not fit
            self._texts.clear()
            self._loaded = key, runner.load_model(config, explicit=self.explicit)
        loaded = self._loaded[1]
        asked = (config.dataset, config.max_tokens)
        if asked not in self._texts:
            self._texts[asked] = runner.read_text(config, loaded)
        return runner.prepare(config, loaded, self._texts[asked])
