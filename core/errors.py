"""The one exception family: what can go wrong, in words for the person who asked.

A message is one line that names the bad value, what is allowed and the way out.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LISTED, NEAREST = 60, 6  # names in an error


class StreamError(Exception):
    """Something failed although it was asked rightly (exit code 1)."""

    exit_code = 1


class UsageError(StreamError):
    """What was asked can't be done as it stands (exit code 2)."""

    exit_code = 2


class Interrupted(StreamError):
    """The person or a scheduler stopped it (exit code 130, as shells have it)."""

    exit_code = 130


def unknown(kind: str, name: str, allowed: Iterable[str], hint: str = "") -> UsageError:
    """The error for a name that stands in no table, with the nearest one that does.

    Of more than ``LISTED`` names the nearest stand for all.

    Args:
        kind: What the name should have named, such as ``"method"``.
        name: The name that was given.
        allowed: Every name that would do.
        hint: What else would do, such as ``"or a path to a .txt file"``.
    """
    names = list(allowed)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    also = f", {hint}" if hint else ""
    many = len(names) > LISTED
    shown = get_close_matches(name, names, n=NEAREST, cutoff=0.3) if many else names
    of = f"{len(names)} names, such as " if many else ""
    listed = ", ".join(shown or names[:NEAREST])
    return UsageError(f"unknown {kind} {name!r}: choose one of {of}{listed}{also}.{guess}")
