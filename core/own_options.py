"""Options that one method alone has: what they are, and the values that a run gives them.

They are the fields of the dataclass that the method's spec names (``MethodSpec.parameters``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from core import registry
from core.errors import UsageError, unknown
from core.option import KINDS, typed

READ = (str, int, float, bool)  # the kinds of values
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parameters(name: str) -> dict[str, Any]:
    """The options that the method ``name`` alone has, each with its default.

    Raises:
        UsageError: No such method, or one of its options has no default that tells its kind.
    """
    where = registry.method(name).parameters
    found = {each.name: each.default for each in fields(registry.imported(where))} if where else {}
    for each, default in found.items():
        if type(default) not in READ:
            raise UsageError(
                f"param {each!r} of {name!r} has no default that is text, a number or true or "
                "false, by which a value is read: give it one in the method's dataclass."
            )
    return found


def settled(name: str, given: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Every option that the method alone has, in order: as given, or by default.

    Args:
        name: The method.
        given: Values by name; text is read as what the option's default is.

    Raises:
        UsageError: It has no such option, or a value is of the wrong kind or not allowed.
    """
    return tuple(_settled(name, given))


def to_prove(name: str) -> list[tuple[tuple[str, Any], ...]]:
    """What a method is proved under: its options by default, and what its dataclass says ``also``.

    Raises:
        UsageError: No such method.
    """
    where = registry.method(name).parameters
    also = getattr(registry.imported(where), "also", ()) if where else ()
    return [settled(name, given) for given in ({}, *also)]


def _settled(name: str, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    known = parameters(name)
    for each in given:
        if each not in known:
            if not known:
                raise UsageError(f"param {each!r}: {name!r} has no options of its own.")
            raise unknown(f"option of {name!r}", each, known)
    values = {
        each: _typed(each, given.get(each, default), default) for each, default in known.items()
    }
    if known:
        try:
            made: Any = registry.imported(registry.method(name).parameters)
            made(**values)  # which may refuse one
        except ValueError as error:
            raise UsageError(f"{name!r}: {error}.") from error
    yield from sorted(values.items())


def _typed(name: str, value: Any, default: Any) -> Any:
    kind = type(default)
    if not isinstance(value, str):
        return typed(name, value, kind)
    try:
        return WORDS[value.lower()] if kind is bool else kind(value)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{name} is {value!r}: it must be {KINDS[kind]}.") from error
