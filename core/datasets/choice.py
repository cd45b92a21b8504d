"""``choice``: a stream of questions, each followed by its true answer, of several options.

As in Xiao et al., arXiv 2309.17453, section 4.3 and Table 5, where the questions of ARC are one
stream: round after round a question comes in, its answer is asked for, and the true one goes into
the stream before the next. ``choice-alone`` asks the same questions each in a stream of its own,
which is what the paper calls one-shot.

Deviations, so that small models can do it: the paper shows a chat model the options, lets it write
and looks for an exact match. Here the options are not shown, as in the usual form of ARC for base
models, and their words, not letters, are held apart as ``core.questions`` has it. Of SmolLM2-135M,
which answers 63 % of the bundled questions so, each alone, 21 % were right where options were
shown, which is less than guessing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from core import paths
from core.datasets import files
from core.datasets.base import Corpus, Document, Question
from core.errors import UsageError
from core.hashing import sha256
from core.packaged import bundled

FILE = "choice.jsonl"
ROW = "a line is an object of question (one line of text), choices (two or more) and answer (one)"


@dataclass(frozen=True)
class Round:
    """A question, its options, and which of them is right."""

    question: str
    choices: tuple[str, ...]
    right: int

    @property
    def asks(self) -> str:
        """What comes in before the answer."""
        return f"Question: {self.question}\nAnswer: "


def read(spec: str, source: str) -> Corpus:
    """``choice``, the bundled questions, or ``choice:FILE.jsonl``: one stream of all.

    ``source`` does not matter: the questions are here.

    Raises:
        UsageError: There is no such file, or a line of it is no question.
    """
    rounds, path = _rounds(spec)
    form = f"{len(rounds):,} questions of {path.name}, each with its answer after it, one stream"
    return Corpus(spec, form, [document(path.stem, rounds)], sha256([path]))


def alone(spec: str, source: str) -> Corpus:
    """``choice-alone`` or ``choice-alone:FILE.jsonl``: each question is a stream of its own.

    Raises:
        UsageError: As ``read``.
    """
    rounds, path = _rounds(spec)
    form = f"{len(rounds):,} questions of {path.name} and their answers, each a stream of its own"
    documents = (document(f"question {n}", [each]) for n, each in enumerate(rounds, start=1))
    return Corpus(spec, form, documents, sha256([path]))


def document(name: str, rounds: list[Round]) -> Document:
    """The rounds end to end."""
    parts: list[str] = []
    questions: list[Question] = []
    length = 0
    for each in rounds:
        length += len(each.asks)
        questions.append(Question(None, length, each.right, each.choices))
        parts += each.asks, f"{each.choices[each.right]}\n\n"
        length += len(parts[-1])
    return Document(name, "".join(parts), tuple(questions))


def _rounds(spec: str) -> tuple[list[Round], Path]:
    name, colon, part = spec.partition(":")
    path = paths.path(part) if colon else bundled(FILE)
    if path.suffix != ".jsonl":
        raise UsageError(f"{spec!r}: after {name}: comes a .jsonl file; {ROW}.")
    if not path.is_file():
        raise UsageError(f"there is no file {path}.")
    lines = files.read_text(path).split("\n")
    rounds = [_round(line, f"{path}: line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    return rounds, path


def _round(line: str, where: str) -> Round:
    """One line as a question.

    Raises:
        UsageError: It is none.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON ({error}): {ROW}.") from error
    found = row if isinstance(row, dict) else {}
    question, answer = _words(found.get("question")), _words(found.get("answer"))
    given = found.get("choices")
    choices = [_words(each) for each in given] if isinstance(given, list) else []
    why = ""
    if not question:
        why = "has no question"
    elif len(choices) < 2 or not all(choices):
        why = "has no choices"
    elif len(set(choices)) < len(choices):
        why = "has a choice twice"
    elif answer not in choices:
        why = f"has the answer {found.get('answer')!r}, which is none of its choices"
    if why:
        raise UsageError(f"{where} {why}: {ROW}.")
    return Round(question, tuple(choices), choices.index(answer))


def _words(value: object) -> str:
    """A text of one line, without blanks around it; empty where it is none."""
    text = value.strip() if isinstance(value, str) else ""
    whole = text.encode(errors="replace").decode() == text  # no half of a surrogate pair
    return text if whole and len(text.splitlines()) == 1 else ""
