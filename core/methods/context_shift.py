"""Context shift, as llama.cpp has it: when the cache is full, drop the older half and go on.

``llama-server`` and ``llama-cli`` (github.com/ggml-org/llama.cpp; no paper) keep the first n
tokens, here the S sinks. When there is no room for the next token they drop ``n_discard`` of those
that follow, half of them unless told otherwise, and move what stays down, so that keys are at
positions in the cache. It is the streaming cache with evictions far apart: with ``n_discard`` = 1
it equals ``streaming``.

The most keys that a query sees are everybody's S + W + 1; after each eviction there are fewer, and
on average about 3/4 of W. So it takes the memory of that budget and uses part of it.

Where it differs: llama.cpp turns the keys it holds once more at every shift, in the cache's own
number format; here none drifts, since only the sinks are turned, from saved originals. Its server
makes room a token earlier, and may count a begin token among the n.

Knows nothing of texts, scores or clocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.config import RunConfig
from core.errors import UsageError
from core.methods.base import Stream, eviction, own_windows
from core.methods.streaming import Streaming
from core.models import anatomy
from core.models.loading import Loaded
from core.registry import METHODS


@dataclass(frozen=True)
class Parameters:
    """Options that it alone has.

    Attributes:
        n_discard: Tokens that leave a full cache at a time; 0 is half of those that are no sinks.

    Raises:
        ValueError: It is below 0.
    """

    n_discard: int = 0

    def __post_init__(self) -> None:
        if self.n_discard < 0:
            raise ValueError(f"n_discard is {self.n_discard}: it must be 0, for half, or more")


class ContextShift(Streaming):
    """The streaming cache, of which many tokens leave at a time."""

    spec = METHODS["context-shift"]

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        others = config.window_size + 1  # that are no sinks, in a full cache
        self.every = self.parameters.n_discard or others // 2
        self.eviction = eviction(self.every)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """S, what an eviction leaves of W, how many go, and the token that fills the cache."""
        sinks, window = self.config.n_sink, self.config.window_size
        return sinks, window + 1 - self.every, self.every, sinks + window

    @property
    def cycle(self) -> int:
        """Steps from one shift to the next."""
        return self.every

    def start(self, loaded: Loaded, batch: int) -> Stream:
        """An empty cache.

        Raises:
            UsageError: More are to be dropped than there are, the model's positions can't be moved,
                or it takes no attention of ours.
        """
        others = self.config.window_size + 1
        if self.every >= others:
            raise UsageError(
                f"n_discard is {self.every}, but there are {others} keys that are no sinks, one of "
                f"them the newest: choose {others - 1} or less, or a larger --window."
            )
        found = anatomy.of(loaded.model)
        if self.every > 1 and not found.registered:
            found.check_movable()
            raise UsageError(
                f"{self.spec.name} needs a model that takes registered attention functions, and a "
                f"{found.kind!r} model does not: use --method streaming, or --param n_discard=1."
            )
        return super().start(loaded, batch)

    def notes(self, loaded: Loaded, length: int) -> tuple[str, ...]:
        """It sees fewer keys than the budget on average."""
        notes = own_windows(loaded)
        if self.every == 1:
            return notes
        most = self.config.attended_keys
        return (
            f"{self.config.method} drops {self.every} keys whenever {most} are there: a query sees "
            f"{most + 1 - self.every} to {most} of them, where streaming's sees {most}.",
            *notes,
        )
