"""A stream that a press of kvpress keeps at S + W keys, one decision after every token.

The package's own ``DecodingPress`` lets a press cut the cache after each decode step. Where it
differs from the package:

- ``DecodingPress`` takes scorers and ``AdaKVPress`` only (``decoding_press.py:52``); here also a
  press with a rule of its own for which keys stay (``compress``), as long as S + W do;
- it forgets the hidden states of past steps when it evicts (``:172``), so that an interval of 1
  would leave the newest alone; here those of the last ``hidden_states_buffer_size`` tokens stay, if
  the press asks for them;
- keys are put at their places in the cache by ``KeyRerotationPress``, which also keeps them in
  order, unless that can't hold the press or positions are ``absolute``: then, as in the package,
  keys stay where they came and in the order in which they were chosen;
- random numbers come from the run's seed, and torch's own go on as if none had been drawn.

As the package has it: all queries that a press makes of past hidden states are turned to the
position of the newest token, whose angles alone it is given.

Knows nothing of texts, scores of texts or clocks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.attending import implementation
from core.errors import StreamError, UsageError
from core.methods import press
from core.methods.press_names import PREFIX

INNER = ("press", "base_press")  # arguments that take another press
WEIGHED = "eager"  # the attention of transformers that gives its weights


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A press, and how it is to evict.

    Attributes:
        name: Its class.
        inner: That of the press which it is made around; empty where none.
        own: Its own arguments.
        n_sink: S, for a press that keeps the first tokens.
        kept: S + W, keys that it leaves.
        every: Steps between evictions.
        turns: Whether keys are turned to their places in the cache.
        weighs: Whether it is given attention weights.
        buffer: Tokens whose hidden states are held for it; 0 is the newest alone.
        seed: Of the random numbers that it draws.
    """

    name: str
    inner: str = ""
    own: Mapping[str, Any] = field(default_factory=dict)
    n_sink: int = 4
    kept: int = 1
    every: int = 1
    turns: bool = False
    weighs: bool = False
    buffer: int = 0
    seed: int = 0


class CannotEvict(UsageError):
    """A press fails while decoding, or does something else than to leave S + W keys.

    Attributes:
        why: What it does, without its name.
        failed: Whether its code raised an error.
    """

    def __init__(self, name: str, why: str, *, failed: bool = False) -> None:
        super().__init__(f"{name} can't evict while decoding here: {why}.")
        self.why, self.failed = why, failed


def inner_of(kind: Any) -> str:
    """The argument of a press that takes the press which it is made around; empty where none."""
    given = inspect.signature(kind).parameters
    for name in INNER:
        if name in given and given[name].default in (inspect.Parameter.empty, None):
            return name
    return ""


def made(recipe: Recipe) -> Any:
    """The press itself; one that is a ``DecodingPress`` evicts already."""
    kvpress = press.load()
    kind = getattr(kvpress, recipe.name)
    given, takes = dict(recipe.own), inspect.signature(kind).parameters
    if name := inner_of(kind):
        given[name] = _finite(getattr(kvpress, recipe.inner)(), recipe.inner)
    if "n_sink" in takes:
        given["n_sink"] = recipe.n_sink
    if issubclass(kind, kvpress.DecodingPress):
        kind = _rolling(kind, recipe.buffer)
        return kind(target_size=recipe.kept, compression_interval=recipe.every, **given)
    if not issubclass(kind, kvpress.ScorerPress):
        kind = type(kind.__name__, (kind, kvpress.ScorerPress), {})
    return _finite(kind(**given), recipe.name)


def evicting(recipe: Recipe) -> Any:
    """The press, made to evict while decoding."""
    kvpress, found = press.load(), made(recipe)
    if isinstance(found, kvpress.DecodingPress):
        return found
    return _rolling(kvpress.DecodingPress, recipe.buffer)(
        base_press=press.rerotating(kvpress, found) if recipe.turns else found,
        target_size=recipe.kept,
        compression_interval=recipe.every,
    )


def _rolling(kind: Any, size: int) -> Any:
    """A kind of ``DecodingPress`` that keeps the last ``size`` hidden states."""

    class Rolling(kind):
        def forward_hook(self, module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            layer, new = module.layer_idx, kwargs["hidden_states"]
            held = [*self.hidden_states_buffer[layer], new.detach()] if size else []
            output = super().forward_hook(module, args, kwargs, output)
            self.hidden_states_buffer[layer] = [torch.cat(held, 1)[:, -size:]] if size else []
            return output

    return Rolling


def _finite(scorer: Any, name: str) -> Any:
    """A scorer that refuses scores which are no numbers: of these the package would take any."""
    score: Callable[..., Tensor] = scorer.score

    def checked(*args: Any, **kwargs: Any) -> Tensor:
        found = score(*args, **kwargs)
        if not found.isfinite().all():
            raise ValueError(f"{name} gives scores that are no numbers")
        return found

    scorer.score = checked
    return scorer


class DecodingStream(press.PressStream):
    """A stream through a cache that a press cuts."""

    def __init__(self, model: Any, recipe: Recipe) -> None:
        """An empty cache.

        Raises:
            UsageError: The model's positions can't be moved.
        """
        super().__init__(model, lambda _: evicting(recipe), absolute=not recipe.turns)
        self.recipe = recipe
        self._states: list[Tensor] = []

    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        """See ``Stream``: token by token, since a press decides after each.

        Raises:
            UsageError: The press fails, or leaves another number of keys.
        """
        parts = []
        for token in torch.split(ids, 1, dim=1):
            parts.append(self._read(token))
            self._check(held_after(self.seen, self.recipe))
        return torch.cat(parts[-keep:], dim=1)

    def try_on(self, ids: Tensor) -> None:
        """Fill the cache with S + W of ``ids`` (B, T) at once, and read the rest one by one.

        Raises:
            UsageError: The press fails, or leaves another number of keys.
        """
        self._read(ids[:, : self.recipe.kept])
        for token in torch.split(ids[:, self.recipe.kept :], 1, dim=1):
            self._read(token)
        self._check(self.recipe.kept)

    def drew(self) -> bool:
        """Whether a press has drawn random numbers."""
        with torch.random.fork_rng(devices=[]):
            first = torch.manual_seed(self.recipe.seed).get_state()
        return bool(self._states) and not torch.equal(first, self._states[0])

    def kv_bytes(self) -> int:
        """See ``Stream``: hidden states that are held for the press count too."""
        buffers = self.seats[0].press.hidden_states_buffer.values() if self.seen else ()
        return super().kv_bytes() + sum(int(each.nbytes) for held in buffers for each in held)

    def _read(self, ids: Tensor) -> Tensor:
        weighing = implementation(self.model, WEIGHED) if self.recipe.weighs else nullcontext()
        with self._dice(), weighing:
            try:
                return super().feed(ids, 1)
            except (StreamError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever the package's code raises
                if "allocate memory" in str(error):
                    raise
                told = [*str(error).strip().splitlines(), "no more is told"][0].strip().rstrip(".")
                why = f"with {self.held():,} keys its code says {told!r} ({type(error).__name__})"
                raise CannotEvict(self._name, why, failed=True) from error

    @property
    def _name(self) -> str:
        around = f" around {self.recipe.inner}" if self.recipe.inner else ""
        return f"{PREFIX}{self.recipe.name}{around}"

    def _check(self, wanted: int) -> None:
        """Refuse what leaves another number of keys than S + W in any layer."""
        if any(getattr(seat, "masked_key_indices", None) is not None for seat in self.seats):
            raise CannotEvict(
                self._name,
                "it hides keys, of one head more than of another, and keeps them all in memory",
            )
        for layer in self.cache.layers:
            if (left := layer.keys.shape[-2]) != wanted:
                why = f"it left {left:,} keys in a layer, where {wanted:,} were to stay"
                raise CannotEvict(self._name, why)

    @contextmanager
    def _dice(self) -> Iterator[None]:
        """Within the block random numbers are the stream's own, from its seed on."""
        device = self.model.device
        devices = [device.index or 0] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            if self._states:
                torch.set_rng_state(self._states[0])
                for place, state in zip(devices, self._states[1:], strict=True):
                    torch.cuda.set_rng_state(state, place)
            else:
                torch.manual_seed(self.recipe.seed)
            yield
            states = [torch.cuda.get_rng_state(place) for place in devices]
            self._states = [torch.get_rng_state(), *states]


def held_after(tokens: int, recipe: Recipe) -> int:
    """Keys that are held after so many tokens, the first of which no press sees."""
    seen_at_last_cut = (tokens - 1) // recipe.every * recipe.every + 1
    return tokens - max(0, seen_at_last_cut - recipe.kept)
