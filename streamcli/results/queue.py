"""The queue of enqueued sweeps: many processes take from it, and none of its runs is made twice.

A group of runs is claimed in one transaction. The claim holds as long as its process lives; where
that can't be told from here, as of another machine's, as long as its beat in the database goes on.
Whoever waits watches the beat by its own clock, so that no two clocks need to agree.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, Select, case, delete, insert, select, text, update

from core.config import RunConfig
from core.errors import StreamError
from streamcli.results import ulid
from streamcli.results.schema import QUEUE, RUNS
from streamcli.results.values import now

if TYPE_CHECKING:
    from streamcli.results.store import Store

LEASE_S = 90.0  # that a beat may stand still
BEAT_S = 15.0
LOOK_S = LEASE_S / 3  # looks that are further apart may both have missed the beats between
DEATHS = 5  # of workers with one group, no run of which ended meanwhile
LOCK = 2309_17454  # as in ``migrations``: one process at a time adds to the queue
WAITING, CLAIMED, HELD, OVER = "waiting", "claimed", "held", "done"
DONE, FAILED, LEFT_OUT = "done", "failed", "left out"


class Ended(NamedTuple):
    """How a run of a group ended: ``DONE``, ``FAILED`` or ``LEFT_OUT``; its name, or why."""

    how: str
    what: str


class Cell(NamedTuple):
    """One run of a group in the queue, by its number in the group's own order."""

    group_id: str
    number: int


class Taken(StreamError):
    """Another worker has made this run meanwhile."""


@dataclass(frozen=True)
class Claim:
    """A group of the queue.

    Attributes:
        group_id: Its name.
        sweep: The sweep that its runs belong to.
        state: ``WAITING``, ``CLAIMED``, ``HELD`` or ``OVER``.
        host: The machine that has it, or had it last.
        worker: Who has it.
        repeats: Rounds.
        within_trained: Whether a budget beyond the trained length is left out.
        explicit: Whether the user named the model, so that no stand-in may take its place.
        force: Whether what is finished elsewhere is made again.
        keys: The names of its configurations.
        ended: How its runs ended, as far as they have, by number.
        described: Its configurations, as JSON.
    """

    group_id: str
    sweep: str
    state: str
    host: str | None
    worker: str | None
    repeats: int
    within_trained: bool
    explicit: bool
    force: bool
    keys: tuple[str, ...]
    ended: dict[int, Ended]
    described: str

    @classmethod
    def of(cls, row: Any) -> Claim:
        """A group from its row."""
        plain = ("group_id", "sweep", "state", "host", "worker")
        flags = ("repeats", "within_trained", "explicit", "force")
        return cls(
            **{name: row[name] for name in (*plain, *flags)},
            keys=tuple(row["keys"].split()),
            ended=_ended(row["ended"]),
            described=row["arms"],
        )

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.keys) * self.repeats

    @property
    def arms(self) -> tuple[RunConfig, ...]:
        """Its configurations.

        Raises:
            UsageError: One has a method or an option that is not known here.
        """
        found = json.loads(self.described)
        return tuple(RunConfig(**{**each, "param": _pairs(each["param"])}) for each in found)


@dataclass
class Queue:
    """The queue of a database, for one worker.

    Attributes:
        store: The database.
        host: This machine's name.
        process: This process' name, as ``core.process`` gives it.
        has_ended: Whether the process of a name has ended; None where that can't be told.
        worker: What this worker's claims bear.
        undecided: Whether there may be more to claim in a while: it could not yet be told of some
            claim whether its worker lives, or all that waits has to wait for a running sweep.
    """

    store: Store
    host: str
    process: str | None
    has_ended: Callable[[str | None], bool | None]
    worker: str = field(default_factory=ulid.new)
    undecided: bool = False
    _watched: dict[str, _Watched] = field(default_factory=dict)

    def put(
        self,
        sweep: str,
        groups: Sequence[Sequence[RunConfig]],
        *,
        repeats: int,
        within_trained: bool,
        explicit: bool,
        force: bool,
    ) -> int:
        """Add groups, but for what was added before; the number of runs added."""
        added = 0
        with self.store.transaction(writes=True) as connection:
            _lock(connection)
            rounds: dict[str, int] = {}
            enqueued = QUEUE.c.state.in_((WAITING, CLAIMED))
            there = select(QUEUE.c["keys"], QUEUE.c.repeats).where(enqueued)
            for keys, number in connection.execute(there):
                rounds |= {key: max(number, rounds.get(key, 0)) for key in keys.split()}
            for group in groups:
                arms = [arm for arm in group if force or rounds.get(arm.key, 0) < repeats]
                if not arms:
                    continue
                flags = {"within_trained": within_trained, "explicit": explicit, "force": force}
                row = _row(sweep, arms, repeats) | flags
                connection.execute(insert(QUEUE), row)
                added += repeats * len(arms)
        return added

    def claim(self, sweep: str | None = None) -> Claim | None:
        """Claim the next group that waits, in one transaction; None where none does.

        What dead workers had claimed waits again first. A group that was begun goes on where it was
        begun, if that machine asks for it.
        """
        with self._watching() as connection:
            begun_here = case((QUEUE.c.host == self.host, 0), (QUEUE.c.host.is_(None), 1), else_=2)
            waiting = select(QUEUE).where(QUEUE.c.state == WAITING, *_of(sweep))
            waiting = waiting.order_by(begun_here, QUEUE.c.group_id)
            every, apart = self._apart_from_held(connection, waiting)
            self.undecided |= every and not apart
            nearest = waiting.where(QUEUE.c.group_id.in_(apart)).limit(1)
            row = connection.execute(nearest.with_for_update(skip_locked=True)).mappings().first()
            if row:
                self._take(connection, row)
        return Claim.of(row) if row else None

    def hold(
        self, group: Sequence[RunConfig], repeats: int
    ) -> tuple[list[Claim], dict[tuple[str, int], str]]:
        """Claim every waiting group with one of these configurations, and hold the others.

        What is held is no longer in the queue when it is released, or its process has died.

        Returns:
            The groups, and the hosts of what others make: configuration and round.
        """
        mine, elsewhere = list[Claim](), dict[tuple[str, int], str]()
        keys, free = {arm.key for arm in group}, {arm.key: arm for arm in group}
        with self._watching() as connection:
            _lock(connection)
            open_ones = select(QUEUE).where(QUEUE.c.state != OVER).order_by(QUEUE.c.group_id)
            for row in connection.execute(open_ones.with_for_update()).mappings().all():
                claim = Claim.of(row)
                shared = keys.intersection(claim.keys)
                if claim.force and claim.state == WAITING:  # to be made once more, after this
                    continue
                if shared and claim.state == WAITING:
                    self._take(connection, row)
                    mine.append(claim)
                elif shared and claim.worker != self.worker:
                    rounds = range(claim.repeats)
                    elsewhere |= {(key, each): f"{claim.host}" for key in shared for each in rounds}
                if claim.repeats >= repeats:
                    free = {key: arm for key, arm in free.items() if key not in shared}
            if free:
                none = dict.fromkeys(("within_trained", "explicit", "force"), False)
                held = _row("", list(free.values()), repeats) | none | self._mine | {"state": HELD}
                connection.execute(insert(QUEUE), held)
        return mine, elsewhere

    def note(self, cell: Cell, how: str, what: str) -> None:
        """Record how a run of a claimed group ended, where the run itself does not."""
        with self.store.transaction(writes=True) as connection:
            end(connection, cell, Ended(how, what))

    def release(self) -> None:
        """Give back what this worker has claimed, and let go what it holds."""
        mine = QUEUE.c.worker == self.worker
        claimed, held = (mine & (QUEUE.c.state == state) for state in (CLAIMED, HELD))
        with self.store.transaction(writes=True) as connection:
            connection.execute(update(QUEUE).where(claimed).values(state=WAITING, worker=None))
            connection.execute(delete(QUEUE).where(held))

    def groups(self, sweep: str | None = None) -> list[Claim]:
        """Everything that was enqueued, oldest first."""
        enqueued = [QUEUE.c.state != HELD, *_of(sweep)]
        rows = self.store.read(select(QUEUE).where(*enqueued).order_by(QUEUE.c.group_id))
        return [Claim.of(row._mapping) for row in rows]

    def clear(self, sweep: str | None = None) -> int:
        """Remove all groups but those that a living worker has; the number of runs not made."""
        with self._watching() as connection:
            idle = [QUEUE.c.state.in_((WAITING, OVER)), *_of(sweep)]
            rows = connection.execute(select(QUEUE).where(*idle)).mappings().all()
            names = [row["group_id"] for row in rows]
            connection.execute(delete(QUEUE).where(*idle, QUEUE.c.group_id.in_(names)))
        groups = [Claim.of(row) for row in rows]
        return sum(len(each) - len(each.ended) for each in groups)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Let what this worker claims within it be seen to live."""
        stop = Event()

        def beat() -> None:
            while not stop.wait(BEAT_S):
                with suppress(StreamError):  # the next one may come through
                    self.beat()

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()

    def beat(self) -> None:
        """Show that this worker lives."""
        mine = (QUEUE.c.worker == self.worker) & QUEUE.c.state.in_((CLAIMED, HELD))
        alive = {"beat": QUEUE.c.beat + 1, "seen_at": now()}
        with self.store.transaction(writes=True) as connection:
            connection.execute(update(QUEUE).where(mine).values(**alive))

    @contextmanager
    def _watching(self) -> Iterator[Connection]:
        """A transaction in which what dead workers had claimed waits again.

        A database that was out of reach was so for the others' beats as well.
        """
        try:
            with self.store.transaction(writes=True) as connection:
                self._take_back(connection)
                yield connection
        except StreamError:
            self._watched.clear()
            raise

    def _take(self, connection: Connection, row: Any) -> None:
        claimed = {"state": CLAIMED, "beat": QUEUE.c.beat + 1, "seen_at": now(), **self._mine}
        here = QUEUE.c.group_id == row["group_id"]
        connection.execute(update(QUEUE).where(here).values(**claimed))

    @property
    def _mine(self) -> dict[str, Any]:
        return {"worker": self.worker, "host": self.host, "process": self.process}

    def _apart_from_held(
        self, connection: Connection, waiting: Select[Any]
    ) -> tuple[bool, list[str]]:
        """Whether groups wait, and those of which no running sweep makes a part.

        What waits is read before what is held: a sweep that holds nothing yet sees what waits.
        """
        every = {
            row.group_id: set(row.keys_.split())
            for row in connection.execute(
                waiting.with_only_columns(QUEUE.c.group_id, QUEUE.c["keys"].label("keys_"))
            )
        }
        held = select(QUEUE.c["keys"]).where(QUEUE.c.state == HELD)
        taken = {key for (keys,) in connection.execute(held) for key in keys.split()}
        return bool(every), [name for name, keys in every.items() if not keys & taken]

    def _take_back(self, connection: Connection) -> None:
        others = QUEUE.c.state.in_((CLAIMED, HELD)) & (QUEUE.c.worker != self.worker)
        self.undecided = False
        for row in connection.execute(select(QUEUE).where(others)).mappings().all():
            dead = self._dead(row)
            self.undecided |= dead is None and row["state"] == CLAIMED
            if not dead:
                continue
            deaths = row["deaths"] + 1
            given_back = {"state": WAITING, "worker": None, "deaths": deaths}
            if deaths >= DEATHS:
                given_back |= {"state": OVER, "ended": _given_up(Claim.of(row))}
            same = [QUEUE.c[name] == row[name] for name in ("group_id", "worker", "beat")]
            if row["state"] == HELD:
                connection.execute(delete(QUEUE).where(*same))
            else:
                connection.execute(update(QUEUE).where(*same).values(**given_back))
            if row["process"] and row["sweep"]:
                died = (RUNS.c.process == row["process"]) & (RUNS.c.sweep == row["sweep"])
                stopped = {"status": "interrupted", "finished_at": now()}
                running = died & (RUNS.c.status == "running")
                connection.execute(update(RUNS).where(running).values(**stopped))

    def _dead(self, row: Any) -> bool | None:
        """Whether the worker of a claim is dead; None where that can't be told yet."""
        if self.process and row["process"] == self.process:
            return True  # what this very process had before and could not give back
        told = self.has_ended(row["process"])
        if told is not None:
            return told
        at, seen = monotonic(), self._watched.get(row["worker"])
        if seen is None or at - seen.looked_s > LOOK_S:
            self._watched[row["worker"]] = _Watched(row["beat"], at, at, moved=False)
            return None
        if seen.beat != row["beat"]:
            self._watched[row["worker"]] = _Watched(row["beat"], at, at, moved=True)
            return False
        seen.looked_s = at
        if at - seen.since_s >= LEASE_S:
            return True
        return False if seen.moved else None


def end(connection: Connection, cell: Cell, ended: Ended) -> Ended | None:
    """Record how a run of a group ended, unless it had; what is recorded of it in that case.

    A run that is done takes the place of one that failed.
    """
    here = QUEUE.c.group_id == cell.group_id
    row = connection.execute(select(QUEUE).where(here).with_for_update()).mappings().first()
    if row is None:  # cleared away meanwhile
        return None
    group = Claim.of(row)
    known = group.ended.get(cell.number)
    if known and (known.how != FAILED or ended.how != DONE):
        return None if known == ended else known
    every = {**group.ended, cell.number: ended}
    changed: dict[str, Any] = {"ended": json.dumps(every), "deaths": 0}
    if len(every) == len(group):
        changed |= {"state": OVER, "worker": None}
    connection.execute(update(QUEUE).where(here).values(**changed))
    return None


def standing(groups: Sequence[Claim]) -> list[dict[str, Any]]:
    """How far each sweep is: runs by what became of them, who has what, and why runs failed."""
    found = []
    for sweep in dict.fromkeys(each.sweep for each in groups):
        mine = [each for each in groups if each.sweep == sweep]
        ended = [each for group in mine for each in group.ended.values()]
        row: dict[str, Any] = {"sweep": sweep, "runs": sum(map(len, mine))}
        row |= {how: sum(how == each.how for each in ended) for how in (DONE, FAILED, LEFT_OUT)}
        for state in (WAITING, CLAIMED):
            row[state] = sum(len(each) - len(each.ended) for each in mine if each.state == state)
        row["by"] = Counter(each.host for each in mine if each.state == CLAIMED)
        row["why"] = Counter(each.what for each in ended if each.how == FAILED)
        found.append(row)
    return found


@dataclass
class _Watched:
    """The beat of a worker, since when it stands there, and when it was last looked at."""

    beat: int
    since_s: float
    looked_s: float
    moved: bool


def _row(sweep: str, arms: Sequence[RunConfig], repeats: int) -> dict[str, Any]:
    """A group that waits."""
    return {
        "group_id": ulid.new(),
        "state": WAITING,
        "sweep": sweep,
        "created_at": now(),
        "arms": json.dumps([asdict(arm) for arm in arms]),
        "keys": " ".join(arm.key for arm in arms),
        "repeats": repeats,
        "ended": "{}",
        "deaths": 0,
        "beat": 0,
    }


def _lock(connection: Connection) -> None:
    """Let no other process add to the queue meanwhile; on SQLite nobody writes anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})


def _of(sweep: str | None) -> list[Any]:
    return [QUEUE.c.sweep == sweep] if sweep else []


def _ended(described: str) -> dict[int, Ended]:
    return {int(number): Ended(*each) for number, each in json.loads(described).items()}


def _given_up(group: Claim) -> str:
    lost = Ended(FAILED, f"{DEATHS} workers died with it")
    return json.dumps(dict.fromkeys(range(len(group)), lost) | group.ended)


def _pairs(param: list[list[Any]]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in param)
