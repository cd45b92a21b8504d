"""Questions of a text as questions of its tokens: where they are asked, and what is held apart.

Candidates are told apart by their first token that differs, so an answer is scored by the logits
that a stream has there anyway: no stream is disturbed, and none is copied.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from core.datasets.base import Document
from core.errors import UsageError
from core.result import Answer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenQuestion:
    """A question of a stream.

    Attributes:
        told: Token of the answer where it was told last.
        at: Token after which it is asked for, whose query predicts it.
        right: Which of the candidates it is.
        candidates: The token id of each.
    """

    told: int
    at: int
    right: int
    candidates: tuple[int, ...]

    @property
    def distance(self) -> int:
        """d, tokens from the told answer to the query: a window of W keys holds it if d <= W."""
        return self.at - self.told

    def answered(self, logits: Tensor) -> Answer:
        """The answer of logits (V,): right where its candidate's is higher than every other's."""
        found = logits[list(self.candidates)].float()
        others = found[[n for n in range(len(found)) if n != self.right]]
        right = bool(found[self.right] > others.max())
        return Answer(distance=self.distance, candidates=len(found), right=right)

    def moved(self, by: int) -> TokenQuestion:
        """The same in a stream that has ``by`` more tokens before it."""
        return replace(self, told=self.told + by, at=self.at + by)


def placed(document: Document, tokenizer: Any, skip: int) -> tuple[TokenQuestion, ...]:
    """The questions of a document among the tokens of its text, without the first ``skip``.

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
    known: dict[tuple[str, ...], tuple[int, ...]] = {}
    questions = []
    for each in document.questions:
        if each.candidates not in known:
            known[each.candidates] = _first_tokens(document, tokenizer, each.candidates, each.asked)
        told, asked = (_token(starts, place) for place in (each.told, each.asked))
        candidates = known[each.candidates]
        if not ids[told] == ids[asked] == candidates[each.right]:
            answer = each.candidates[each.right]
            raise _unfit(document, f"makes no token of its own where {answer!r} begins")
        questions.append(TokenQuestion(told, asked - 1, each.right, candidates).moved(-skip))
    return tuple(question for question in questions if question.told >= 0)


def asked_in(questions: Sequence[TokenQuestion], start: int, stop: int) -> Sequence[TokenQuestion]:
    """Those of a stream's questions, in order, that are asked after the tokens start to stop."""
    first, last = (bisect_left(questions, end, key=lambda each: each.at) for end in (start, stop))
    return questions[first:last]


def _token(starts: list[int], place: int) -> int:
    """The token that the character at ``place`` is in."""
    return bisect_left(starts, place + 1) - 1


def _first_tokens(
    document: Document, tokenizer: Any, candidates: tuple[str, ...], asked: int
) -> tuple[int, ...]:
    """The ids by which the tokenizer tells the candidates apart, behind the text before them."""
    line = document.text.rfind("\n", 0, asked) + 1
    lead = document.text[max(line, asked - 40) : asked]
    every = [tokenizer(lead + each, add_special_tokens=False)["input_ids"] for each in candidates]
    shortest = min(map(len, every))
    same = (len({ids[place] for ids in every}) == 1 for place in range(shortest))
    first = next((place for place, alike in enumerate(same) if not alike), shortest)
    found = tuple(ids[first] for ids in every if len(ids) > first)
    if len(set(found)) < len(candidates):
        words = ", ".join(candidates)
        raise _unfit(document, f"does not tell these apart by one token: {words}")
    return found


def _unfit(document: Document, why: str) -> UsageError:
    return UsageError(
        f"{document.name}: the model's tokenizer {why}, so that no answer can be scored: choose "
        "another --model, or a --dataset without questions."
    )
