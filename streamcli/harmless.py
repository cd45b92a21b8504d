"""Text that others wrote, in a form that a terminal, a page or a spreadsheet shows and never obeys.

Names of models, texts and tags, notes, and what a library or a server says when it fails.
"""

from __future__ import annotations

import re
from typing import Any

# Control characters, of which escape sequences are made; what turns text around; lone surrogates.
OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
TAG = re.compile(r"<(?=[A-Za-z/!?])")


def visible(text: str) -> str:
    r"""The text, what a terminal would obey spelled out, such as ``\x1b``; line ends stay."""
    return text if text.isprintable() else OBEYED.sub(_spelled, text)


def line(text: str) -> str:
    """The text so, in one line."""
    return visible(text.replace("\n", " "))


def csv_cell(value: Any) -> Any:
    """A value for CSV; words that a spreadsheet would compute get an apostrophe in front."""
    if not isinstance(value, str):
        return value
    return visible(f"'{value}" if value.startswith(FORMULA) else value)


def markdown(text: str) -> str:
    """Words in Markdown, where what looks like a tag of HTML is shown as it is."""
    return TAG.sub(r"\\<", text)


def _spelled(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
