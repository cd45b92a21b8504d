"""Has a model attend through an attention function of ours, and as before on leaving.

transformers lets a function be registered under a name, which the model's configuration then has.
Ours is registered for that model alone, so that others may stream in other threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from inspect import signature
from threading import RLock, get_ident
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from core.attention import Stream, attend
from core.errors import UsageError
from core.forwards import turns, uncompiled

BUSY = (
    "this model serves another stream in another thread: let that end, or give each thread a model "
    "of its own."
)
_entering = RLock()
_registered: dict[str, list[Any]] = {}  # under a name: what was before, and those of our blocks


def cache_name(model: Any) -> str:
    """The keyword by which a forward of ``model`` is given its cache; 5.24 has another than 5.2."""
    given = signature(model.forward).parameters
    return "cache" if "cache" in given else "past_key_values"


@contextmanager
def implementation(model: Any, name: str) -> Iterator[None]:
    """Let ``model`` attend through the function registered as ``name``; as before on leaving."""
    # Where it does already, another block has it so, which may end later than this one.
    configs = [each for each in configs_of(model) if each._attn_implementation != name]
    before = [each._attn_implementation for each in configs]
    for each in configs:
        each._attn_implementation = name
    try:
        yield
    finally:
        for each, own in zip(configs, before, strict=True):
            each._attn_implementation = own


def configs_of(model: Any) -> list[Any]:
    """The configurations that name the attention of ``model``."""
    found = model.config, model.config.get_text_config(decoder=True)
    return list({id(each): each for each in found}.values())


@contextmanager
def streaming_attention(model: Any, stream: Stream | None = None) -> Iterator[None]:
    """Let ``model`` attend through ``core.attention``, and ``generate`` in turns of one stream.

    ``cache.read`` needs no such context, and neither does a prompt that ``generate`` begins a
    stream with. Within it every prompt is one more turn of the stream: the whole history passed
    again, or only what is new::

        with streaming_attention(model, cache):
            model.generate(ids, past_key_values=cache)
            model.generate(more, past_key_values=cache)

    The model is as it was on leaving. One model serves one stream at a time within it.

    Args:
        model: A transformers causal language model.
        stream: The ``StreamingKVCache`` that the model is given; None where each forward is given
            it as ``stream=``.

    Raises:
        UsageError: The model's code does not take registered attention functions.
    """
    with attending(model, stream), turns(model, stream):
        yield


@contextmanager
def attending(
    model: Any, stream: Stream | None = None, function: Callable[..., Any] | None = None
) -> Iterator[None]:
    """Let ``model`` attend through ``core.attention``, to what ``stream``, its cache, has kept.

    Args:
        model: A transformers causal language model.
        stream: Its cache; None where each forward is given it as ``stream=``.
        function: What takes the place of ``attend``, if anything.

    Raises:
        UsageError: The model's code does not take registered attention functions, or it serves
            another stream in another thread.
    """
    if not getattr(model, "_supports_attention_backend", False):
        raise UsageError(
            f"a {model.config.model_type!r} model does not take registered attention functions: "
            "feed its cache one token at a time, or choose another model."
        )
    function, name = function or attend, name_of(model.config)
    if stream is not None:
        function = _bound(function, stream)
    with ExitStack() as within:
        with _entering:
            _check_alone(model, stream)
            within.enter_context(registered(function, name))
            within.enter_context(implementation(model, name))
        yield


@contextmanager
def registered(function: Any, name: str) -> Iterator[None]:
    """Have an attention function under ``name``: of blocks that may end in any order the last's."""
    known = AttentionInterface._global_mapping
    with _entering:
        held = _registered.setdefault(name, [known.get(name)])
        held.append(function)
        AttentionInterface.register(name, function)
    try:
        yield
    finally:
        with _entering:
            held.remove(function)
            if held[-1] is None:
                known.pop(name, None)
            else:
                AttentionInterface.register(name, held[-1])
            if len(held) == 1:
                del _registered[name]


def name_of(config: Any) -> str:
    """What our attention is registered as for a model of this very configuration."""
    return f"streamcli-{id(config)}"


def attends_to(stream: Any) -> bool:
    """Whether our attention is bound to ``stream`` at the moment, in its model."""
    bound = AttentionInterface._global_mapping.get(name_of(stream.config))
    return getattr(bound, "stream", None) is stream


def _check_alone(model: Any, stream: Stream | None) -> None:
    """Raise ``UsageError`` where the model serves another stream in another thread."""
    bound = AttentionInterface._global_mapping.get(model.config._attn_implementation)
    here = get_ident()
    if getattr(bound, "stream", stream) is not stream and getattr(bound, "thread", here) != here:
        raise UsageError(BUSY)


def _bound(function: Callable[..., Any], stream: Stream) -> Any:
    """Attention to ``stream``, for all layers; a cache of Python numbers is not compiled.

    It is in the queries' number format, which under autocast may be another than that of values.
    """

    def bound(
        module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **given: Any
    ) -> Any:
        if getattr(stream, "thread", here := get_ident()) != here:
            raise UsageError(BUSY)
        key, value, kind = key.to(query.dtype), value.to(query.dtype), query.device.type
        under = torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if under else nullcontext():
            return function(module, query, key, value, *args, stream=stream, **given)

    left: Any = uncompiled(bound)
    left.stream, left.thread = stream, get_ident()
    return left
