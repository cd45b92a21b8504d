"""Any press of the package kvpress, made to evict while decoding: ``kvpress:NAME``.

Each is told to leave S + W keys after every token, so that the next query sees these and itself, as
in ``streaming`` of the same S and W. S is the number of first tokens that a press keeps, where it
keeps any (``n_sink``); of the others, S and W add up to their keys.

What runs is the package's own code, by ``core.methods.decoding``, which says where it differs.
Which presses there are, and which can't be had so, is in ``docs/presses.md``.

Knows nothing of texts, scores of texts or clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version

import torch
from torch import Tensor

from core.config import RunConfig
from core.errors import UsageError
from core.methods import press_names
from core.methods.base import (
    Method,
    Stream,
    another_budget,
    attended_lazily,
    eviction,
    token_bytes,
)
from core.methods.decoding import DecodingStream, Recipe, held_after
from core.methods.press_trial import ABSOLUTE, BUFFERED, Facts, facts
from core.models.loading import Loaded
from core.registry import MethodSpec

TRIED = 3  # evictions, before a run begins


class Pressed(Method):
    """A press that evicts while decoding.

    Attributes:
        press: Its class in the package.
    """

    press: str

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.positions = self.parameters.positions
        self.eviction = eviction(config.steps_between_evictions())
        inner = getattr(self.parameters, "press", "")
        found = facts(self.press, inner)
        if found.inner and not inner:
            raise UsageError(
                f"{config.method} is made around another press: say which, such as "
                "--param press=KnormPress."
            )
        if found.alone and config.batch_size > 1:
            raise UsageError(
                f"batch_size is {config.batch_size}, but {config.method} reads one document at a "
                "time: with others in step it would choose otherwise."
            )
        self.recipe = self._recipe(found, inner)

    def _recipe(self, found: Facts, inner: str) -> Recipe:
        looks_back = found.looks_back
        return Recipe(
            name=self.press,
            inner=inner,
            own={name: getattr(self.parameters, name) for name in found.own},
            n_sink=self.config.n_sink,
            kept=self.config.attended_keys - 1,
            every=self.config.steps_between_evictions(),
            turns=self.positions != ABSOLUTE,
            weighs=found.weighs,
            buffer=getattr(self.parameters, BUFFERED) if looks_back else 0,
            seed=self.config.seed,
        )

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache.

        Raises:
            UsageError: The model's positions can't be moved.
        """
        return DecodingStream(loaded.model, self.recipe)

    @torch.inference_mode()
    def check(self, loaded: Loaded, length: int) -> None:
        """Let the press evict from a full cache, where a stream of ``length`` tokens fills it.

        Raises:
            UsageError: It can't on this model, or with this budget.
        """
        tokens = self.recipe.kept + TRIED * self.recipe.every
        if length > self.recipe.kept:
            made = torch.Generator().manual_seed(self.recipe.seed)
            ids = torch.randint(0, loaded.model.config.vocab_size, (1, tokens), generator=made)
            DecodingStream(loaded.model, self.recipe).try_on(ids.to(loaded.model.device))

    def attended(self, feeds: Sequence[int]) -> Tensor:
        """S + W and itself, and between evictions up to k - 1 more."""
        return attended_lazily(sum(feeds), self.recipe.kept, self.recipe.every)

    def kv_formula_bytes(self, loaded: Loaded, batch: int, feeds: Sequence[int]) -> int:
        """Keys and values of the tokens that are left, and hidden states held for the press."""
        tokens, config = sum(feeds), loaded.model.config.get_text_config(decoder=True)
        buffered: int = (
            min(tokens, self.recipe.buffer) * config.num_hidden_layers * config.hidden_size
        )
        hidden = batch * buffered * int(loaded.model.dtype.itemsize)
        return held_after(tokens, self.recipe) * token_bytes(loaded, batch) + hidden

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """What it is, where keys stand, and what it holds or takes besides."""
        config, recipe = self.config, self.recipe
        around = f" around {recipe.inner}" if recipe.inner else ""
        where = "with KeyRerotationPress, keys at positions in the cache"
        if not recipe.turns:
            where = "keys at the positions of the text, in the order in which they were chosen"
        notes = [f"kvpress {version('kvpress')}: {self.press}{around} in DecodingPress, {where}."]
        if recipe.turns and config.dtype != "float32":
            notes.append(f"kvpress re-rotates its keys step by step: in {config.dtype} they drift.")
        if recipe.buffer:
            notes.append(
                f"{config.method} looks at hidden states of the last {recipe.buffer} tokens, which "
                "are held besides its keys and count as KV."
            )
        if recipe.weighs:
            notes.append(f"{config.method} asks for attention weights: eager attention gives them.")
        if config.mode_spec.chunked or config.mode_spec.context or config.timed_tokens:
            notes.append(
                f"{config.method} decides after every token: it reads many as it does one by one."
            )
        return (*notes, *another_budget(config.method, recipe.every))


def __getattr__(name: str) -> type[Pressed]:
    """The method that the press ``name`` is, made when it is asked for."""
    if name not in press_names.names():
        raise AttributeError(name)
    return _method(name)


@cache
def _method(name: str) -> type[Pressed]:
    spec: MethodSpec = press_names.spec(f"{press_names.PREFIX}{name}")
    return type(name, (Pressed,), {"press": name, "spec": spec, "__doc__": spec.words})
