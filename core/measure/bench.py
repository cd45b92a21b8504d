"""Arms of a benchmark, timed in turn in one process: no arm has a quieter minute than another.

A round takes every arm once, in random order, each for a slot of steps after a warm-up; rounds are
what is compared. A figure is the median over rounds of a round's median, or of its mean where steps
differ by design; a ratio is the median of the ratios round by round; intervals are 95 % by
bootstrap over rounds.

Knows nothing of texts, scores or databases: tokens are random.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from core import registry, weights
from core.config import AS_SHIPPED, RunConfig
from core.errors import UsageError
from core.measure import floors
from core.measure.floors import Machine, Work
from core.measure.meters import MIB, Clock, token_nll
from core.measure.profiling import taken_mib
from core.methods.base import Stream, method_of
from core.models.loading import Loaded

WARM_UP = 2  # steps of a slot that are not timed
SLOT_S = 1.5  # a slow arm ends its slot then, with LEAST steps at least
LEAST = 2
FILL = 256  # tokens fed at a time to fill a cache
RESAMPLES = 2000
ENOUGH = 6  # rounds; the median lies within the range of fewer in less than 95 % of cases


@dataclass
class Arm:
    """One thing that is timed.

    Attributes:
        config: What it is, as a run would have it.
        step: Does it once.
        tokens: Tokens that one step is for: its time is divided by them.
        work: What a step must move and compute at least.
        label: A name where ``config`` does not say it.
        within: Opened around a slot.
        compile_s: Seconds that its preparation took.
        notes: What a reader must know of how its steps are made.
        kv_mib: What it holds after a step.
        step_mib: The most that tensors made by a step took besides at one moment; 0 before it ran.
        length: Tokens of the stream before a step, or of the prompt that it reads.
        read: Tokens that are read in the time of which figures are.
        cycle: Steps after which its work repeats, see ``Method.cycle``.
        bounded: Whether it keeps to a budget, so that it may be held against others.
        once_more: Makes such an arm anew.
        twin: The arm that it is once more, so that what differs is the machine's; None for others.
        rounds_ms: Milliseconds a token of each timed step, round by round.
    """

    config: RunConfig
    step: Callable[[], object]
    tokens: int
    work: Work
    once_more: Callable[[], Arm]
    label: str = ""
    within: Callable[[], AbstractContextManager[object]] = nullcontext
    compile_s: float = 0.0
    notes: tuple[str, ...] = ()
    kv_mib: float = 0.0
    step_mib: float = 0.0
    length: int | None = None
    read: int = 1
    cycle: int = 1
    bounded: bool = True
    twin: Arm | None = None
    rounds_ms: list[list[float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How tables call it."""
        return self.label or self.config.method

    @property
    def fresh(self) -> bool:
        """Whether a step begins with an empty cache."""
        return self.read > 1

    def typical(self) -> NDArray[np.float64]:
        """The median of each round; the mean where a cycle has steps of different work."""
        average = np.median if self.cycle == 1 else np.mean
        return np.array([average(each) for each in self.rounds_ms])


@dataclass(frozen=True)
class Figure:
    """A median with its 95 % interval."""

    median: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` is within the interval."""
        return self.low <= value <= self.high


def figure(rounds: NDArray[np.float64]) -> Figure:
    """The median over rounds and its interval: percentiles of the medians of resampled rounds."""
    draw = np.random.default_rng(0).integers(0, len(rounds), (RESAMPLES, len(rounds)))
    low, high = np.percentile(np.median(rounds[draw], axis=1), (2.5, 97.5))
    return Figure(float(np.median(rounds)), float(low), float(high))


def ratio(arm: Arm, base: Arm) -> Figure:
    """This arm's time over that one's, round by round."""
    return figure(arm.typical() / base.typical())


@torch.inference_mode()
def run(arms: list[Arm], machine: Machine, rounds: int, steps: int, seed: int) -> Iterator[int]:
    """Time every arm in every round, and the machine too; yields the number of each done round.

    Raises:
        UsageError: There is nothing to time.
    """
    if not arms:
        raise UsageError("there is nothing to time: name at least one method.")
    order = random.Random(seed)
    for arm in arms:
        with arm.within():
            arm.step()
            arm.step_mib = taken_mib(arm.step, machine.device) - (arm.kv_mib if arm.fresh else 0)
    for number in range(rounds):
        machine.measure()
        for arm in order.sample(arms, len(arms)):
            arm.rounds_ms.append(_slot(arm, steps, machine.device))
        yield number + 1


def _slot(arm: Arm, steps: int, device: str) -> list[float]:
    times: list[float] = []
    with arm.within():
        for _ in range(WARM_UP if steps > 1 else 1):
            arm.step()
        clock, cycle = Clock(device), arm.cycle
        most, least = -(-steps // cycle) * cycle, max(LEAST, cycle)
        while len(times) < most and (
            sum(times) < 1000 * SLOT_S or len(times) < least or len(times) % cycle
        ):
            clock.lap()
            arm.step()
            times.append(1000 * clock.lap())
    return [ms / arm.tokens for ms in times]


@torch.inference_mode()
def decode_arm(loaded: Loaded, config: RunConfig, length: int = 0) -> Arm:
    """A decode step of ``config.method`` with a full cache, or after ``length`` tokens.

    Raises:
        StreamError: The method or the engine can't run on this model.
    """
    method = method_of(config)
    stream, tokens = method.start(loaded, config.batch_size), _random_ids(loaded, config)
    fed = _fill(stream, tokens, length or config.attended_keys + method.cycle + FILL)
    ahead = method.attended([*fed, *[1] * method.cycle])[-method.cycle :]  # of the coming steps
    keys = round(float(ahead.double().mean()))
    ids = next(tokens)[:, :1]
    encodes_all = config.spec.memory == "none"
    work_of = floors.recompute_work if encodes_all else floors.decode_work
    laid_out = partial(weights.for_decoding, loaded.model, config.batch_size, config.engine)
    with laid_out() as notes:
        stream.warm(ids)
        work = work_of(loaded.model, keys, config.batch_size)  # with weights as they lie now
    return Arm(
        config=replace(config, engine=AS_SHIPPED if config.engine == AS_SHIPPED else stream.engine),
        step=lambda: stream.feed(ids),
        tokens=config.batch_size,
        work=work,
        once_more=partial(decode_arm, loaded, config, length),
        within=laid_out,
        compile_s=stream.compile_s,
        notes=(*notes, *stream.notes),
        kv_mib=stream.kv_bytes() / MIB,
        length=length or None,
        cycle=method.cycle,
        bounded=bool(method.full_after(loaded)),
    )


def again(arm: Arm) -> Arm:
    """The arm ``arm`` once more, with a stream of its own."""
    return replace(arm.once_more(), label=f"{arm.name}, again", twin=arm)


@torch.inference_mode()
def prompt_arm(loaded: Loaded, config: RunConfig, length: int) -> Arm:
    """A prompt of ``length`` tokens from an empty cache until its first token is predicted.

    A cache reads it C tokens at a time; re-computation encodes the last L of it.
    """
    method, ids, size = method_of(config), next(_random_ids(loaded, config, length)), config.chunk
    if config.spec.memory == "none":
        ids, size = ids[:, -config.attended_keys :], config.attended_keys
    parts = torch.split(ids, size, dim=1)
    pairs = int(method.attended([part.shape[1] for part in parts]).sum())

    def step() -> Stream:
        stream = method.start(loaded, config.batch_size)
        for part in parts:
            stream.feed(part, keep=1)
        return stream

    return Arm(
        config=config,
        step=step,
        tokens=1,
        work=floors.prompt_work(loaded.model, ids.shape[1], pairs),
        once_more=partial(prompt_arm, loaded, config, length),
        kv_mib=step().kv_bytes() / MIB,
        length=length,
        read=length,
        bounded=config.spec.has_budget,
    )


@torch.inference_mode()
def chunk_arm(loaded: Loaded, config: RunConfig) -> Arm:
    """C tokens of a full stream, scored: the parallel form."""
    method = method_of(config)
    stream, size = method.start(loaded, 1), config.chunk
    tokens = _random_ids(loaded, config, size + 1)
    _fill(stream, tokens, config.attended_keys + size)

    def step() -> None:
        ids = next(tokens)
        token_nll(stream.feed(ids[:, :-1]), ids[:, 1:])

    return Arm(
        config=config,
        step=step,
        tokens=size,
        work=floors.chunk_work(loaded.model, size, config.attended_keys),
        once_more=partial(chunk_arm, loaded, config),
        kv_mib=stream.kv_bytes() / MIB,
    )


@torch.inference_mode()
def plain_arm(loaded: Loaded, config: RunConfig) -> Arm:
    """The same tokens by the model alone, chunk by chunk, each as if it were a text of its own.

    That is something else than streaming: it is what the chunk's own matrix products cost.
    """
    tokens, size = _random_ids(loaded, config, config.chunk + 1), config.chunk

    def step() -> None:
        ids = next(tokens)
        token_nll(loaded.model(ids[:, :-1], use_cache=False).logits, ids[:, 1:])

    return Arm(
        config=replace(config, method=registry.DENSE),
        step=step,
        tokens=size,
        work=floors.chunk_work(loaded.model, size, size // 2),
        once_more=partial(plain_arm, loaded, config),
        label="plain forwards",
    )


def _random_ids(loaded: Loaded, config: RunConfig, length: int = FILL) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.batch_size, length)
    while True:
        ids = torch.randint(0, loaded.model.config.vocab_size, shape, generator=generator)
        yield ids.to(loaded.model.device)


def _fill(stream: Stream, tokens: Iterator[torch.Tensor], least: int) -> list[int]:
    """Feed ``least`` tokens or a few more; how many at a time."""
    fed: list[int] = []
    while sum(fed) < least:
        ids = next(tokens)
        stream.feed(ids, keep=1)
        fed.append(ids.shape[1])
    return fed
