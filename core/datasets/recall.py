"""``recall``: facts stream in, and each third line asks for one that was told some lines before.

What StreamEval asks (Xiao et al., arXiv 2309.17453, section 4.3 and Figure 9), made by rule from a
seed: lines such as ``river: four``. A question is a line that says a fact again; of the likelihoods
of the ten numbers after its colon the true one must be the highest. How many lines ago it was told
is drawn log-uniformly, from 1 to all there are, so that every doubling of the distance has about as
many questions. No fact is asked for twice, so its distance is that to the one place it was told.

Lines are as short as this so that small models can do it: what they do is copy what followed the
same word before. When every noun was told once, an adjective goes before each, another each round.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Iterator

from core.datasets.base import Corpus, Document, Question
from core.errors import UsageError

DOCUMENTS = 8  # each with a seed of its own
FACTS = 2  # lines that tell a fact before each that asks for one
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ADJECTIVES = (
    *("old", "big", "red", "hot", "new", "dry", "wet", "low", "bad", "good", "dark", "long"),
    *("soft", "cold", "loud", "slow", "rich", "weak", "blue", "green", "short", "round"),
)
_NOUNS = """
apple arm army baby ball bank bath beach bear bed bell bird boat bone book bottle bowl box boy
bread bridge brother bus cake camp car card cat chair chest child church city class clock cloud
coat coin cow cup dance desk doctor dog door dress drum ear earth egg engine eye face farm field
film fire fish floor flower foot forest frame friend fruit game garden gate girl guitar gun hair
hall hand hat head heart hill home horse hotel house island judge key king kitchen knife lake lamp
land leaf leg letter lion lock map market meal milk mirror moon mountain mouse mouth nail name nest
night nose nurse ocean office page pan park path pen phone piano picture pig pipe plane plant plate
pool pot queen radio rain ring river road rock roof room root rope rose sail school sea seat seed
sheep ship shirt shoe shop sister snake snow sock son song soup spoon star station stick stone
store storm street sugar sun sword table tail teacher team tent tooth tower town toy train tree
truck tube uncle van village violin wall watch wheel wife wind window wing wolf woman yard
"""
NOUNS = tuple(_NOUNS.split())


def read(spec: str, source: str) -> Corpus:
    """``recall`` or ``recall:SEED``. ``source`` does not matter: it is made here.

    Raises:
        UsageError: The seed is no whole number.
    """
    seed = number(spec, 0, "recall:7 for the seed 7")
    form = f"made by rule from seed {seed}, a line a fact, every third line asks for one"
    return Corpus(spec, form, _documents(seed))


def number(spec: str, default: int, such: str) -> int:
    """What stands after the colon of a text's name.

    Raises:
        UsageError: It is no whole number.
    """
    _, colon, part = spec.partition(":")
    if colon and not (part.isascii() and part.isdigit() and len(part) < 10):
        raise UsageError(f"{spec!r}: write a whole number after the colon, such as {such}.")
    return int(part) if colon else default


def _documents(seed: int) -> Iterator[Document]:
    for place in range(DOCUMENTS):
        yield document(f"seed {seed}, part {place + 1}", random.Random(f"recall {seed} {place}"))


def document(name: str, draw: random.Random) -> Document:
    """A text of as many facts as there are names for, and the questions in it."""
    lines: list[str] = []
    questions: list[Question] = []
    open_facts: list[tuple[int, int, int, str]] = []  # line, place, right, name: not asked for yet
    length = 0
    for fact in _names(draw):
        right = draw.randrange(len(NUMBERS))
        lines.append(f"{fact}: {NUMBERS[right]}\n")
        open_facts.append((len(lines) - 1, length + len(fact) + 2, right, fact))
        length += len(lines[-1])
        if len(lines) % (FACTS + 1) < FACTS:
            continue
        ago = math.exp(draw.random() * math.log(len(lines)))
        _, told, right, asked = open_facts.pop(_nearest(open_facts, len(lines) - ago))
        questions.append(Question(told, length + len(asked) + 2, right, NUMBERS))
        lines.append(f"{asked}: {NUMBERS[right]}\n")
        length += len(lines[-1])
    return Document(name, "".join(lines), tuple(questions))


def _names(draw: random.Random) -> Iterator[str]:
    """Every noun in a new order, first alone and then after each adjective."""
    for adjective in ("", *draw.sample(ADJECTIVES, len(ADJECTIVES))):
        for noun in draw.sample(NOUNS, len(NOUNS)):
            yield f"{adjective} {noun}".strip()


def _nearest(facts: list[tuple[int, int, int, str]], line: float) -> int:
    """Which of the facts, in order of their lines, was told nearest to a line."""
    after = bisect_left(facts, line, key=lambda fact: fact[0])
    near = [place for place in (after - 1, after) if 0 <= place < len(facts)]
    return min(near, key=lambda place: abs(facts[place][0] - line))
