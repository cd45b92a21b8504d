"""One decode step as a function of the token: static shapes, nothing asked of the host.

Once a streaming cache is full, every step does the same to the same buffers: only the position, the
slot in the ring and the turn of the sinks differ, and these are computed on the device from two
counters. Such a step can be

- ``eager``: called as it stands;
- ``compiled``: by ``torch.compile``, once for all positions; artefacts are kept by torch between
  runs (in ``TORCHINDUCTOR_CACHE_DIR``, or its own place in the temporary folder);
- ``cudagraph``: captured once on a CUDA device and replayed, which needs no compiler.

For as long as a stream decodes, ``core.weights`` lays the weights out for it.

Other forms of the step were tried and are slower: docs/decisions/0002-compiled-step.md.

Knows nothing of texts, scores or modes.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from textwrap import shorten
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from core import attending
from core.cache import StreamingKVCache
from core.errors import StreamError, UsageError
from core.kinds import Kind, slots_seen
from core.measure.meters import Clock
from core.models import anatomy
from core.rope import Turn
from core.weights import compiler, stored_weights

# What ``auto`` reckons with, as measured (docs/decisions/0002-compiled-step.md): seconds that the
# first compilation takes, and the least milliseconds that it saves at every step.
COMPILE_S, COMPILE_S_A_LAYER, SAVED_MS_A_LAYER = 8.0, 1.5, 0.25
OLDEST = "2.13"  # PyTorch that compiles the step; 2.6 and 2.8 do not
WARM_UPS = 3  # before a CUDA graph is captured, as torch's documentation asks
MOST_SHAPES = 64  # of one model: each is compiled for itself

_steps: weakref.WeakKeyDictionary[Any, dict[Any, Callable[..., Tensor]]] = (
    weakref.WeakKeyDictionary()
)


class _Step:
    """What layers of one kind do in a step: (1,) tensors on the device, and S + 1 slots."""

    def __init__(self, kind: Kind, seen: Tensor, base: Tensor) -> None:
        s, slots = kind.n_sink, torch.arange(kind.slots, device=seen.device)
        self.slot = s + (seen - s) % kind.ring
        self.slots = torch.cat((slots[:s], self.slot))
        self.turn: Turn | None = None
        if s and kind.turns:
            self.turn = kind.turns.turn(kind.cut(seen) - base - (s + kind.window))
        masked = kind.every > 1 or kind.block is not None
        self.seen_slots = slots_seen(kind, slots, seen) if masked else None  # (S+W+k,)


class _StepView(Cache):
    """What the model's attention layers see of a full cache for one step."""

    is_compileable = False

    def __init__(self, held: StreamingKVCache, seen: Tensor, base: Tensor) -> None:
        self.layers: list[Any] = []
        self.held = held
        self.seen, self.position = seen, seen - base  # (1,) each; the latter in the cache's frame
        self.steps = [_Step(kind, seen, base) for kind in held.different]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the token (B, K, 1, D) and the turned sinks in place; all slots are returned."""
        layer, step = self.held.layers[layer_idx], self.steps[self.held.which[layer_idx]]
        if layer.kind.latent:
            key_states, value_states = value_states, key_states
        if step.turn is not None:
            key_states = torch.cat((step.turn(layer.sinks), key_states), dim=-2)  # (B, K, S+1, D)
            layer.keys.index_copy_(2, step.slots, key_states)
        else:
            layer.keys.index_copy_(2, step.slot, key_states)
        layer.values.index_copy_(2, step.slot, value_states)
        return (layer.values, layer.keys) if layer.kind.latent else (layer.keys, layer.values)

    def mask(self, layer: int) -> Tensor | None:
        """See ``StreamingKVCache.mask``."""
        return self.steps[self.held.which[layer]].seen_slots

    def grown(self, layer: int, c: int) -> Tensor | None:
        """See ``StreamingKVCache.grown``."""
        if not self.held.found.layers[layer].grows:
            return None
        sizes = self.held.found.sizes[layer]
        return sizes[self.held.place(self.seen)] / sizes[self.position]

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        """Position of the token, on the device."""
        return self.position


def advance(model: Any, held: StreamingKVCache, seen: Tensor, base: Tensor, ids: Tensor) -> Tensor:
    """The step itself.

    Args:
        model: A transformers causal language model that attends through ``core.attention``.
        held: Its cache, full; written in place.
        seen: Number of the token in the stream, (1,) int64 on the device; counted up in place.
        base: Number of the token at position 0 of the cache's frame, (1,) int64.
        ids: (B, 1) int64.

    Returns:
        Logits (B, 1, V) after the token.
    """
    view = _StepView(held, seen, base)
    logits: Tensor = model(
        ids,
        position_ids=view.position[None],  # (1, 1)
        cache_position=view.position,
        **{held.name: view},
        use_cache=True,
        stream=view,
        logits_to_keep=1,
    ).logits
    seen.add_(1)
    return logits


class Engine:
    """Runs the steps of one stream once its cache is full."""

    def __init__(self, model: Any, cache: StreamingKVCache, kind: str) -> None:
        """An engine at rest.

        Args:
            model: The model.
            cache: The stream's cache.
            kind: ``eager``, ``compiled`` or ``cudagraph``.

        Raises:
            UsageError: This kind of engine can't run such a model, or not on its device.
        """
        check(kind, model, cache)
        self.model, self.cache, self.kind = model, cache, kind
        self.seen, self.base = torch.zeros(2, 1, dtype=torch.int64, device=model.device)
        self.compile_s = 0.0
        self._at: tuple[int, int] | None = None  # what the two counters say
        self._step: Callable[[Tensor], Tensor] | None = None

    @property
    def ready(self) -> bool:
        """Whether the cache is full: the next token goes where an evicted one was."""
        return self.cache.full

    @property
    def made(self) -> bool:
        """Whether ``warm`` has made the step."""
        return self._step is not None

    def warm(self, ids: Tensor) -> None:
        """Make the first step's preparations, such as compilation, and note what they took.

        A step that is taken again writes the same: the stream does not notice.

        Raises:
            StreamError: The step can't be compiled or captured.
        """
        if self.made or not self.ready:
            return
        clock = Clock(str(self.model.device))
        self._set_counters()
        anatomy.query_sizes(self.model, self.cache.found, self.cache.reach + 1)
        try:
            with attending.streaming_attention(self.model), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own, of what it uses inside
                self._step = self._made(ids)
        except Exception as error:
            if self.kind == "eager" or isinstance(error, StreamError):
                raise
            cause = getattr(error, "inner_exception", error)  # torch wraps what went wrong
            text = [*str(cause).strip().splitlines(), type(cause).__name__][0]
            text = shorten(text, 200, placeholder=" ...")
            raise StreamError(
                f"no {self.kind} step could be made on this machine ({text}): use --engine eager."
            ) from error
        self._at = None
        if self.kind != "eager":
            self.compile_s = clock.lap()

    def __call__(self, ids: Tensor) -> Tensor:
        """Read the next token of every row, (B, 1): logits (B, 1, V)."""
        self.warm(ids)
        assert self._step is not None, "asked for a step before the cache is full"
        self._set_counters()
        with attending.streaming_attention(self.model):
            logits = self._step(ids)
        for layer in self.cache.layers:
            layer.seen += 1
        assert self._at is not None
        self._at = self._at[0] + 1, self._at[1]
        return logits

    def _set_counters(self) -> None:
        """Tell the device where the stream is, if it does not know."""
        at = self.cache.seen, self.cache.base
        if self._at != at:
            self.seen.fill_(at[0])
            self.base.fill_(at[1])
            self._at = at

    def _made(self, ids: Tensor) -> Callable[[Tensor], Tensor]:
        model, token = self.model, ids.clone(memory_format=torch.contiguous_format)
        function = _compiled(model) if self.kind == "compiled" else advance

        def run(ids: Tensor) -> Tensor:
            token.copy_(ids)
            return function(model, self.cache, self.seen, self.base, token)

        if self.kind == "cudagraph":
            return _captured(run, self.seen, token)
        if self.kind == "compiled":
            with torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
                run(ids)
        return run


def check(kind: str, model: Any, cache: StreamingKVCache) -> None:
    """Raise ``UsageError`` where such an engine can't run such a model, or not on its device."""
    if kind != "eager" and cache.found.limit is not None:
        raise UsageError(
            f"engine {kind!r}: this model's rotary frequencies may change with length, which the "
            "host has to look after at every step: use --engine eager."
        )
    if kind != "eager" and not cache.found.passes:
        raise UsageError(
            f"engine {kind!r}: the code of a {cache.found.kind!r} model hands no step to its "
            "attention: use --engine eager."
        )
    if kind == "cudagraph" and model.device.type != "cuda":
        raise UsageError(
            f"engine 'cudagraph' needs a CUDA device, and this model is on {model.device}: "
            "use --engine compiled or eager."
        )
    if kind == "compiled" and torch.__version__ < OLDEST:
        raise UsageError(
            f"engine 'compiled' needs PyTorch {OLDEST} or newer, and this is "
            f"{torch.__version__}: update it, or use --engine eager."
        )
    if kind == "compiled" and model.device.type == "cpu" and not compiler():
        raise UsageError(
            "engine 'compiled' needs a C++ compiler (g++, or what CXX names), and there is none "
            "here: install one, or use --engine eager."
        )


def choose(kind: str, model: Any, steps: int) -> str:
    """What ``auto`` means for a stream of so many ``steps`` with a full cache.

    Compilation takes a + b x layers seconds and saves c x layers milliseconds a step: it is chosen
    where it pays back. On a GPU ``auto`` is eager: nothing was measured there.
    """
    if kind != "auto":
        return kind
    layers = model.config.num_hidden_layers
    saved_s = steps * SAVED_MS_A_LAYER * layers / 1000
    pays = saved_s > COMPILE_S + COMPILE_S_A_LAYER * layers
    found = anatomy.of(model)
    static = found.limit is None and found.passes and torch.__version__ >= OLDEST
    return "compiled" if pays and static and model.device.type == "cpu" and compiler() else "eager"


def _compiled(model: Any) -> Callable[..., Tensor]:
    """The compiled step of a model: the same for all its streams, once for each shape.

    torch looks at what it compiled for before every step, which takes time. Here it looks at shapes
    only, not at the model: another model, or other layouts of the weights, have a function of their
    own.
    """
    read = ((weight.dtype, weight.stride()) for weight in stored_weights(model).values())
    layout = torch.get_num_threads(), *read
    steps = _steps.setdefault(model, {})
    if layout not in steps:
        own = FunctionType(advance.__code__.replace(), advance.__globals__, "advance")
        options: dict[str, Any] = {"guard_filter_fn": _shapes_only}
        steps[layout] = torch.compile(own, fullgraph=True, dynamic=False, options=options)
    return steps[layout]


def _shapes_only(guards: Any) -> list[bool]:
    return [not guard.is_global and guard.name.split(".")[0] != "model" for guard in guards]


def _captured(
    run: Callable[[Tensor], Tensor], seen: Tensor, token: Tensor
) -> Callable[[Tensor], Tensor]:
    """The step as a CUDA graph: ``token``, which it reads, and its logits stay at one address."""
    start, side = seen.clone(), torch.cuda.Stream(seen.device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(seen.device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            seen.copy_(start)
            run(token)
    torch.cuda.current_stream(seen.device).wait_stream(side)
    seen.copy_(start)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        logits = run(token)

    def replay(ids: Tensor) -> Tensor:
        token.copy_(ids)
        graph.replay()
        return logits.clone()  # the next replay writes where this one did

    return replay
