"""What is known of an option, at its field of a dataclass; how fields are read and checked by it.

Flags, variables, lists of a sweep and docs/ are made from what stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields
from functools import cache
from operator import index
from types import UnionType
from typing import Any, get_args, get_type_hints

from core.errors import UsageError, unknown

KINDS: dict[type, str] = {  # of values, and what they are called
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "pairs of a name and a value",
}


def typed(name: str, value: Any, kind: type) -> Any:
    """``value`` as it is kept in an option of a kind, such as 1 as 1.0; nothing is rounded or read.

    Raises:
        UsageError: It is of another kind.
    """
    is_number = not isinstance(value, (bool, str))
    try:
        if type(value) is kind and kind is not tuple:
            return value
        if kind is tuple:
            return tuple((each, what) for each, what in value)
        if kind is int and is_number:
            return index(value)
        if kind is float and is_number:
            return float(value)
    except (TypeError, ValueError):
        pass  # what it is and must be is said below
    raise UsageError(f"{name} is {value!r}: it must be {KINDS[kind]}.")


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is known of an option of a run, beside its type and default.

    Attributes:
        words: What it is, for help and for .env.example.
        group: The panel of the help that it stands in.
        otherwise: What it is where it is left open, in words.
        choices: The names that it may be, and that help lists.
        check: Refuses a name, where it may be others than those; else ``choices`` are all.
        least: The smallest number that it may be.
        most: The largest.
        least_words: What the smallest number means, in brackets.
        several: What its list is called, in a sweep; empty where a sweep has one value.
        flag: Its flag, where that is not its name.
        reads: Whether it decides which tokens are read.
    """

    words: str
    group: str
    otherwise: str = ""
    choices: Callable[[], Iterable[str]] | None = None
    check: Callable[[str], None] | None = None
    least: float | None = None
    most: float | None = None
    least_words: str = ""
    several: str = ""
    flag: str = ""
    reads: bool = False


def option(default: Any, group: str, words: str, **facts: Any) -> Any:
    """A field of a dataclass that is an option, with what ``Option`` says of it."""
    return field(default=default, metadata={"option": Option(group=group, words=words, **facts)})


@dataclass(frozen=True)
class KnownOption:
    """A field of ``RunConfig`` or its like, with everything that is known of it.

    Attributes:
        name: Its name.
        kind: The type of its values, ``str``, ``int``, ``float``, ``bool`` or ``tuple``.
        default: Its default; None where it is settled later.
        about: The rest.
    """

    name: str
    kind: type
    default: Any
    about: Option

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def words(self) -> str:
        """What it is, with the names that it may be."""
        choices = self.about.choices
        return self.about.words.format(", ".join(choices())) if choices else self.about.words

    @property
    def default_words(self) -> str:
        """What it is where it is not given."""
        if self.kind is bool:
            return "yes" if self.default else "no"
        return self.about.otherwise or str(self.default if self.default != () else "none")

    def typed(self, value: Any) -> Any:
        """``value`` as it is kept; None where it is left open. ``UsageError`` where it can't be."""
        if value is None and self.default is None:
            return None
        return typed(self.name, value, self.kind)

    def check(self, value: Any) -> None:
        """Raise ``UsageError`` where a value is out of bounds or no choice."""
        about = self.about
        if about.check:
            about.check(value)
        elif about.choices and value is not None and value not in about.choices():
            raise unknown(self.name, value, about.choices())
        if value is None:
            return
        if about.least is not None and not value >= about.least:  # nan is refused too
            more = f" ({about.least_words})" if about.least_words else ""
            raise UsageError(f"{self.name} is {value}: it must be {about.least} or more{more}.")
        if about.most is not None and not abs(value) <= about.most:
            raise UsageError(f"{self.name} is {value}: it must be {about.most:,} or less.")


@cache
def options_of(kind: type) -> tuple[KnownOption, ...]:
    """Every option that a dataclass describes, in order."""
    hints = get_type_hints(kind)
    return tuple(
        KnownOption(each.name, _plain(hints[each.name]), each.default, _about(each))
        for each in fields(kind)
    )


def check(asked: Any) -> None:
    """Keep every option of a dataclass as the kind that it is.

    Raises:
        UsageError: One is of another kind, out of bounds or no choice.
    """
    kind: type = type(asked)
    for each in options_of(kind):
        value = each.typed(getattr(asked, each.name))
        each.check(value)
        object.__setattr__(asked, each.name, value)  # it is frozen


def _about(each: Field[Any]) -> Option:
    about: Option = each.metadata["option"]
    return about


def _plain(hint: Any) -> type:
    """``int`` of ``int | None``."""
    kind: Any = get_args(hint)[0] if isinstance(hint, UnionType) else hint
    plain: type = getattr(kind, "__origin__", kind)
    return plain
