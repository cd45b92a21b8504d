"""The text of a stream of tokens, as far as it is certain.

Knows nothing of where tokens come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CUT = "\ufffd"  # what bytes that are no whole character are decoded to
CONTEXT = 8  # tokens before the first: a tokenizer may drop the space before a text
PATIENCE = 8  # tokens that may wait for the rest of a character, none of which takes more


class Spelled:
    """Takes tokens one by one, and gives their text back as soon as nothing can change it.

    Args:
        tokenizer: The model's.
        before: Tokens that stand before the first one.
        stop: Words at which the text ends; they are no part of it.
        strip: Whether white space before the first visible character is left off.
    """

    def __init__(
        self, tokenizer: Any, before: Sequence[int], stop: str = "", *, strip: bool = False
    ) -> None:
        self.tokenizer, self.stop, self.strip = tokenizer, stop, strip
        self.ids = list(before[-CONTEXT:])
        self.told = len(self.ids)  # of these tokens the text was given
        self.held = ""  # text that may be the beginning of ``stop``
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain since the next token came."""
        self.ids.append(token)
        text = self._text(self.ids)
        if text.endswith(CUT) and len(self.ids) - self.told < PATIENCE:
            return ""
        return self._until_stop(self._take(text))

    def end(self) -> str:
        """The rest of the text: nothing comes after it."""
        rest = self.held + self._take(self._text(self.ids))
        self.held = ""
        return "" if self.stopped else rest

    def _take(self, text: str) -> str:
        """What is new in ``text``, that of all tokens held; a few stay, to begin with next time."""
        new = text[len(self._text(self.ids[: self.told])) :]
        self.ids = self.ids[self.told :] if self.told < len(self.ids) else self.ids
        self.told = len(self.ids)
        if self.strip:
            new = new.lstrip()
            self.strip = not new
        return new

    def _until_stop(self, new: str) -> str:
        text = self.held + new
        if self.stop and self.stop in text:
            self.stopped, self.held = True, ""
            return text[: text.index(self.stop)]
        ends = (n for n in range(len(self.stop) - 1, 0, -1) if text.endswith(self.stop[:n]))
        cut = len(text) - next(ends, 0)
        self.held = text[cut:]
        return text[:cut]

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
