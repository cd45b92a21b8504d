"""Answers by distance: how far back a run still knew what it was told."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

from core.result import wilson

NEAREST = 16  # tokens; what is nearer is one span


@dataclass(frozen=True)
class Span:
    """The questions whose answers were told ``first`` to ``last`` tokens before."""

    first: int
    last: int
    asked: int
    right: int

    @property
    def accuracy(self) -> float:
        """Right answers over questions."""
        return self.right / self.asked

    @property
    def ends(self) -> tuple[float, float]:
        """Its 95 % interval, by Wilson."""
        return wilson(self.right, self.asked)

    @property
    def middle(self) -> float:
        """Its middle in tokens, where distances are doubled from tick to tick."""
        return self.last / math.sqrt(2)

    @property
    def words(self) -> str:
        """From where to where it goes."""
        return f"{self.first:,} to {self.last:,}"


def spans(answers: str | None) -> list[Span]:
    """The spans in which a run was asked, nearest first; each ends at a power of two.

    So a cache of 256 keys ends where a span does, and no span is half inside of it.

    Args:
        answers: As the column of that name has them.
    """
    found: dict[int, list[int]] = {}
    for distance, right in json.loads(answers or "[]"):
        last = max(NEAREST, 2 ** (distance - 1).bit_length())
        found.setdefault(last, []).append(right)
    return [
        Span(_first(last), last, len(rights), sum(rights)) for last, rights in sorted(found.items())
    ]


def ends(every: Iterable[Iterable[Span]]) -> list[int]:
    """The last token of every span of several runs, nearest first."""
    return sorted({span.last for each in every for span in each})


def _first(last: int) -> int:
    return 1 if last == NEAREST else last // 2 + 1
