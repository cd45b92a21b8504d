"""Answers by distance: how far back a run still knew what it was told, and where that ends."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.result import wilson
from streamcli.results.columns import missing

NEAREST = 16  # tokens; what is nearer is one span
LUCK = 0.025  # the side of a 95 % interval that is below it


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

    def guessed(self, chance: float) -> float:
        """How probable it is to get as many right, or more, by guessing: the binomial tail."""
        return _tail(self.right, self.asked, chance)

    def tells(self, chance: float) -> bool:
        """Whether so many questions, all of them right, would be more than luck."""
        return _tail(self.asked, self.asked, chance) <= LUCK

    @property
    def middle(self) -> float:
        """Its middle in tokens, where distances are doubled from tick to tick."""
        return self.last / math.sqrt(2)

    @property
    def words(self) -> str:
        """From where to where it goes."""
        return f"{self.first:,} to {self.last:,}"


@dataclass(frozen=True)
class Horizon:
    """Up to where a run knew more than chance.

    The rule: it is the end of the last span before the first one whose exact 95 % interval (Clopper
    and Pearson, Biometrika 26, 1934) has chance in it or above it, going out from the nearest; a
    span that is above chance beyond that counts for luck. One of so few questions that all could be
    guessed tells nothing, and is passed over. Wilson's interval would not do: one right answer of
    one is above a chance of 1 / 10 by it, which guessing gets in 10 %.

    Attributes:
        tokens: The distance; 0 where the nearest span is at chance; the furthest that was asked
            for in a span that tells where none is.
        open: Whether none is, so that it may be further.
    """

    tokens: int
    open: bool

    @property
    def words(self) -> str:
        """The distance, with a sign where it may be further."""
        return f"{self.tokens:,}{'+' if self.open else ''}"


def spans(answers: str | None) -> list[Span]:
    """The spans in which a run was asked, nearest first; each ends at a power of two.

    So a cache of 256 keys ends where a span does, and no span is half inside of it. There is none
    where no answer was told in the text.

    Args:
        answers: As the column of that name has them.
    """
    found: dict[int, list[int]] = {}
    for distance, right in json.loads(answers or "[]"):
        if distance is None:
            continue
        last = max(NEAREST, 2 ** (distance - 1).bit_length())
        found.setdefault(last, []).append(right)
    return [
        Span(_first(last), last, len(rights), sum(rights)) for last, rights in sorted(found.items())
    ]


def horizon(run: Mapping[str, Any]) -> Horizon | None:
    """Where a run's accuracy falls to chance; None where it was asked for too little to tell.

    Args:
        run: Its columns, of which ``answers`` and ``chance`` count.
    """
    answers = None if missing(run.get("answers")) else run["answers"]
    reached = 0
    for span in spans(answers):
        if not span.tells(chance := float(run["chance"])):
            continue
        if span.guessed(chance) > LUCK:
            return Horizon(reached, open=False)
        reached = span.last
    if not reached:
        return None
    asked = (distance or 0 for distance, _ in json.loads(answers or "[]"))
    return Horizon(max(each for each in asked if each <= reached), open=True)


def ends(every: Iterable[Iterable[Span]]) -> list[int]:
    """The last token of every span of several runs, nearest first."""
    return sorted({span.last for each in every for span in each})


def _tail(right: int, asked: int, chance: float) -> float:
    """The probability of ``right`` or more of ``asked`` trials, each won by ``chance``."""
    if not right:
        return 1.0
    from scipy.special import bdtrc

    return float(bdtrc(right - 1, asked, chance))


def _first(last: int) -> int:
    return 1 if last == NEAREST else last // 2 + 1
