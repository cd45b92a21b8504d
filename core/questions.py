"""Questions of a text as questions of its tokens: where they are asked, and what is held apart.

An answer is scored by the logits that a stream has there anyway: no stream is disturbed, and none
is copied. It is right where a greedy decoder that may write nothing but a candidate would write
it: wherever candidates that began as it does go on differently, its token must be likelier than
each of theirs. Nothing is normalised by length, since tokens that all have alike are not compared.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from core.datasets.base import Document, Question
from core.errors import UsageError
from core.result import Answer

if TYPE_CHECKING:
    from torch import Tensor

AROUND = 40  # characters before and after a candidate that it is made tokens with


@dataclass(frozen=True)
class Fork:
    """A place of a stream where candidates that were alike so far go on differently.

    Attributes:
        at: Token after which they do, whose query predicts what follows.
        right: The token id by which the true answer goes on.
        others: Those of the others.
    """

    at: int
    right: int
    others: tuple[int, ...]

    def taken(self, logits: Tensor) -> bool:
        """Whether of logits (V,) that of the true answer is higher than every other's."""
        found = logits[[self.right, *self.others]].float()
        return bool(found[0] > found[1:].max())

    def moved(self, by: int) -> Fork:
        """The same ``by`` tokens later."""
        return replace(self, at=self.at + by)


@dataclass(frozen=True)
class TokenQuestion:
    """A question of a stream.

    Attributes:
        told: Token of the answer where it was told last; None where it was not told.
        forks: Where its candidates part, at least one, in order.
        candidates: How many there are.
    """

    told: int | None
    forks: tuple[Fork, ...]
    candidates: int

    @property
    def at(self) -> int:
        """Token after which it is asked for."""
        return self.forks[0].at

    @property
    def distance(self) -> int | None:
        """d, tokens from the told answer to the query: a window of W keys holds it if d <= W."""
        return None if self.told is None else self.at - self.told

    def moved(self, by: int) -> TokenQuestion:
        """The same in a stream that has ``by`` more tokens before it."""
        told = None if self.told is None else self.told + by
        return replace(self, told=told, forks=tuple(fork.moved(by) for fork in self.forks))


class Asked:
    """The questions of a stream in order, answered as its logits come in."""

    def __init__(self, questions: Sequence[TokenQuestion]) -> None:
        self._questions = questions
        self._forks = [(fork, each) for each in questions for fork in each.forks]
        self._taken: dict[TokenQuestion, list[bool]] = {}

    def put(self, start: int, logits: Tensor) -> None:
        """Take the logits (C, V) after the C tokens from ``start``."""
        ends = (start, start + len(logits))
        first, last = (bisect_left(self._forks, end, key=lambda pair: pair[0].at) for end in ends)
        for fork, question in self._forks[first:last]:
            self._taken.setdefault(question, []).append(fork.taken(logits[fork.at - start]))

    @property
    def answers(self) -> tuple[Answer, ...]:
        """What became of those that were asked with all their candidates' tokens."""
        return tuple(
            Answer(distance=each.distance, candidates=each.candidates, right=all(taken))
            for each in self._questions
            if len(taken := self._taken.get(each, [])) == len(each.forks)
        )


def placed(document: Document, tokenizer: Any, skip: int, stop: int) -> tuple[TokenQuestion, ...]:
    """The questions of a document among the tokens ``skip`` to ``stop`` of its text.

    Places are counted from ``skip``. Left out is what was told or asked before, and what is not
    answered before ``stop``.

    Raises:
        UsageError: Its tokens can't tell the candidates apart, or not where they stand.
    """
    if not document.questions:
        return ()
    try:
        found = tokenizer(
            document.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
    except NotImplementedError as error:
        raise _unfit(document, "does not tell where its tokens stand in a text") from error
    ids, starts = found["input_ids"], [start for start, _ in found["offset_mapping"]]
    known: dict[tuple[Any, ...], _Parting] = {}
    questions = []
    for each in document.questions:
        asked = _token(starts, each.asked)
        if asked >= stop:
            break
        part = _parting(document, tokenizer, each, known)
        told = None if each.told is None else _token(starts, each.told) + part.first
        right, at = part.path[0], asked + part.first
        path = tuple(ids[at : at + len(part.path)])
        if path != part.path or (told is not None and ids[told] != right):
            answer = each.candidates[each.right]
            raise _unfit(document, f"makes no token of its own where {answer!r} begins")
        forks = tuple(fork.moved(asked) for fork in part.forks)
        questions.append(TokenQuestion(told, forks, len(each.candidates)).moved(-skip))
    return tuple(
        each
        for each in questions
        if min(each.at, each.at if each.told is None else each.told) >= 0
        and each.forks[-1].at < stop - skip - 1
    )


@dataclass(frozen=True)
class _Parting:
    """Where candidates part, counted from the token that their first character is in.

    Attributes:
        forks: Where they go on differently.
        path: The true one's tokens from the first fork to the last.
    """

    forks: tuple[Fork, ...]
    path: tuple[int, ...]

    @property
    def first(self) -> int:
        """The first token that differs."""
        return self.forks[0].at + 1


def _parting(
    document: Document,
    tokenizer: Any,
    question: Question,
    known: dict[tuple[Any, ...], _Parting],
) -> _Parting:
    """Where the candidates of a question part, each put in the place of the answer."""
    text, asked, answer = document.text, question.asked, question.candidates[question.right]
    line, end = text.rfind("\n", 0, asked) + 1, asked + len(answer)
    lead, rest = text[max(line, asked - AROUND) : asked], text[end : end + AROUND]
    key = (question.candidates, question.right, lead[-2:], rest[:2])
    if key not in known:
        known[key] = _parted(document, tokenizer, question, lead, rest)
    return known[key]


def _parted(
    document: Document, tokenizer: Any, question: Question, lead: str, rest: str
) -> _Parting:
    every = [
        tokenizer(lead + each + rest, add_special_tokens=False, return_offsets_mapping=True)
        for each in question.candidates
    ]
    right = every[question.right]
    true, begin = right["input_ids"], _token([s for s, _ in right["offset_mapping"]], len(lead))
    alike = [each["input_ids"] for n, each in enumerate(every) if n != question.right]
    forks, last = [], 0
    for place, token in enumerate(true):
        if not alike or min(map(len, alike)) <= place:
            break
        if others := tuple(sorted({ids[place] for ids in alike} - {token})):
            forks.append(Fork(place - begin - 1, token, others))
            last = place
        alike = [ids for ids in alike if ids[place] == token]
    if alike:
        words = ", ".join(question.candidates)
        raise _unfit(document, f"does not tell these apart: {words}")
    first = forks[0].at + 1 + begin
    return _Parting(tuple(forks), tuple(true[first : last + 1]))


def _token(starts: list[int], place: int) -> int:
    """The token that the character at ``place`` is in."""
    return bisect_left(starts, place + 1) - 1


def _unfit(document: Document, why: str) -> UsageError:
    return UsageError(
        f"{document.name}: the model's tokenizer {why}, so that no answer can be scored: choose "
        "another --model, or a --dataset without questions."
    )
