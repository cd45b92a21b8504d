"""Into which clusters the tokens of a comparison are put, so that clusters are independent.

Documents, where there are several: what is found then holds for more such documents. One document
is cut into blocks, much longer than its differences stay alike: what is found holds for this text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamcli.analysis.spread import Floats

MOST = 400  # clusters; more documents are put together
RESAMPLED = 10  # documents from which on they are resampled; fewer have Student's t
BLOCKS = (8, 16)  # of one text, fewest and most
BLOCK = 25  # tokens a block has at least
WANTED, LEAST = 10, 4  # autocorrelation times that a block has, if there is text for it, and at all
RARE = 5  # tokens that hold the squares of a text's differences, below which they are rare losses
TINY = 1e-24  # of squares, what rounding leaves of a constant


@dataclass(frozen=True)
class Clusters:
    """Tokens in clusters.

    Attributes:
        words: What they are, and of what population; where there are none, why not.
        starts: Where each cluster starts; none where there may be no interval.
        inside: Which tokens count: all, but those of one text before any difference.
        documents: How many documents they are; 1 where they are blocks of one text.
    """

    words: str
    starts: NDArray[Any]
    inside: NDArray[np.bool_]
    documents: int

    @property
    def one(self) -> str:
        """What one of them is called."""
        return "block" if self.documents == 1 else "document"


def of(values: Floats, lengths: list[int], equal: float) -> Clusters:
    """The clusters of differences on documents of these lengths, end to end.

    Args:
        values: A difference a token.
        lengths: Tokens of each document.
        equal: What differs by less is the same.
    """
    there = [length for length in lengths if length]
    return _documents(len(values), there) if len(there) > 1 else _blocks(values, equal)


def scope(words: str) -> str:
    """For what an interval holds and by which law, without how its clusters were made."""
    return words.partition(" on ")[0]


def autocorrelation_time(values: Floats) -> float:
    """Over how many tokens values stay alike: 1 + 2 times the sum of autocorrelations, at least 1.

    The sum ends as Geyer 1992 has it, "Practical Markov chain Monte Carlo": with pairs of lags,
    made monotone, before the first pair that is not positive.
    """
    tokens = len(values)
    centred = values - values.mean()
    power = np.abs(np.fft.rfft(centred, 1 << (2 * tokens - 1).bit_length())) ** 2
    covariance = np.fft.irfft(power)[: tokens // 2 * 2]
    if not covariance.size or covariance[0] <= TINY * float((values**2).sum()):
        return 1.0
    pairs = covariance.reshape(-1, 2).sum(1) / covariance[0]
    ends = np.flatnonzero(pairs <= 0)
    counted = np.minimum.accumulate(pairs[: ends[0] if ends.size else len(pairs)])
    return max(1.0, 2 * float(counted.sum()) - 1)


def holding_squares(values: Floats) -> float:
    """How many values hold the squares about their mean: (sum e^2)^2 / sum e^4, a third if normal.

    Where it is a handful, the mean is made of a few large losses, and how often and how large they
    are elsewhere, the text does not tell: the interval would be too short as long as none came.
    """
    squares = (values - values.mean()) ** 2
    fourth = float((squares**2).sum())
    return float(squares.sum()) ** 2 / fourth if fourth else float(len(values))


def _documents(tokens: int, lengths: list[int]) -> Clusters:
    """Neighbours are put together where there are many."""
    starts = np.cumsum(lengths) - np.asarray(lengths)
    law = "bootstrap-t" if len(lengths) >= RESAMPLED else "Student's t"
    words = f"over {len(lengths):,} documents, by {law}"
    if len(lengths) > MOST:
        starts = starts[np.linspace(0, len(lengths), MOST + 1).astype(int)[:-1]]
        words += f" on {MOST} groups"
    return Clusters(words, starts, np.ones(tokens, np.bool_), len(lengths))


def _blocks(values: Floats, equal: float) -> Clusters:
    """Blocks of one text, from the first token on which the two differ.

    Before it no cache was full yet: that tells nothing of how much the others vary. Batch means of
    8 to 30 blocks: Schmeiser 1982, "Batch size effects in the analysis of simulation output".
    """
    differing = np.flatnonzero(np.abs(values) >= equal)
    first = int(differing[0]) if differing.size else 0
    inside = np.arange(len(values)) >= first
    kept = len(values) - first
    out = f" ({first:,} before any difference left out)" if first else ""
    few, most = BLOCKS
    alike = autocorrelation_time(values[first:])
    why = ""
    if kept < few * BLOCK:
        why = f"{kept:,} tokens{out} are too few, it takes {few * BLOCK}"
    elif kept < few * LEAST * alike:
        why = (
            f"{kept:,} tokens{out} are too few where differences stay alike over about "
            f"{alike:.0f}: it takes about {few * LEAST * alike:,.0f}"
        )
    elif (holding := holding_squares(values[first:])) < RARE:
        why = f"about {holding:.0f} of {kept:,} tokens{out} hold all the spread: too few to judge"
    if why:
        return Clusters(why, np.zeros(0, int), inside, 1)
    count = int(np.clip(kept // max(BLOCK, WANTED * alike), few, most))
    starts = np.linspace(first, len(values), count + 1).astype(int)[:-1]
    made = f"{count} blocks of about {kept / count:.0f} tokens{out}"
    return Clusters(f"within this text, by Student's t on {made}", starts, inside, 1)
