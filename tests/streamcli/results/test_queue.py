"""A group of the queue is one worker's at a time, is lost by the dead only, and ends once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.config import RunConfig
from core.result import RunResult
from streamcli.results import queue
from streamcli.results.queue import BEAT_S, DEATHS, DONE, FAILED, LEASE_S, Cell, Claim, Queue, Taken
from streamcli.results.store import Store
from tests.support.records import Begin

ARMS = tuple(RunConfig(method=name, window=20) for name in ("streaming", "window", "dense"))
OTHER = RunConfig(method="mit", window=20)
Asked = Callable[..., Queue]


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(queue, "monotonic", made)
    return made


@pytest.fixture
def asked(store: Store) -> Asked:
    """Makes a worker at the queue; of the others' processes it knows what it is told."""

    def make(host: str = "here", process: str | None = None, **ended: bool) -> Queue:
        return Queue(store, host, process, lambda name: ended.get(name or ""))

    return make


def put(queue: Queue, *groups: tuple[RunConfig, ...], repeats: int = 1, force: bool = False) -> int:
    flags = {"within_trained": False, "explicit": True, "force": force}
    return queue.put("S", groups or [ARMS], repeats=repeats, **flags)


def claimed(queue: Queue) -> Claim:
    claim = queue.claim()
    assert claim
    return claim


def test_what_is_put_is_claimed_whole_and_once(asked: Asked) -> None:
    one, two = asked(), asked()
    assert put(one, ARMS, (OTHER,), repeats=2) == 8
    first, second = claimed(one), claimed(two)
    assert (first.arms, first.repeats, first.explicit) == (ARMS, 2, True)
    assert (second.arms, len(second)) == ((OTHER,), 2)
    assert one.claim() is None and two.claim() is None
    one.release()
    assert claimed(two).group_id == first.group_id


def test_what_waits_already_is_not_put_again(asked: Asked) -> None:
    one = asked()
    assert put(one, ARMS[:2]) == 2
    assert put(one) == 1
    assert put(one) == 0
    assert put(one, repeats=3) == 9  # of which there are fewer rounds
    assert put(one, force=True) == 3


def test_a_group_that_was_begun_goes_on_where_it_was_begun(asked: Asked) -> None:
    here, there = asked("here"), asked("there")
    put(here, (ARMS[0],), (ARMS[1],), (ARMS[2],))
    begun = claimed(here)
    here.release()
    assert claimed(there).arms == (ARMS[1],)
    assert claimed(here).group_id == begun.group_id


def test_the_dead_lose_what_they_had_and_the_living_do_not(asked: Asked) -> None:
    put(asked())
    first = claimed(asked(process="one"))
    assert asked(one=False).claim() is None
    assert claimed(asked(one=True)).group_id == first.group_id


def test_a_beat_that_stands_still_for_long_is_a_dead_workers(asked: Asked, clock: Clock) -> None:
    put(asked())
    far, near = asked("far"), asked("near")
    first = claimed(far)
    for _ in range(round(3 * LEASE_S / BEAT_S)):  # it lives
        assert near.claim() is None
        clock.s += BEAT_S
        far.beat()
    assert near.claim() is None and not near.undecided
    for _ in range(round(LEASE_S / BEAT_S) - 1):  # it is silent
        clock.s += BEAT_S
        assert near.claim() is None
    clock.s += BEAT_S
    assert claimed(near).group_id == first.group_id


def test_who_has_looked_once_can_not_tell_and_says_so(asked: Asked, clock: Clock) -> None:
    put(asked())
    claimed(asked("far"))
    near = asked("near")
    assert near.claim() is None and near.undecided
    clock.s += 10 * LEASE_S  # it was stopped itself, and has seen nothing of what was between
    assert near.claim() is None and near.undecided


def test_while_the_database_is_away_no_beat_is_missed(
    asked: Asked, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.errors import StreamError

    put(asked())
    claimed(asked("far"))
    near = asked("near")
    for number in range(30):
        clock.s += BEAT_S
        if number % 3 == 2:
            with monkeypatch.context() as patch:
                patch.setattr(Queue, "_take_back", lambda *_: raised(StreamError("away")))
                with pytest.raises(StreamError):
                    near.claim()
        else:
            assert near.claim() is None


def raised(error: Exception) -> None:
    raise error


def test_what_kills_every_worker_is_given_up(asked: Asked) -> None:
    put(asked(), repeats=2)
    for number in range(DEATHS):
        assert claimed(asked(process=f"p{number}", **{f"p{number - 1}": True}))
    last = asked(**{f"p{DEATHS - 1}": True})
    assert last.claim() is None
    (group,) = last.groups()
    assert group.state == "done" and len(group.ended) == 6
    assert set(group.ended.values()) == {(FAILED, f"{DEATHS} workers died with it")}


def test_a_run_of_the_queue_is_done_once_by_whoever_ends_first(
    asked: Asked, store: Store, begin: Begin, result: RunResult
) -> None:
    put(asked())
    cell = Cell(claimed(asked(process="frozen")).group_id, 0)
    assert claimed(asked(frozen=True)).group_id == cell.group_id
    early, late = (begin(store) for _ in range(2))
    store.finish(early, result, cell)
    assert store.finish(early, result, cell).status == "done"  # as where the answer was lost
    with pytest.raises(Taken, match=f"run {late} was made meanwhile by another worker: {early}"):
        store.finish(late, result, cell)
    assert store.get(late).status == "interrupted"
    (group,) = asked().groups()
    assert group.ended == {0: (DONE, early)}


def test_a_run_that_failed_elsewhere_may_still_be_done(asked: Asked, store: Store) -> None:
    put(asked())
    one = asked()
    cell = Cell(claimed(one).group_id, 1)
    one.note(cell, FAILED, "no luck")
    one.note(cell, DONE, "R")
    one.note(cell, FAILED, "no luck")
    assert one.groups()[0].ended == {1: (DONE, "R")}


def test_a_sweep_holds_what_it_makes_and_is_told_who_makes_the_rest(asked: Asked) -> None:
    put(asked(), (ARMS[0],), (ARMS[1],), (ARMS[2],))
    claimed(asked("there"))
    sweep = asked()
    mine, elsewhere = sweep.hold(ARMS[:2], 2)
    assert [claim.arms for claim in mine] == [(ARMS[1],)]
    assert elsewhere == {(ARMS[0].key, 0): "there"}  # of the second round nobody knows
    assert claimed(asked()).arms == (ARMS[2],)
    assert asked("third").hold(ARMS[:1], 2)[1] == {
        (ARMS[0].key, 0): "here",
        (ARMS[0].key, 1): "here",
    }


def test_what_is_enqueued_while_a_sweep_makes_it_waits_for_the_sweep(asked: Asked) -> None:
    sweep, dead, worker = asked(process="living"), asked(process="dead"), asked(living=False)
    assert sweep.hold(ARMS[:1], 1) == ([], {}) and worker.groups() == []
    assert put(asked(), ARMS, (OTHER,)) == 4
    assert claimed(worker).arms == (OTHER,)
    assert worker.claim() is None and worker.undecided  # it is worth waiting for
    assert worker.clear() == 3
    assert worker.claim() is None and not worker.undecided
    sweep.release()
    assert dead.hold(ARMS[:1], 1) == ([], {})
    put(asked())
    assert asked(dead=False).claim() is None
    assert claimed(asked(dead=True)).arms == ARMS


def test_what_is_to_be_made_once_more_is_left_to_workers(asked: Asked) -> None:
    put(asked(), force=True)
    sweep = asked(process="living")
    assert sweep.hold(ARMS, 1) == ([], {})
    assert asked(living=False).claim() is None
    sweep.release()
    assert claimed(asked()).force


def test_what_a_worker_has_is_not_cleared(asked: Asked) -> None:
    one = asked(process="living")
    put(one, ARMS, (OTHER,))
    claimed(one)
    assert asked(living=False).clear() == 1
    assert [each.arms for each in one.groups()] == [ARMS]
    assert asked(living=True).clear() == 3


def test_a_configuration_comes_through_whole(asked: Asked) -> None:
    given = RunConfig(method="window", n_sink=4, window=20, dtype="bfloat16", seed=2**40)
    put(asked(), (given,))
    (arm,) = claimed(asked()).arms
    assert arm == given and arm.key == given.key
