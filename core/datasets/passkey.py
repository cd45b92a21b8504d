"""``passkey``: a number told once in filler, at some depth, and asked for at the end.

As in Mohtashami and Jaggi (arXiv 2305.16300, section 4.2), made by rule, and with one word of ten
for the number, so that it is scored as ``recall`` is. A document has one question; its depth is
a multiple of the golden ratio, less whole ones, so that any first few documents cover all depths.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from core.datasets.base import Corpus, Document, Question
from core.datasets.recall import ADJECTIVES, NOUNS, NUMBERS, number
from core.errors import UsageError

DOCUMENTS, WORDS = 64, 500
GOLDEN = (math.sqrt(5) - 1) / 2
KEY, NOTE = "The pass key is ", " Remember it."


def read(spec: str, source: str) -> Corpus:
    """``passkey`` or ``passkey:WORDS``, words of filler. ``source`` does not matter.

    Raises:
        UsageError: The number of words is none.
    """
    words = number(spec, WORDS, "passkey:2000 for 2,000 words of filler")
    if not words:
        raise UsageError(f"{spec!r}: it needs a word of filler or more.")
    form = f"made by rule, {words:,} words of filler, a number told in it and asked for at the end"
    return Corpus(spec, form, _documents(words))


def _documents(words: int) -> Iterator[Document]:
    for place in range(DOCUMENTS):
        yield document(words, (place + 1) * GOLDEN % 1, random.Random(f"passkey {place}"))


def document(words: int, depth: float, draw: random.Random) -> Document:
    """Filler of so many words or a few more, the number told after ``depth`` of it."""
    filler: list[str] = []
    used = 0
    while used < words:
        adjective, noun, other = draw.choice(ADJECTIVES), *draw.sample(NOUNS, 2)
        filler.append(f"The {adjective} {noun} is near the {other}.")
        used += len(filler[-1].split())
    right = draw.randrange(len(NUMBERS))
    filler.insert(round(depth * len(filler)), f"{KEY}{NUMBERS[right]}.{NOTE}")
    text = " ".join([*filler, f"{KEY}{NUMBERS[right]}."])
    places = text.index(KEY) + len(KEY), text.rindex(KEY) + len(KEY)
    return Document(f"depth {depth:.0%}", text, (Question(*places, right, NUMBERS),))
