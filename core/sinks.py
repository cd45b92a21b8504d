"""What a probe finds: how much attention the first tokens take, and how many of them to keep.

The sink rate is that of Gu et al. (arXiv 2410.10781, section 3): the importance of token k to head
h of layer l is the mean attention that it gets over all queries that see it,
alpha(l, h, k) = 1 / (T - k + 1) * sum over i = k..T of A(l, h, i, k), on texts of T = 64 tokens;
the rate of token k is the share of all heads of all layers, averaged over texts, with
alpha > epsilon = 0.3. Theirs are 100 texts; ours are pieces of the text at hand, 100 at most, each
with what the tokenizer puts before a text.

Plain values: imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THRESHOLD = 0.3  # epsilon of Gu et al.
PIECE, PIECES = 64, 100  # tokens of a text that the sink rate is of, and how many texts at most
FIRST = 64  # the first query that counts, as before it few tokens share the attention
FAR = 64  # tokens between a sink and the queries that tell that it is one: neighbours are no sinks
SINKS = (0, 1, 2, 4, 8)  # S that are tried at one and the same budget
ENOUGH = 0.01  # of a perplexity; an S suffices where no larger one is better by more


@dataclass(frozen=True)
class Sink:
    """A token that some heads attend to from afar.

    Attributes:
        position: Its number in the text.
        text: The token.
        heads: Share of all heads whose mean attention to it is beyond the threshold.
        mass: The attention that it gets, averaged over all heads.
    """

    position: int
    text: str
    heads: float
    mass: float


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was found.

    Attributes:
        n_sink: S, the first tokens that ``before`` and ``after`` are about.
        window: W.
        threshold: Epsilon.
        tokens: Tokens that attention was looked at on.
        pieces: Texts that the sink rate is an average over.
        sink_rate: Share of heads that have a sink in the first token.
        before: Attention to the first S tokens, by layer and head (L, H): the mean over queries
            from ``FIRST`` on that see all tokens before them.
        after: The same of queries that see S and W, once a token has been evicted.
        sinks: Tokens that are sinks, those of most heads first.
        perplexities: By S, at a budget of as many keys.
        scored_tokens: Tokens that these are of.
    """

    n_sink: int
    window: int
    threshold: float
    tokens: int
    pieces: int
    sink_rate: float
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    sinks: tuple[Sink, ...]
    perplexities: dict[int, float]
    scored_tokens: int

    @property
    def suffices(self) -> int:
        """The smallest S that no larger one betters by more than ``ENOUGH``."""
        return suffices(self.perplexities)


def suffices(perplexities: dict[int, float]) -> int:
    """The smallest S than which no larger one has a perplexity lower by more than ``ENOUGH``."""
    ordered = sorted(perplexities)
    best = {s: min(perplexities[n] for n in ordered if n >= s) for s in ordered}
    return next(s for s in ordered if perplexities[s] * (1 - ENOUGH) <= best[s])
