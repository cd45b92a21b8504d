"""What becomes of a run reaches the results database; a finished result is never lost.

A database that can't be written to is given minutes, each wait said. A result that it can't take
even then goes to a file that ``streamcli db import`` takes, and is shown all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Self, TypeVar

from core import process
from core.errors import Interrupted, StreamError
from core.result import RunResult
from streamcli.jobs import database, signals
from streamcli.render.progress import spelled
from streamcli.results import transfer, unrecorded
from streamcli.results.queue import Cell, Taken
from streamcli.results.schema import Run, unpack
from streamcli.results.store import Store, Unfinishable
from streamcli.results.transfer import Others, Record

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

Say = Callable[[str], None]
Given = TypeVar("Given")

PATIENCE_S = 180.0  # with a database that can't be written to
PAUSE_S = 10.0
HASTE_S = 1.0  # of patience when a stop has come
ALONE = {"benchmark": "what was timed", "probe": "what was found"}


class Unrecordable(StreamError):
    """The results database can't be opened, or can't be written to, so no run can begin."""

    def __init__(self, cause: StreamError) -> None:
        super().__init__(str(cause))
        self.exit_code = cause.exit_code


@dataclass
class Ledger:
    """Where runs are recorded.

    Attributes:
        store: The results database.
        place: How it was named, a path or URL.
        say: Is told what the user must know.
        kept: The finished runs that the database could not take.
        files: Where they were written to, as far as that was possible.
        apart: What it could not take of what belongs to no run, in words.
        refused: Whether it has refused the latest result so far.
    """

    store: Store
    place: str
    say: Say
    kept: dict[str, Record] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    apart: str = ""
    refused: bool = False

    @classmethod
    def open(cls, place: str, say: Say) -> Self:
        """Open the database, close the runs of processes that were killed, and tell what waits.

        Raises:
            Unrecordable: It can't be opened as it was named.
        """
        try:
            store = Store.open(place)
            dead = store.reap(process.ended)
        except StreamError as error:
            raise Unrecordable(error) from error
        if dead:
            say(f"runs whose process was killed are now interrupted: {', '.join(dead)}.")
        if words := database.waiting(store, place):
            say(words)
        return cls(store, place, say)

    def begin(self, run: Run) -> None:
        """Record that a run begins.

        Raises:
            Unrecordable: The database did not take it for minutes.
        """
        self.until_told(lambda: self.store.enter(run))

    def finish(self, run: Run, result: RunResult, cell: Cell | None = None) -> None:
        """Record what a run found: in the database, else in a file.

        Raises:
            Taken: Another worker has made this run of the queue meanwhile.
        """
        waits = f"Run {run.run_id} is finished and its result is kept"
        self.refused = False

        def say(words: str) -> None:
            self.refused = True
            self.say(words)

        try:
            patiently(lambda: self.store.finish(run.run_id, result, cell), waits, say)
        except Taken:
            raise
        except StreamError as error:
            self.say(f"{_sentence(error)} {self._put_aside(run, result, cell)}")

    def alone(self, word: str, rows: list[dict[str, Any]]) -> bool:
        """Record rows that belong to no run: in the database, else in a file; whether in the first.

        Args:
            word: ``benchmark`` or ``probe``.
            rows: As ``results.alone`` names them.

        Raises:
            Interrupted: It was stopped while the database did not take it.
        """
        what = ALONE[word].capitalize()
        try:
            patiently(
                lambda: transfer.add(self.store, (), word, {word: rows}),
                f"{what} is kept",
                self.say,
            )
        except KeyboardInterrupt as stop:
            raise Interrupted(f"interrupted. {self._put_apart(word, rows)}") from stop
        except StreamError as error:
            self.say(f"{_sentence(error)} {self._put_apart(word, rows)}")
        return not self.apart

    def fail(self, run: Run, error: StreamError) -> None:
        """Record that a run failed, and why."""
        try:
            self.store.fail(run.run_id, str(error))
        except StreamError as problem:
            self.say(f"run {run.run_id} failed, which could not be recorded: {problem}")

    def interrupt(self, run: Run, result: RunResult | None, cell: Cell | None) -> Interrupted:
        """Record that a run was stopped, before its end or while its result was being recorded."""
        if result and not self.refused:
            try:  # the stop came in between
                self.store.hasty(HASTE_S).finish(run.run_id, result, cell)
                return Interrupted(f"interrupted; run {run.run_id} was finished and is recorded.")
            except Taken as taken:
                return Interrupted(f"interrupted; {taken}")
            except (KeyboardInterrupt, StreamError):
                pass  # it is not waited for
        if result:
            return Interrupted(f"interrupted. {self._put_aside(run, result, cell)}")
        try:
            self.store.interrupt(run.run_id)
        except StreamError as problem:
            return Interrupted(f"interrupted; run {run.run_id} is not recorded as such: {problem}")
        return Interrupted(f"interrupted; run {run.run_id} is recorded as such.")

    def runs(self, names: Collection[str], sort: str | None = None) -> pd.DataFrame:
        """These finished runs, those that the database could not take among them."""
        from streamcli.results import frames

        if self.kept.keys().isdisjoint(names):
            return frames.runs(self.store, run_id=list(names), sort=sort)
        rows = {name: self.kept[name].run for name in names if name in self.kept}
        if recorded := [name for name in names if name not in rows]:
            try:
                found = frames.runs(self.store, run_id=recorded).to_dict("records")
                rows |= {row["run_id"]: row for row in found}
            except StreamError as error:
                self.say(f"{_sentence(error)} Only what it could not take is shown.")
        return frames.of(rows[name] for name in sorted(rows, reverse=sort is None))

    def run(self, run_id: str) -> tuple[Run, NDArray[np.float32]]:
        """A finished run and the nats of its tokens, whether the database took it or not."""
        kept = self.kept.get(run_id)
        if kept and kept.trace:
            return Run(**kept.run), unpack(kept.trace["nll"])
        return self.store.get(run_id), self.store.trace(run_id)[0]

    def settle(self) -> None:
        """Say in the end what is not in the database.

        Raises:
            StreamError: A finished run is not.
        """
        number = len(self.kept) + bool(self.apart)
        if not number:
            return
        lost = number - len(self.files)
        what = self.apart or f"{number} finished run{'s' * (number > 1)}"
        words = f"{what} could not be recorded in {self.store.place}"
        if self.files:
            words += f"; to add: {database.importing(self.files, self.place)}"
        if lost:
            words += f"; {lost} could be written nowhere, so keep what is shown above"
        raise StreamError(words)

    def _put_aside(self, run: Run, result: RunResult, cell: Cell | None) -> str:
        """Keep the result of a run in memory and in a file; what to say of it."""
        with signals.ignored():
            kept = self.kept[run.run_id] = unrecorded.record(run, result)
            return self._written(f"The result of run {run.run_id}", [kept], cell=cell)

    def _put_apart(self, word: str, rows: list[dict[str, Any]]) -> str:
        """Keep rows that belong to no run in a file; what to say of them."""
        with signals.ignored():
            self.apart = ALONE[word]
            return self._written(self.apart.capitalize(), [], {word: rows})

    def _written(
        self, what: str, kept: list[Record], more: Others | None = None, cell: Cell | None = None
    ) -> str:
        try:
            file = unrecorded.write(self.store, kept, more, cell)
        except StreamError as problem:
            return str(problem)
        self.files.append(file)
        words = database.importing([file], self.place)
        return f"{what} is in {file}; to add it: {words}"

    def until_told(self, act: Callable[[], Given]) -> Given:
        """Ask the database for what must be there before the next run.

        Raises:
            Unrecordable: It did not answer for minutes.
        """
        try:
            return patiently(act, "The next run waits", self.say)
        except StreamError as error:
            raise Unrecordable(error) from error


def patiently(act: Callable[[], Given], waits: str, say: Say) -> Given:
    """Do what a database may refuse for a while, each wait said; raises as ``act`` does then."""
    until = monotonic() + PATIENCE_S
    while True:
        try:
            return act()
        except (Unfinishable, Taken):
            raise
        except StreamError as error:
            left_s = until - monotonic()
            if left_s <= 0:
                raise
            say(f"{_sentence(error)} {waits}; trying again for {spelled(left_s)}.")
            sleep(min(PAUSE_S, left_s))


def _sentence(error: StreamError) -> str:
    return f"{str(error).removesuffix('.')}."
