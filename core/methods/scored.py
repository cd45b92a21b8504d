"""What methods share that keep the best keys by a score: one decision after every token.

A cache holds S + W keys. When a token has been read and there is one more, each layer drops the key
with the lowest score, in each KV head the same one or its own, as the method has it. The next query
sees S + W keys and itself, as in ``streaming`` of the same S and W; no sinks are set aside unless
``sinks`` asks for them.

Keys are kept as they would be at position 0, oldest first in each head, and turned at every step to
their rank among those that are kept; or they stay where they came (``positions`` = absolute). Heads
may hold different tokens at one rank: what is turned is the rank. All of that costs O(S + W) a
token, as with ``mit``.

Scores that differ by rounding alone, as those of a word that comes again do in the first layer,
count as equal, and of equals the oldest goes.

A chunk is read token by token, since each token's decision depends on the one before.

Knows nothing of texts, scores of texts or clocks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from core.attending import implementation, name_of, registered
from core.config import RunConfig
from core.errors import UsageError
from core.kinds import kinds_of
from core.methods.base import CacheStream, Method, Stream, token_bytes
from core.models import anatomy
from core.models.layers import Anatomy
from core.models.loading import Loaded
from core.rope import Rotation, Turn

CACHE, ABSOLUTE = "cache", "absolute"
# Of the lowest score; closer ones are equal: docs/decisions/0009-which-of-equal-keys.md.
EQUAL = 1e-5
PLACE, SUM = 8, 4  # bytes of a token's number, and of what is added up for a key


@dataclass(frozen=True)
class Parameters:
    """Options that these methods have.

    Attributes:
        sinks: Tokens from the start of the stream that never leave.
        positions: Where keys and query stand: by their place in the ``cache``, or ``absolute``.

    Raises:
        ValueError: One is out of range.
    """

    sinks: int = 0
    positions: str = CACHE

    def __post_init__(self) -> None:
        if self.sinks < 0:
            raise ValueError(f"sinks is {self.sinks}: it must be 0 or more")
        if self.positions not in (CACHE, ABSOLUTE):
            raise ValueError(f"positions is {self.positions!r}: choose {CACHE} or {ABSOLUTE}")


class ScoredLayer(DynamicLayer):
    """What one layer holds of each KV head's n keys, oldest first.

    Attributes:
        keys: (B, K, n, D), as at position 0, or where they came if positions are absolute.
        values: (B, K, n, Dv).
        places: Numbers of their tokens (B, K, n), if positions are absolute.
        weights: Attention that the last query's heads paid to each key, (B, K, G, n); None between
            tokens.
        total: What the method adds up for each key, (B, K, n).
    """

    keys: Tensor
    values: Tensor

    def __init__(self, cache: ScoredKVCache, rotation: Rotation | None) -> None:
        super().__init__()
        self.cache, self.rotation = cache, rotation
        self.seen = 0  # tokens of the stream so far
        self.places: Tensor | None = None
        self.weights: Tensor | None = None
        self.total: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store a token and return every key, where the query meets it.

        Args:
            key_states: (B, K, 1, D), rotated to the position that ``get_seq_length()`` told.
            value_states: (B, K, 1, Dv).
            args: Unused; some versions of transformers pass more.
            kwargs: Unused, likewise.

        Returns:
            The n + 1 keys (B, K, n+1, D), the last of them the token's, and the values.
        """
        b, k = key_states.shape[:2]
        p = self.get_seq_length()
        if self.cache.absolute:
            new = torch.full((b, k, 1), p, device=key_states.device)
            self.places = new if self.places is None else torch.cat((self.places, new), -1)
        elif self.rotation:
            key_states = self.cache.turn(self.rotation, p, p + 1, back=True)(key_states)
        keys, values = super().update(key_states, value_states)
        self.seen += 1
        if self.rotation and not self.cache.absolute:
            keys = self.cache.turn(self.rotation, 0, p + 1)(keys)
        return keys, values

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values, and of what is held beside each key."""
        held = (self.keys, self.values, self.places, self.total)
        return sum(int(each.nbytes) for each in held if each is not None)

    @property
    def held(self) -> int:
        """n, keys that each head holds."""
        return self.keys.shape[-2] if self.is_initialized else 0

    @property
    def bare_keys(self) -> Tensor:
        """The keys as they would be at position 0, (B, K, n, D)."""
        if self.places is None or self.rotation is None:
            return self.keys
        return self.rotation.turn(-self.places)(self.keys)

    def get_seq_length(self) -> int:
        """Where the next token stands."""
        return self.seen if self.cache.absolute else self.held

    def get_mask_sizes(self, query: Any) -> tuple[int, int]:
        """Length and first position of the keys that one token will be given."""
        return self.held + 1, self.get_seq_length() - self.held

    def drop(self, which: Tensor) -> None:
        """Forget one key of each head: its place among those held, (B, K)."""
        stay = torch.arange(self.held - 1, device=which.device)
        stay = stay + (stay >= which[..., None])  # (B, K, n-1)
        self.keys, self.values = (
            held.gather(2, stay[..., None].expand(*stay.shape, held.shape[-1]))
            for held in (self.keys, self.values)
        )
        self.places, self.total = (
            None if held is None else held.gather(2, stay) for held in (self.places, self.total)
        )


class ScoredKVCache(Cache):
    """A transformers cache of the S + W keys that score best, fed one token at a time."""

    layers: list[Any]

    def __init__(self, budget: int, model: Any, options: Parameters, name: str) -> None:
        """An empty cache.

        Args:
            budget: S + W, keys that each head holds between tokens.
            model: The transformers model that will use it.
            options: How many sinks never leave, and where keys stand.
            name: Of the method, for what is refused.

        Raises:
            UsageError: The model has layers that can't be cut so, or the sinks fill the cache.
        """
        self.budget, self.sinks = budget, options.sinks
        self.absolute, self.found = options.positions == ABSOLUTE, anatomy.of(model)
        if self.sinks >= budget:
            raise UsageError(
                f"sinks is {self.sinks} in a cache of {budget} keys: choose {budget - 1} or less, "
                "or a larger --window."
            )
        kinds = kinds_of(self.found, 0, budget)
        _check_layers(self.found, any(each.own for each in kinds), self.absolute, name)
        self._turns: dict[Rotation, Turn] = {}
        super().__init__(layers=[ScoredLayer(self, each.rotation) for each in kinds])
        self.check_room(0)

    def turn(self, rotation: Rotation, start: int, stop: int, *, back: bool = False) -> Turn:
        """The rotation by positions from ``start`` to before ``stop``, or back from there."""
        if rotation not in self._turns:
            self._turns[rotation] = rotation.turn(torch.arange(self.budget + 1))
        whole = self._turns[rotation]
        cos, sin = whole.cos[start:stop], whole.sin[start:stop]
        return Turn(cos, -sin if back else sin, whole.first, whole.pairs)

    def check_room(self, seen: int) -> None:
        """Raise ``UsageError`` where a model can't place the token after so many."""
        needed = max(seen if self.absolute else 0, self.budget) + 1
        self.found.check_room(needed, "a smaller --window, or positions=cache")


def _check_layers(found: Anatomy, hybrid: bool, absolute: bool, name: str) -> None:
    """Refuse layers that don't keep every head's keys of all tokens.

    Raises:
        UsageError: Some have a window of their own, or hold what makes keys.
    """
    why, instead = "", "--method streaming"
    if not found.registered:
        why = "it takes no registered attention functions, and so gives no weights and no proof"
    elif any(layer.latent for layer in found.layers):
        why = "its layers hold what keys are made of (MLA), and no keys of single heads"
    elif hybrid:
        why = "some of its layers have a window of their own, which no score may cut"
    elif absolute and any(layer.native for layer in found.layers):
        why = "its layers look back only so far, which older keys at their positions are beyond"
        instead = "positions=cache"
    if why:
        raise UsageError(f"{name} can't serve a {found.kind!r} model: {why}: use {instead}.")


class Scored(Method):
    """A method that drops the key with the lowest score.

    Attributes:
        weighs: Whether its score is made of attention weights: the model then attends through
            plain operations that give them, and not through its own kernel.
        sums: Whether it adds up a number for each key.
        choices: Fills up with the places (layers, B, K) of the keys that each step drops, among
            those held and the new one; None to note nothing.
    """

    weighs = sums = False
    eviction = "after-step"
    parameters: Parameters
    choices: list[Tensor] | None = None

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.positions = self.parameters.positions

    @abstractmethod
    def score(self, layer: ScoredLayer) -> Tensor:
        """What each key is worth, (B, K, n); the first ``sinks`` stay whatever it says."""

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache.

        Raises:
            UsageError: The model's layers can't be cut so.
        """
        budget = self.config.attended_keys - 1
        cache = ScoredKVCache(budget, loaded.model, self.parameters, self.spec.name)
        return _ScoredStream(loaded.model, cache, self)

    def layers(self, loaded: Loaded) -> str:
        """What each kind of layer keeps."""
        found, kept = anatomy.of(loaded.model).layers, self.config.attended_keys - 1
        counts = Counter(each.rotation for each in found)
        return "; ".join(
            f"{count} of {len(found)} layers: the {kept:,} keys that score best, "
            f"{rotation.words if rotation else 'no rotary positions'}"
            for rotation, count in counts.items()
        )

    def kv_formula_bytes(self, loaded: Loaded, batch: int, feeds: Sequence[int]) -> int:
        """Keys and values of S + W tokens, or of all that there were, and what is beside each key.

        That is a token's number where positions are absolute, and what ``sums`` adds up.
        """
        heads = sum(layer.heads for layer in anatomy.of(loaded.model).layers)
        beside = (self.positions == ABSOLUTE) * PLACE + self.sums * SUM
        each = token_bytes(loaded, batch) + batch * heads * beside
        return min(sum(feeds), self.config.attended_keys - 1) * each

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """Chunks are no faster than single tokens."""
        mode, name = self.config.mode_spec, self.config.method
        if not mode.chunked and not mode.context and not self.config.timed_tokens:
            return ()
        return (f"{name} decides after every token, so it reads many as it does one by one.",)


class _ScoredStream(CacheStream):
    def __init__(self, model: Any, cache: ScoredKVCache, method: Scored) -> None:
        super().__init__(model, cache)
        self.method = method

    def feed(self, ids: Tensor, keep: int = 0) -> Tensor:
        parts = []
        for token in torch.split(ids, 1, dim=1):
            self.cache.check_room(self.cache.layers[0].seen)
            with _weighed(self.model, self.cache, self.method.weighs):
                parts.append(super().feed(token, 1))
            self._evict()
        return torch.cat(parts[-keep:], dim=1)

    def _evict(self) -> None:
        gone = []
        for layer in self.cache.layers:
            scores = self.method.score(layer)[..., self.cache.sinks :]
            if layer.held > self.cache.budget:
                lowest = scores.amin(-1, keepdim=True)
                equal = scores <= lowest + EQUAL * lowest.abs()
                gone.append(equal.int().argmax(-1) + self.cache.sinks)
                layer.drop(gone[-1])
            layer.weights = None
        if gone and self.method.choices is not None:
            self.method.choices.append(torch.stack(gone).cpu())

    def held(self) -> int:
        return int(self.cache.layers[0].held)

    def kv_bytes(self) -> int:
        return sum(layer.nbytes for layer in self.cache.layers)


@contextmanager
def _weighed(model: Any, cache: ScoredKVCache, weighs: bool) -> Iterator[None]:
    """Let ``model`` attend within the block so that its layers' weights are at hand, if asked."""
    if not weighs:
        yield
        return
    name = name_of(model.config)
    with registered(partial(_attend, cache=cache), name), implementation(model, name):
        yield


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    *,
    cache: ScoredKVCache,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one query to all keys, whose weights the layer of the cache is told.

    Args and returns are those of ``core.attention.attend``, with C = 1.
    """
    b, h, _, d = query.shape
    k = key.shape[1]
    wide = torch.promote_types(query.dtype, torch.float32)
    grouped = query.reshape(b, k, h // k, d).to(wide)
    logits = grouped @ key.to(wide).transpose(-1, -2) * (d**-0.5 if scaling is None else scaling)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if s_aux is not None:  # a share of the softmax that gives no value
        learned = s_aux.to(wide).view(1, k, h // k, 1).expand(b, -1, -1, -1)
        weights = torch.cat((logits, learned), -1).softmax(-1)[..., :-1]
    else:
        weights = logits.softmax(-1)  # (B, K, G, n)
    cache.layers[module.layer_idx].weights = weights
    out = (weights @ value.to(wide)).to(value.dtype)  # (B, K, G, Dv)
    return out.reshape(b, 1, h, -1), None


def added(total: Tensor | None, new: Tensor) -> Tensor:
    """``new`` (B, K, n) and what was added up before of the first n - 1 keys."""
    return new if total is None else pad(total, (0, 1)) + new
