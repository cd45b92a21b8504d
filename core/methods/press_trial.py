"""Whether a press of kvpress can evict while decoding, tried on a tiny model, and its options.

A table of names would be right for one version of the package. So every press is made and let cut
300 keys and a new one to 300, some times; what it needs for that, or why it can't, is what is then
seen. ``docs/presses.md`` is made from it.

Knows nothing of the user's model, of texts or of runs.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, make_dataclass
from functools import cache
from itertools import product
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from core.errors import UsageError
from core.methods import press
from core.methods.decoding import CannotEvict, DecodingStream, Recipe, inner_of, made
from core.methods.press_names import PREFIX, check, names

CACHE, ABSOLUTE = "cache", "absolute"
BUFFER = 256  # hidden states, as in the package (``decoding_press.py:56``)
KEPT, STEPS = 300, 20  # keys, more than any press protects by itself, and evictions
SET = ("compression_ratio", "n_sink", "target_size", "compression_interval")  # by the budget
BUFFERED = "hidden_states_buffer_size"
EXAMPLE = "KnormPress"  # inside a press that is made around another one, where it is tried


@dataclass(frozen=True)
class Facts:
    """What a press needs to evict while decoding.

    Attributes:
        turns: Whether ``KeyRerotationPress`` can hold it, so that keys move to places in the cache.
        weighs: Whether it asks for attention weights.
        looks_back: Whether it asks for the hidden states of more tokens than the newest.
        alone: Whether a document must be read by itself: of several in step the first decides for
            all, or one random number after the other goes to another.
        inner: The argument that takes the press which it is made around; empty where none.
        own: Its arguments of a plain type, with their defaults.
    """

    turns: bool
    weighs: bool
    looks_back: bool
    alone: bool
    inner: str
    own: MappingProxyType[str, Any]


def facts(name: str, inner: str = "") -> Facts:
    """What the press ``name``, made around the press ``inner`` if around any, needs.

    Raises:
        UsageError: It can't evict while decoding, or the package can't be used here.
    """
    return _facts(name, inner or EXAMPLE)


@cache
def _facts(name: str, inner: str) -> Facts:
    kvpress = press.load()
    kind = getattr(kvpress, name)
    if why := _in_its_nature(kvpress, kind):
        raise UsageError(f"{PREFIX}{name} can't evict while decoding: {why}.")
    takes = inner_of(kind)
    if takes and not _decides(kvpress, inner):
        raise UsageError(f"{PREFIX}{name} can't be made around {inner}, which scores no keys.")
    turns, first = _turns(kvpress, kind), None
    for weighs, looks_back in product((False, True), repeat=2):
        recipe = Recipe(
            name=name,
            inner=inner if takes else "",
            kept=KEPT,
            turns=turns,
            weighs=weighs,
            buffer=BUFFER if looks_back else 0,
        )
        try:
            alone = _evict(recipe)
        except CannotEvict as error:
            first = first or error
        else:
            own = MappingProxyType(_own(kind))
            return Facts(turns, weighs, looks_back, alone, takes, own)
    assert first
    prompt = first.failed and _reads_a_prompt(recipe)
    why = f"it works on a whole prompt only; {first.why}" if prompt else first.why
    raise UsageError(f"{PREFIX}{name} can't evict while decoding: {why}.")


def __getattr__(name: str) -> type:
    """The options of the press ``name``: a dataclass, made when it is asked for."""
    if name not in names():
        raise AttributeError(name)
    return _options(name)


def options(name: str) -> dict[str, Any]:
    """Every option of the press ``name``, with its default.

    Raises:
        UsageError: It can't evict while decoding.
    """
    found = facts(name)
    values = {**found.own, "positions": CACHE if found.turns else ABSOLUTE}
    if found.looks_back or found.inner:
        values[BUFFERED] = BUFFER
    return values | ({"press": ""} if found.inner else {})


@cache
def _options(name: str) -> type:
    found, values = facts(name), options(name)

    def refuse(self: Any) -> None:
        _check(name, found, vars(self))

    return make_dataclass(
        f"{name}Options",
        [(each, type(default), default) for each, default in values.items()],
        frozen=True,
        namespace={"__post_init__": refuse},
    )


def _check(name: str, found: Facts, given: dict[str, Any]) -> None:
    """Refuse options that can't be.

    Raises:
        ValueError: One is out of range, or the package refuses it.
        UsageError: The press that it is to be made around is none.
    """
    if given["positions"] not in (CACHE, ABSOLUTE):
        raise ValueError(f"positions is {given['positions']!r}: choose {CACHE} or {ABSOLUTE}")
    if given["positions"] == CACHE and not found.turns:
        raise ValueError(
            f"positions is {CACHE!r}, but KeyRerotationPress holds scorers only, which this press "
            f"is not: leave it {ABSOLUTE}"
        )
    if given.get(BUFFERED, 1) < 1:
        raise ValueError(f"{BUFFERED} is {given[BUFFERED]}: it must be 1 or more")
    inner = given.get("press", "")
    if inner:
        check(f"{PREFIX}{inner}")
        facts(name, inner)
    try:
        made(
            Recipe(name=name, inner=inner or EXAMPLE, own={each: given[each] for each in found.own})
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(str(error) or f"{name} refuses these values") from error


def _in_its_nature(kvpress: Any, kind: Any) -> str:
    """Why a press is none that could evict while decoding, by how its class is built."""
    if kind in (kvpress.BasePress, kvpress.ScorerPress):
        return "it is a base class, which decides nothing"
    if kind in (kvpress.DecodingPress, kvpress.PrefillDecodingPress, kvpress.KeyRerotationPress):
        return "it is a means by which others are run here: name one of these"
    decodes, takes = issubclass(kind, kvpress.DecodingPress), inspect.signature(kind).parameters
    if decodes and "target_size" not in takes:
        return "it keeps a share of all tokens so far, which grows with the stream"
    for each in takes.values():
        if each.default is each.empty and each.name != inner_of(kind):
            return f"it asks for {each.name}, a list, which no option can give"
    base = kvpress.BasePress
    if kind.post_init_from_model is not base.post_init_from_model and not inner_of(kind):
        return "it needs what was trained or measured for the very model, and fetches that"
    if kind.__call__ is not base.__call__ and not decodes:
        return "it works around the reading of a whole prompt, and never afterwards"
    if not decodes:
        try:
            made(Recipe(name=kind.__name__, inner=EXAMPLE)).compression_ratio = 0.5
        except AttributeError as error:
            return f"no number of keys can be set; its code says {str(error)!r}"
    return ""


def _decides(kvpress: Any, name: str) -> bool:
    """Whether a press scores keys by itself, so that others can be made around it."""
    kind = getattr(kvpress, name)
    return issubclass(kind, kvpress.ScorerPress) and not inner_of(kind) and bool(facts(name))


def _turns(kvpress: Any, kind: Any) -> bool:
    """``KeyRerotationPress`` asks for scores and chooses by itself: not what chooses otherwise."""
    scorer = kvpress.ScorerPress
    return issubclass(kind, scorer) and kind.compress is scorer.compress


def _own(kind: Any) -> dict[str, Any]:
    return {
        each.name: each.default
        for each in inspect.signature(kind).parameters.values()
        if type(each.default) in (bool, int, float, str)
        and each.name not in (*SET, BUFFERED)
        and not each.name.startswith("_")
    }


@cache
def _tiny() -> tuple[Any, Tensor]:
    """A model that no user has, and tokens for it (2, T), none of which comes twice in a row.

    In float64, so that no press chooses by how a machine rounds.
    """
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).double().eval().requires_grad_(False)
        ids = [torch.randperm(512)[: KEPT + STEPS] for _ in range(2)]
        return model, torch.stack(ids)


@torch.inference_mode()
def _evict(recipe: Recipe) -> bool:
    """Let a press cut a full cache; whether two documents in step are not what each is alone.

    They are not where it draws random numbers, whatever came of these.

    Raises:
        CannotEvict: It fails, or does something else.
    """
    model, ids = _tiny()
    left = []
    for rows in (ids[1:], ids):
        stream = DecodingStream(model, recipe)
        stream.try_on(rows)
        values = torch.stack([layer.values[-1] for layer in stream.cache.layers])
        left.append(values.sum(2))  # whatever their order
    return stream.drew() or not torch.allclose(left[0], left[1], atol=1e-5)


@torch.inference_mode()
def _reads_a_prompt(recipe: Recipe) -> bool:
    """Whether a press cuts a prompt, as it was made to."""
    model, ids = _tiny()
    prompt = made(recipe)
    prompt.compression_ratio = 0.5
    try:
        press.PressStream(model, lambda _: prompt, absolute=True).feed(ids, keep=1)
    except Exception:  # whatever the package's code raises
        return False
    return True
