"""How the next token is chosen: the greatest score, or a draw from those that are let stay.

The steps are transformers' own, in the order of its ``generate``: the penalty on what was said, the
temperature, the k likeliest, the likeliest that together reach p. Under the same seed the tokens
are those of ``generate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import StreamError
from core.option import check, option

if TYPE_CHECKING:
    from torch import Tensor

SAMPLING = "Sampling"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How much is written, and how its tokens are chosen; names are transformers'.

    Raises:
        UsageError: A value that can't be.
    """

    max_new_tokens: int = option(
        256, SAMPLING, "Tokens to write at most, each turn.", least=1, most=10**9
    )
    temperature: float = option(
        0.7,
        SAMPLING,
        "Below 1, likely tokens become likelier; 0 always takes the likeliest.",
        least=0,
        most=100,
    )
    top_k: int | None = option(
        None, SAMPLING, "Draw from the k likeliest only.", otherwise="all", least=1, most=10**9
    )
    top_p: float = option(
        0.95,
        SAMPLING,
        "Draw from the likeliest that together reach p only; 1 is all.",
        least=0.001,
        most=1,
    )
    repetition_penalty: float = option(
        1.0,
        SAMPLING,
        "Above 1, what this turn has said becomes less likely, as far as the cache still sees it; "
        "1 is no penalty.",
        least=0.01,
        most=100,
    )

    def __post_init__(self) -> None:
        check(self)


class Sampler:
    """Chooses one token after the other.

    Args:
        sampling: How.
        seed: Of the draws.
        device: Where the scores are.
    """

    def __init__(self, sampling: Sampling, seed: int, device: Any) -> None:
        import torch
        from transformers.generation import logits_process as steps

        self.greedy = sampling.temperature == 0
        self.draws = torch.Generator(device).manual_seed(seed)
        self.steps: list[Any] = []
        self.looks_back = sampling.repetition_penalty != 1
        if self.looks_back:
            penalty = steps.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
            self.steps.append(penalty)
        if self.greedy:
            return
        if sampling.temperature != 1:
            self.steps.append(steps.TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            self.steps.append(steps.TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self.steps.append(steps.TopPLogitsWarper(sampling.top_p))

    def choose(self, logits: Tensor, said: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: (1, V).
            said: Tokens that the penalty is on.

        Raises:
            StreamError: A score is no number.
        """
        import torch

        scores = logits.float()
        if not bool(scores.amax().isfinite()):  # of NaN the greatest is NaN
            raise StreamError(
                "the model gives scores that are no numbers: use --dtype float32, or fetch the "
                "model again."
            )
        ids = torch.tensor([list(said) if self.looks_back else []], device=logits.device).long()
        for step in self.steps:
            scores = step(ids, scores)
        if self.greedy:
            return int(scores.argmax(-1))
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self.draws))
