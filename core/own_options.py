"""Options that one method alone has: what they are, and the values that a run gives them.

They are the fields of the dataclass that the method's spec names (``MethodSpec.parameters``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from core import registry
from core.errors import UsageError, unknown


def parameters(name: str) -> dict[str, Any]:
    """The options that the method ``name`` alone has, each with its default.

    Raises:
        UsageError: No such method.
    """
    where = registry.method(name).parameters
    return {each.name: each.default for each in fields(registry.imported(where))} if where else {}


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
    kind: Any = type(default)
    if type(value) is kind:
        return value
    allowed = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        return allowed[str(value).lower()] if kind is bool else kind(value)
    except (KeyError, ValueError, TypeError) as error:
        what = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "text")
        raise UsageError(f"{name} is {value!r}: it must be {what}.") from error
