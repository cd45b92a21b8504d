"""Marked blocks of a Markdown file, which a report rewrites; every other byte stays.

A block is what stands between two lines of their own, outside fenced code::

    <!-- streamcli:begin results mode=decode-loop -->
    <!-- streamcli:end results -->

The first word says what goes in: ``results``, the tables of a report, ``words``, its conclusions,
``compare``, the tables of ``streamcli compare``, or ``bench``, a benchmark that was recorded. The
others are options of that command, without the dashes (``baseline=window across-budgets=yes``,
``show=01ABC``); ``columns=ppl,verdict`` chooses columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from core.errors import UsageError, unknown

KINDS = ("results", "words", "compare", "bench")
MARKER = re.compile(r"[ \t]*<!--[ \t]*streamcli:(\w+)[ \t]*(.*?)[ \t]*-->[ \t]*\r?\n?")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
EXAMPLE = "<!-- streamcli:begin results --> and <!-- streamcli:end results -->, each on a line"


def update(text: str, fill: Callable[[str, str], str], name: str) -> str:
    """The text with every block filled anew.

    Args:
        text: The file's text, line ends as they are.
        fill: Gives a block's Markdown, from its kind and the options after it.
        name: How errors name the file.

    Raises:
        UsageError: No markers, or some that don't pair, or whose kind is unknown.
    """
    out: list[str] = []
    begun: _Begun | None = None
    found = False
    for number, line, marked in _lines(text):
        where = f"{name} line {number}"
        if marked is None:
            out += [] if begun else [line]
        elif marked[1] == "begin":
            begun, found = _begin(marked[2], begun, number, where), True
            out.append(line)
        elif marked[1] == "end":
            kind = marked[2].partition(" ")[0]
            if begun is None or kind != begun.kind:
                state = f"the open block is {begun.kind!r}" if begun else "no block is open"
                raise UsageError(f"{where} ends a block {kind!r}, but {state}.")
            end = "\r\n" if out[-1].endswith("\r\n") else "\n"
            filled = fill(begun.kind, begun.options).strip().replace("\n", end)
            out += [end, filled, end, end, line]
            begun = None
        else:
            raise UsageError(f"{where}: streamcli:{marked[1]} is no marker: write begin or end.")
    if begun:
        raise UsageError(f"{name} line {begun.line}: the block never ends: {_closing(begun)}.")
    if not found:
        raise UsageError(f"{name} has no block to rewrite: put in {EXAMPLE} of its own.")
    return "".join(out)


@dataclass(frozen=True)
class _Begun:
    """A block whose end is still to come."""

    line: int
    kind: str
    options: str


def _begin(words: str, open_: _Begun | None, number: int, where: str) -> _Begun:
    kind, _, options = words.partition(" ")
    if open_:
        raise UsageError(f"{where}: the block of line {open_.line} is open: {_closing(open_)}.")
    if kind not in KINDS:
        raise unknown(f"block in {where}", kind, KINDS)
    return _Begun(number, kind, options.strip())


def _closing(begun: _Begun) -> str:
    return f"end it with <!-- streamcli:end {begun.kind} --> on a line of its own"


def _lines(text: str) -> Iterator[tuple[int, str, re.Match[str] | None]]:
    """Each line with its number and the marker on it, if it is one and not in fenced code."""
    fence = ""
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        marked = None if fence else MARKER.fullmatch(line)
        if fenced := FENCE.match(line):
            fence = _after(fence, fenced[1], line)
        yield number, line, marked


def _after(fence: str, mark: str, line: str) -> str:
    """The fence that is open after a line that begins with ``mark``; none is the empty text."""
    if not fence:
        return mark
    closes = mark.startswith(fence) and not line.strip().strip(mark[0])
    return "" if closes else fence
