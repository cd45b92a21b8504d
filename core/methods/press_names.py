"""The presses of the installed kvpress by name, and what the method ``kvpress:NAME`` is.

Names and sinks are read from the package's source, since importing it takes torch and seconds.
Whether a press can be had, and what options it has, only ``core.methods.press_trial`` tells.
"""

from __future__ import annotations

import ast
import colorsys
import hashlib
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from core.errors import UsageError, unknown
from core.extras import INSTALL
from core.registry import Look, MethodSpec

PACKAGE, PREFIX = "kvpress", "kvpress:"
SYMBOLS = (
    *("circle-dot", "square-dot", "diamond-dot", "cross-dot", "x-dot", "star-dot", "hexagram"),
    *("star-square", "star-triangle-up", "pentagon-dot", "octagon-dot", "diamond-tall"),
)
DASHES = ("solid", "dash", "dashdot", "longdash", "2px,4px", "9px,2px,2px,2px", "5px,5px")
HATCHES = ("/", "\\", "x", "-", "|", "+", ".")
# What presses equal. Of keys that score alike any may go in the package, so that few equal a loop.
REFERENCES = {"StreamingLLMPress": "core.proof.reference:streaming"}


def names() -> tuple[str, ...]:
    """The presses that the package exports, in alphabetical order; none where it is not there."""
    return tuple(sorted(_sources()))


def check(name: str) -> None:
    """Refuse a name that is none of the installed package's.

    Args:
        name: Of the method, ``kvpress:PRESS``.

    Raises:
        UsageError: No such press, or no package.
    """
    if not names():
        raise UsageError(f"method {name!r} needs the package {PACKAGE}: {INSTALL}.")
    if (press := name.removeprefix(PREFIX)) not in names():
        near = get_close_matches(press, names(), n=3, cutoff=0)
        raise unknown("press of kvpress", press, near, "or another one of docs/presses.md")


def spec(name: str) -> MethodSpec:
    """What the method ``kvpress:PRESS`` is, whether or not the package is there."""
    press = name.removeprefix(PREFIX)
    try:
        package = f"{PACKAGE}=={version(PACKAGE)}"
    except PackageNotFoundError:
        package = ""
    return MethodSpec(
        name=name,
        where=f"core.methods.presses:{press}",
        words=f"kvpress's {press} after every token",
        memory="fills",
        budget="sinks and window" if has_sinks(press) else "window",
        evict_every=1,
        reference=REFERENCES.get(press, ""),
        exact=press in REFERENCES,
        needs=PACKAGE,
        own_weights=press not in REFERENCES,
        parameters=f"core.methods.press_trial:{press}",
        look=look(press),
        package=package,
    )


def look(press: str) -> Look:
    """How figures draw a press: by its name alone, so everywhere alike."""
    drawn = int(hashlib.sha256(press.encode()).hexdigest()[:12], 16)
    hue, drawn = drawn % 360, drawn // 360
    red, green, blue = colorsys.hls_to_rgb(hue / 360, 0.36 + 0.1 * (drawn % 2), 0.6)
    colour = f"#{round(255 * red):02X}{round(255 * green):02X}{round(255 * blue):02X}"
    symbol, dash, hatch = (each[drawn // 2 % len(each)] for each in (SYMBOLS, DASHES, HATCHES))
    return Look(colour, symbol, dash, hatch)


@cache
def has_sinks(press: str) -> bool:
    """Whether it keeps the first ``n_sink`` tokens, so that S is for it to know."""
    found = _sources().get(press)
    if found is None:
        return False
    tree = ast.parse(found.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == press:
            own = {
                ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign)
            }
            return "n_sink" in own or any(has_sinks(ast.unparse(base)) for base in node.bases)
    return False


@cache
def _sources() -> dict[str, Path]:
    """The file of each press that the package exports."""
    package = find_spec(PACKAGE)
    if package is None or not package.origin:
        return {}
    root = Path(package.origin)
    tree = ast.parse(root.read_text(encoding="utf-8"))
    return {
        each.asname or each.name: root.parents[1] / f"{node.module.replace('.', '/')}.py"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for each in node.names
        if (each.asname or each.name).endswith("Press")
    }
