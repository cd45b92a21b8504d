"""From configurations to recorded runs: prepare, begin a row, evaluate, end it in any case."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from core import environment
from core.config import RunConfig
from core.errors import Interrupted, StreamError
from core.facts import RunFacts
from core.foreknown import Foreknowledge, Foreknown
from streamcli.jobs import processes, signals
from streamcli.jobs.ledger import Ledger, Say, Unrecordable
from streamcli.results import addresses, values
from streamcli.results.queue import Cell, Taken
from streamcli.results.store import Store

if TYPE_CHECKING:  # which import torch
    from core.models.loading import Loaded
    from core.modes.base import Progress
    from core.runner import Prepared, Text

Watch = Callable[["Prepared"], AbstractContextManager["Progress"]]
Made = TypeVar("Made")


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
        stopped: Why no further run could begin, where some were made before.
    """

    place: str
    explicit: bool
    say: Say
    watch: Watch
    sweep: str | None = None
    stopped: Unrecordable | None = None
    _ledger: Ledger | None = None
    _loaded: dict[tuple[str, ...], Loaded | StreamError] = field(default_factory=dict)
    _texts: dict[tuple[Any, ...], Text | StreamError] = field(default_factory=dict)
    _foreknowledge: Foreknowledge | None = None
    _notes_shown: set[str] = field(default_factory=set)

    @property
    def ledger(self) -> Ledger:
        """Where the runs are recorded, opened when it is first needed.

        Raises:
            Unrecordable: It can't be.
        """
        if self._ledger is None:
            self._ledger = Ledger.open(self.place, self.say)
        return self._ledger

    @property
    def has_database(self) -> bool:
        """Whether the results database is there, so that to open it leaves no trace."""
        file = addresses.file_of(addresses.located(self.place))
        return self._ledger is not None or file is None or os.path.exists(file)

    @property
    def store(self) -> Store:
        """The results database."""
        return self.ledger.store

    def record(self, config: RunConfig, repeat: int = 0) -> str:
        """Run ``config`` and return the name of its row.

        Raises:
            StreamError: The run can't begin, or failed; its row then says failed, with the reason.
            Interrupted: The run was stopped; its row says so.
        """
        return self.run(self.prepare(config), repeat)

    def repeat(self, config: RunConfig, times: int) -> list[str]:
        """Record ``config`` so many times; the names of the rows, raising as ``record`` does.

        Where the database gives out after some of them, these are given, and ``settle`` raises.
        """
        names: list[str] = []
        for number in range(times):
            try:
                names.append(self.record(config, number))
            except Unrecordable as error:
                if not names:
                    raise
                self.stopped = error
                break
        return names

    def settle(self) -> None:
        """Say in the end what is not as it should be.

        Raises:
            StreamError: A finished run is not in the database, or no further run could begin.
        """
        self.ledger.settle()
        if self.stopped:
            raise self.stopped

    def prepare(self, config: RunConfig) -> Prepared:
        """Load what ``config`` needs, and settle what it left open.

        Raises:
            StreamError: The run can't begin.
            Interrupted: It was stopped.
        """
        signals.listen()
        try:
            prepared = self._prepare(config)
        except KeyboardInterrupt as stop:
            raise Interrupted("interrupted before the run began.") from stop
        except StreamError:
            raise
        except Exception as error:
            raise _failure(error) from error
        self._show(prepared.notes)
        return prepared

    def foreknown(self, config: RunConfig) -> Foreknown | None:
        """What ``prepare`` would settle and find, where that can be told without it.

        Once this was asked, what ``prepare`` finds is kept for the next process that asks.
        """
        if self._foreknowledge is None:
            self._foreknowledge = Foreknowledge(self.explicit)
        found = self._foreknowledge.find(config)
        if found:
            self._show(found.notes)
        return found

    def run(self, prepared: Prepared, repeat: int, cell: Cell | None = None) -> str:
        """Evaluate a prepared run and return the name of its row; raises as ``record`` does.

        Where it has a place in the queue, and another worker has made it meanwhile: ``Taken``.
        """
        from core import runner

        ledger, made = self.ledger, (prepared.config, prepared.facts, prepared.environment)
        run, result = values.run(*made, repeat, self.sweep), None
        try:
            ledger.begin(run)
            with self.watch(prepared) as progress:
                result = runner.execute(prepared, progress)
            ledger.finish(run, result, cell)
        except KeyboardInterrupt as stop:
            raise ledger.interrupt(run, result, cell) from stop
        except (Unrecordable, Taken):
            raise
        except StreamError as error:
            ledger.fail(run, error)
            raise
        except Exception as error:
            failure = _failure(error)
            ledger.fail(run, failure)
            raise failure from error
        return run.run_id

    def finished(
        self, config: RunConfig, facts: RunFacts, *, anywhere: bool = False
    ) -> dict[str, int]:
        """The finished runs of this very configuration, package, model and tokens: their repeats.

        Args:
            config: The run's resolved configuration.
            facts: What was found of its model and text.
            anywhere: Whether those of other machines count.

        Raises:
            Unrecordable: The database does not tell.
        """
        from streamcli.results import frames

        try:
            rows = frames.rows(
                self.store,
                ("run_id", "repeat"),
                config_key=config.key,
                weights_sha256=facts.weights_sha256,
                files_sha256=facts.files_sha256,
                tokens_sha256=facts.tokens_sha256,
                method_package=facts.method_package,
                host=None if anywhere else processes.host(),
            )
        except StreamError as error:
            raise Unrecordable(error) from error
        return {row.run_id: row.repeat for row in rows}

    def _show(self, notes: tuple[str, ...]) -> None:
        for note in notes:
            if note not in self._notes_shown:
                self.say(note)
                self._notes_shown.add(note)

    def _prepare(self, config: RunConfig) -> Prepared:
        from core import runner

        what = (config.model, config.dtype, config.device, config.source)
        key = (*what, str(config.softmax_type), str(config.trust), str(self.explicit))
        if key not in self._loaded:
            self._loaded.clear()  # before the next one comes in: two may not fit
            self._texts.clear()
        loaded = _once(self._loaded, key, lambda: runner.load_model(config, explicit=self.explicit))
        text = _once(self._texts, config.read, lambda: runner.read_text(config, loaded))
        prepared = runner.prepare(config, loaded, text)
        if self._foreknowledge:
            self._foreknowledge.keep(config, prepared, text.read)
        return prepared


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
    words = f"{type(error).__name__}: {' '.join(str(error).split())}"
    failure = StreamError(words + environment.way_out(error))
    failure.__cause__ = error
    return failure
