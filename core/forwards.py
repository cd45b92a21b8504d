"""What a forward is told of its streaming cache, whoever calls the model.

transformers' ``generate``, a pipeline or a loop of one's own count the tokens of a stream, and hand
each forward their positions and a mask over them all. A streaming cache counts otherwise: its
positions are those in its frame, which is moved back now and then, and its mask is its own. So a
model that has such a cache has a hook before its forwards, which lets the cache say what it is
given (``Guided.begin``), and one behind them. Forwards with another cache, or none, pass untouched.

Within ``turns`` the model's ``generate`` takes a prompt as one more turn of the stream, whether it
is the whole history or only what is new.

Knows nothing of attention, of positions or of how keys are stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import GenerationMixin

from core.errors import UsageError

CACHES = ("past_key_values", "cache")  # what a forward calls its cache; the latter as of 5.24
TOKENS = ("input_ids", "inputs_embeds")  # and what it calls them
CHUNKS = "prefill_chunk_size"
DRAFTS = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp")

WITHIN = "within streaming_attention(model, cache) the model serves a StreamingKVCache,"

F = TypeVar("F", bound=Callable[..., Any])


def uncompiled(function: F) -> F:
    """``function``, which a compiled forward leaves to Python: it goes by numbers that change."""
    left: F = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return left


class Guided(ABC):
    """A cache that says what a forward is given, and that a stream of several turns goes through.

    Attributes:
        told: Tokens of the stream that ``generate`` is not told of, where it was given new ones
            only.
        drafts: Whether tokens may be taken back, as drafts are.
    """

    told: int
    drafts: bool

    @property
    @abstractmethod
    def seen(self) -> int:
        """Tokens of the stream so far."""

    @abstractmethod
    def begin(self, model: Any, given: dict[str, Any]) -> dict[str, Any]:
        """What a forward gets in place of what it was ``given``; called before each."""

    @abstractmethod
    def end(self) -> None:
        """Called when a forward has ended, or has failed."""

    @abstractmethod
    def continued_by(self, ids: Tensor) -> bool:
        """Whether ids (B, C), or embeddings, are the whole history, from which they may go on."""

    @abstractmethod
    def crop(self, max_length: int) -> None:
        """Take back all but ``max_length`` tokens."""


def guide(model: Any) -> None:
    """Let the caches of ``model`` that are ``Guided`` say what its forwards are given."""
    # torch.compile and peft wrap a model, which is what generates all the same.
    model = next((each for each in model.modules() if isinstance(each, GenerationMixin)), model)
    if _before not in model._forward_pre_hooks.values():  # which a copy of a model has as well
        model.register_forward_pre_hook(_before, with_kwargs=True)
        model.register_forward_hook(_after, with_kwargs=True, always_call=True)


def cache_in(given: dict[str, Any]) -> Any:
    """The cache among what a forward or ``generate`` is given by keyword, if any."""
    found = given.get(CACHES[0])
    return given.get(CACHES[1]) if found is None else found


def _before(model: Any, args: Any, given: Any) -> Any:
    if len(args) > 1:  # a compiled step has one
        names = list(signature(model.forward).parameters)
        given = {**dict(zip(names[1:], args[1:], strict=False)), **given}
        args = args[:1]
    cache = given.get("past_key_values")
    if cache is None:
        cache = given.get("cache")
    if isinstance(cache, Guided):
        return _begin(cache, model, args, given)
    return None


def _after(model: Any, args: Any, given: Any, output: Any) -> None:
    cache = given.get("past_key_values")
    if cache is None:
        cache = given.get("cache")
    if isinstance(cache, Guided):
        _end(cache)


@uncompiled
def _begin(cache: Guided, model: Any, args: Any, given: Any) -> Any:
    if args:
        given = {"input_ids": args[0], **given}
    return (), cache.begin(model, given)


@uncompiled
def _end(cache: Guided) -> None:
    cache.end()


@contextmanager
def turns(model: Any, stream: Any) -> Iterator[None]:
    """Let ``model.generate`` take each prompt as one more turn of ``stream``.

    A forward without a streaming cache, which would be shown what the stream sees, is refused.
    """
    if not isinstance(stream, Guided) or not hasattr(model, "generate"):
        yield
        return
    plain = model.generate
    if getattr(plain, "stream", stream) is not stream:
        raise UsageError(
            f"{WITHIN} and another one was to be served: let the block of the first end, or use "
            "cache.read(ids)."
        )

    @wraps(plain)
    def generate(inputs: Any = None, generation_config: Any = None, **given: Any) -> Any:
        cache = cache_in(given)
        if cache is None and given.get("use_cache") is not False:
            cache = given[_name(model)] = stream
        if isinstance(cache, Guided):
            asked = (inputs, *(given.get(name) for name in TOKENS))
            given = _turn(cache, next((each for each in asked if each is not None), None), given)
            if getattr(generation_config, CHUNKS, None):
                generation_config = copy(generation_config)
                generation_config.prefill_chunk_size = None
            elif given.pop(CHUNKS, None) or getattr(model.generation_config, CHUNKS, None):
                given[CHUNKS] = None  # the cache has chunks of its own
            drafting = any(_asked(each, given, generation_config, model) for each in DRAFTS)
            cache.drafts = drafting
        else:
            raise UsageError(
                f"{WITHIN} and generate was given another cache or use_cache=False: leave that "
                "out, or generate outside."
            )
        try:
            return plain(inputs, generation_config, **given)
        finally:
            cache.told, cache.drafts = 0, False

    generate.stream = stream  # type: ignore[attr-defined]
    own = vars(model).get("generate")
    model.generate = generate
    refusing = model.register_forward_pre_hook(_refuse, with_kwargs=True)
    try:
        yield
    finally:
        refusing.remove()
        del model.generate
        if own is not None:
            model.generate = own


def _refuse(model: Any, args: Any, given: Any) -> None:
    """Raise ``UsageError`` where a forward has no streaming cache."""
    if not isinstance(cache_in(given), Guided):
        raise UsageError(
            f"{WITHIN} and a forward was given another cache or none: give it that one, or call "
            "the model outside."
        )


def _name(model: Any) -> str:
    return CACHES[1] if CACHES[1] in signature(model.forward).parameters else CACHES[0]


def _asked(name: str, given: dict[str, Any], config: Any, model: Any) -> bool:
    """Whether ``generate`` is asked for ``name``, by keyword or by a configuration."""
    if given.get(name):
        return True
    return bool(getattr(config or model.generation_config, name, None))


def _turn(cache: Guided, ids: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What ``generate`` gets for a turn.

    Raises:
        UsageError: The prompt has nothing new.
    """
    if cache.seen == 0 or not isinstance(ids, Tensor):
        return given
    if ids.shape[1] == 0:
        raise UsageError("a turn of 0 tokens: give generate at least one new token.")
    if cache.continued_by(ids):
        if ids.shape[1] == cache.seen:  # nothing is new, and the last score is asked for again
            cache.crop(cache.seen - 1)
        return given
    cache.told = cache.seen
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] > ids.shape[1]:
        given["attention_mask"] = mask[:, -ids.shape[1] :]
    return given
