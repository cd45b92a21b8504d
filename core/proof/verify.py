"""Proof on your own model: every method and mode against the obvious loop, and what must hold.

A difference has a telling place: the first token where it passes 1e-3 nats says what is wrong.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core import own_options, registry
from core.config import RunConfig, engines
from core.errors import UsageError
from core.measure.meters import token_nll
from core.methods.base import Method, method_of
from core.models import anatomy, layers, turning
from core.models.loading import Loaded
from core.modes.base import Task
from core.proof import reference
from core.tokens import TokenDocument, TokenStream

EXACT = 1e-4  # nats on any token in float32 (docs/decisions/0007-whose-rounding.md)
TELLING = 1e-3  # nats; a token beyond it is one that was computed otherwise
HALF_PRECISION = 1.3  # times the error that dense attention has in the same number format
HALF = ("bfloat16", "float16")
LAZILY = 16  # tokens between evictions, where they are put off

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One comparison.

    Attributes:
        subject: A method, or an invariant of the streaming cache.
        form: The mode, or the sizes that were compared.
        claimed: Whether the two are claimed to be equal.
        limit_nats: What they may differ by on any token, or on average where ``of_mean`` is true.
        largest_nats: Largest difference on a token.
        mean_nats: Mean difference.
        departs_at: First scored token that differs by more than ``TELLING``, None where none does.
        diagnosis: What that place says, or why it could not be run.
    """

    subject: str
    form: str
    claimed: bool
    limit_nats: float = EXACT
    of_mean: bool = False
    largest_nats: float
    mean_nats: float
    departs_at: int | None = None
    diagnosis: str = ""

    @property
    def passed(self) -> bool:
        """Whether they are as equal as is claimed; NaN is never equal."""
        return (self.mean_nats if self.of_mean else self.largest_nats) <= self.limit_nats


class _References:
    """What the obvious loops predict, each computed once for its budget and what was chosen."""

    def __init__(self, loaded: Loaded, ids: Tensor, say: Say) -> None:
        self.loaded, self.ids, self.say = loaded, ids, say
        self.known: dict[tuple[object, ...], Tensor] = {}

    def of(self, config: RunConfig, *choices: list[Tensor]) -> Tensor:
        """Nats (T-1,) of what ``config`` is held against, which follows ``choices``, if any."""
        where, every = config.spec.reference, config.steps_between_evictions()
        made = hashlib.sha256()
        for each in (tensor for made_of in choices for tensor in made_of):
            made.update(each.numpy().tobytes())
        sizes = config.n_sink, config.window_size, every
        key = (where, *sizes, config.param, made.digest())
        if key not in self.known:
            often = f", evicting every {every}" if every > 1 else ""
            self.say(f"the obvious loop for {config.method}{often}, token by token")
            loop, ids = registry.imported(where), self.ids[None]
            self.known[key] = loop(self.loaded.model, ids, config, *choices)[0].cpu()
        return self.known[key]


def verify(
    loaded: Loaded,
    ids: Tensor,
    config: RunConfig,
    methods: Sequence[str],
    modes: Sequence[str],
    say: Say = lambda words: None,
) -> Iterator[Finding]:
    """Compare everything on ``ids`` (T,), one finding at a time.

    Args:
        loaded: The model, in float32.
        ids: Tokens, more than ``config.attended_keys`` of them, or nothing is ever evicted.
        config: Resolved; its ``n_sink``, ``window`` and ``chunk`` are used.
        methods: Names of methods.
        modes: Names of modes; ones that score every token.
        say: Is told what is about to be done.

    Raises:
        UsageError: Too few tokens for anything to be evicted.
    """
    if len(ids) < config.attended_keys + config.window_size // 2:
        raise UsageError(
            f"{len(ids)} tokens hardly fill a cache of {config.attended_keys} keys, so they prove "
            "nothing: give more --max-tokens or a smaller --window."
        )
    found = anatomy.of(loaded.model)
    if not found.refusal:
        yield Finding(
            subject="layers are as seen",
            form=f"{layers.LENGTH} tokens, moved",
            claimed=True,
            limit_nats=turning.EXACT[1],
            largest_nats=found.largest_nats,
            mean_nats=found.largest_nats,
        )
    references = _References(loaded, ids, say)
    for name in methods:
        for mode in modes:
            engine = config.engine if config.engine in engines(name, mode) else "eager"
            asked = replace(config, method=name, mode=mode, evict_every=None, engine=engine)
            for param in own_options.to_prove(name):
                yield _method(loaded, replace(asked, param=param), references)
    if registry.STREAMING in methods:
        plain = replace(config, method=registry.STREAMING, engine="eager")
        yield from _invariants(loaded, plain, references)


def _method(loaded: Loaded, config: RunConfig, references: _References) -> Finding:
    form = config.mode + (f" ({config.chunk})" if config.mode_spec.chunked else "")
    form += f" ({config.engine})" if config.engine not in ("auto", "eager") else ""
    if config.param != own_options.settled(config.method, {}):
        form += "".join(f", {name} = {value}" for name, value in config.param)
    references.say(f"{config.method} {form}")
    try:
        method: Any = method_of(config)
        if config.spec.chooses:
            method.choices = []
        nll = _scores(loaded, [references.ids], method, config)
    except UsageError as error:
        return _unclaimed(config.method, form, f"not run: {error}")
    if not config.spec.reference:
        return _unclaimed(config.method, form, "claims no exactness: no reference is known")
    claimed = config.spec.exact and (config.spec.exact_chunks or not config.mode_spec.chunked)
    choices = (method.choices,) if config.spec.chooses else ()
    want = references.of(config, *choices)
    return _compare(loaded, config, nll, want, config.method, form, claimed)


def _unclaimed(method: str, form: str, why: str) -> Finding:
    """A method that is held against nothing."""
    nan = float("nan")
    return Finding(
        subject=method, form=form, claimed=False, largest_nats=nan, mean_nats=nan, diagnosis=why
    )


def _invariants(loaded: Loaded, config: RunConfig, references: _References) -> Iterator[Finding]:
    ids, say = references.ids, references.say

    def streamed(*documents: Tensor, **changed: object) -> Tensor:
        asked = config.resolved(**{"mode": registry.CHUNKED, **changed})
        return _scores(loaded, documents, method_of(asked), asked)

    def finding(subject: str, form: str, got: Callable[[], Tensor], want: Tensor) -> Finding:
        say(f"{subject}: {form}")
        return _compare(loaded, config, got(), want, subject, form, claimed=True)

    budget, total = config.attended_keys, len(ids)
    short = ids[: budget + 1]
    dense = reference.dense_nll(loaded.model, short[None])[0].cpu()
    step = registry.DECODE
    yield finding("T = S+W+1 is dense", step, partial(streamed, short, mode=step), dense)
    want = references.of(config)
    for size in (1, 7, config.window_size, config.window_size + 1, total):
        got = partial(streamed, ids, chunk_size=size)
        yield finding("any chunk size", f"chunks of {size}", got, want)
    late = references.of(config.resolved(evict_every=LAZILY))
    for mode in (step, registry.CHUNKED):
        got = partial(streamed, ids, evict_every=LAZILY, mode=mode)
        yield finding(f"evicting every {LAZILY} tokens", mode, got, late)
    halves = ids[: total // 2], ids[total // 2 :]
    alone = torch.cat([streamed(half) for half in halves])
    together = partial(streamed, *halves, batch_size=2)
    yield finding("batch rows are single rows", "2 rows", together, alone)
    moving = partial(_moving, loaded, ids, config)
    yield finding("the frame may move", "every 16 tokens", moving, want)
    for dtype in HALF:
        say(f"{dtype} against float32")
        yield _half(loaded, ids, config, dtype, want)


@torch.inference_mode()
def _moving(loaded: Loaded, ids: Tensor, config: RunConfig) -> Tensor:
    """Nats (T-1,) of a stream whose frame is moved back to the start before every chunk of 16."""
    parts: list[Tensor] = []
    stream: Any = method_of(config).start(loaded, 1)
    for start in range(0, len(ids) - 1, 16):
        stop = min(start + 16, len(ids) - 1)
        stream.cache.rebase()
        logits = stream.feed(ids[None, start:stop])
        parts.append(token_nll(logits, ids[None, start + 1 : stop + 1])[0])
    return torch.cat(parts).cpu()


def in_half(model: Any, dtype: str) -> Any:
    """A copy of a float32 model as it would be loaded in ``dtype``: buffers stay in float32."""
    copy = deepcopy(model).to(getattr(torch, dtype))
    for kept, buffer in zip(model.buffers(), copy.buffers(), strict=True):
        buffer.data = kept.clone()  # rotary frequencies
    return copy


def _half(loaded: Loaded, ids: Tensor, config: RunConfig, dtype: str, want: Tensor) -> Finding:
    """Streaming may lose to a half-precision format no more than dense attention does.

    Where dense attention has no finite scores in it, as Gemma 3 in float16, nothing is claimed.
    """
    small = replace(loaded, model=in_half(loaded.model, dtype))
    asked = config.resolved(mode=registry.DECODE, dtype=dtype)
    error = (_scores(small, [ids], method_of(asked), asked) - want).abs()
    short = ids[: min(len(ids), loaded.trained_length)]
    dense = [reference.dense_nll(each.model, short[None])[0].cpu() for each in (loaded, small)]
    allowed = HALF_PRECISION * float((dense[1] - dense[0]).abs().mean())
    mean, why = float(error.mean()), "errors pile up: keys are rotated again and again"
    if not math.isfinite(allowed):
        why = f"the model itself, by dense attention, has no finite scores in {dtype}"
    return Finding(
        subject=f"{dtype} drifts no more than dense's",
        form=registry.DECODE,
        claimed=math.isfinite(allowed),
        limit_nats=allowed,
        of_mean=True,
        largest_nats=float(error.max()),
        mean_nats=mean,
        diagnosis="" if mean <= allowed else why,
    )


def _scores(
    loaded: Loaded, documents: Sequence[Tensor], method: Method, config: RunConfig
) -> Tensor:
    texts = tuple(TokenDocument(str(i), ids.cpu()) for i, ids in enumerate(documents))
    stream = TokenStream(texts, sha256="", bos="none")
    task = Task(loaded, stream, method, config, lambda *_: None)
    with torch.inference_mode():
        return torch.from_numpy(registry.load("mode", config.mode)(task).nll)


def _compare(
    loaded: Loaded,
    config: RunConfig,
    got: Tensor,
    want: Tensor,
    subject: str,
    form: str,
    claimed: bool,
) -> Finding:
    difference = (got - want).abs()
    beyond = (~(difference <= TELLING)).nonzero()  # NaN is beyond anything
    departs_at = int(beyond[0]) if len(beyond) else None
    return Finding(
        subject=subject,
        form=form,
        claimed=claimed,
        largest_nats=float(difference.max()),
        mean_nats=float(difference.mean()),
        departs_at=departs_at,
        diagnosis=_diagnose(difference, departs_at, config, loaded.trained_length),
    )


def _diagnose(
    difference: Tensor, departs_at: int | None, config: RunConfig, trained_length: int
) -> str:
    if departs_at is None:
        return ""
    evicts_at = config.attended_keys  # the first query that a token is missing for
    chunked = config.mode_spec.chunked
    overflow = (evicts_at - 1) // config.chunk * config.chunk if chunked else evicts_at
    if departs_at >= trained_length:
        return "only past the trained length: nothing is being evicted"
    if config.n_sink and config.window_size < departs_at < evicts_at and not chunked:
        return "when the window alone overflows: sinks are lost"
    if departs_at < min(overflow, evicts_at):
        return "before the cache fills: mask, position or BOS"
    if departs_at < evicts_at:
        return "in the chunk that fills the cache: eviction while it is in flight"
    if difference[evicts_at:departs_at].numel() > config.window_size:
        return "long after the first eviction: dtype drift, or keys that are lost slowly"
    return "at the first eviction: eviction or rotation"
