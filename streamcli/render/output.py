"""Where text goes: data to stdout or a file, words to stderr."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from core.errors import UsageError
from streamcli import files, harmless
from streamcli.analysis.comparison import Comparison, in_order, rows_of
from streamcli.render import overview, tables, terminal_tables

if TYPE_CHECKING:
    import pandas as pd


PIPE_WIDTH = 500  # a table takes what it needs of it


def say(text: str) -> None:
    """One line for the person, on stderr."""
    print(f"streamcli: {harmless.line(text)}", file=sys.stderr)


def say_recorded(place: str, flag: str | None) -> None:
    """Where the rows are, and what to type next; ``flag`` is the value of --db, if it was given.

    A URL is shown as ``place`` names it, without its password.
    """
    there = f" --db {shlex.quote(place if '://' in flag else flag)}" if flag else ""
    say(f"recorded in {place}; next: streamcli report{there}")


def wide_console(to: IO[str] | None = None, piped: int = PIPE_WIDTH) -> Console:
    """A console as wide as its terminal; ``piped`` columns where it is none."""
    console = Console(file=to)
    return console if console.is_terminal else Console(width=piped, file=to)


def page(sheet: tables.Sheet, to: IO[str] | None = None) -> None:
    """One table and its notes; on a narrow terminal the table closes up, but stays whole."""
    console = wide_console(to)
    ascii_only = console.options.ascii_only
    plain = None if ascii_only else terminal_tables.set_plainly(sheet, console.width)
    if sheet.title:
        console.print(Text(sheet.title, style="bold"))
    if plain:
        above, below = plain
        console.print(Text("\n".join(above), style="bold"), crop=False, soft_wrap=True)
        console.file.write("".join(f"{line}\n" for line in below))
        notes = sheet.notes
    else:
        table, width, notes = terminal_tables.fitted(sheet, console.width)
        whole = Console(file=to, width=width, height=console.height)  # or it heeds no width
        whole.print(table, width=width, crop=False)
    for note in notes:
        console.print(Text(note, style="dim"))
    console.print()


def pages(
    sheets: Sequence[tables.Sheet],
    to: IO[str] | None = None,
    above: tables.Sheet | None = None,
) -> None:
    """Tables one after the other, under one over all of them; of several, the notes stand last."""
    apart, shared = tables.together(sheets)
    for sheet in [above, *apart] if above else apart:
        page(sheet, to)
    if shared:
        console = wide_console(to)
        console.print(f"[bold]{tables.SHARED_TITLE}[/bold]")
        for note in shared:
            console.print(Text(note, style="dim"))
        console.print()


def terminal(found: list[Comparison]) -> None:
    """Every comparison as a table, and of several an overview."""
    first = overview.section(found)
    sheets = []
    for comparison in in_order(found):
        by_distance = tables.distances_sheet(comparison)
        sheets += [tables.sheet(comparison), *([by_distance[0]] if by_distance else [])]
    pages(sheets, above=first.sheet if first else None)


def passing(text: str) -> None:
    """A sign of life on a terminal's stderr, overwritten by the next one."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def doing(text: str) -> None:
    """What takes a while: passing on a terminal, a line each elsewhere; empty when all is done."""
    if sys.stderr.isatty():
        passing(text)
    elif text:
        say(f"{text} ...")


def json_lines(runs: pd.DataFrame) -> None:
    """Each run as one JSON object whose keys are the column names, one a line."""
    for row in rows_of(runs):
        print(json.dumps({name: plain(value) for name, value in row.items()}))


def plain(value: Any) -> Any:
    """A value that JSON has; what is missing, or no number, is null."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return None if type(value).__name__ == "NAType" else value


def read(path: Path) -> str:
    """The text of a file, its line ends as they are.

    Raises:
        UsageError: It is not there, no file, or no UTF-8.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {getattr(error, 'strerror', error)}.") from error


def typed(words: str, what: str) -> str:
    """Words from the command line, as they are.

    Raises:
        UsageError: They are no UTF-8, which Python lets pass.
    """
    try:
        words.encode()
    except UnicodeError as error:
        raise UsageError(f"{what} can't be read: {error}.") from error
    return words


def piped() -> str:
    """All that comes by a pipe.

    Raises:
        UsageError: It is no UTF-8.
    """
    return "".join(piped_lines())


def piped_lines() -> Iterator[str]:
    """What comes by a pipe, line by line as it comes, with the line ends.

    Raises:
        UsageError: It is no UTF-8.
    """
    try:
        for line in sys.stdin:
            line.encode()  # Python may have let bytes pass that are none
            yield line
    except UnicodeError as error:
        raise UsageError(f"the piped text can't be read: {error}.") from error


def write(path: Path, text: str) -> None:
    """Put ``text`` in a file as it is, whole or not at all; its permissions stay.

    Raises:
        UsageError: It can't be written.
        StreamError: The disk is full.
    """
    target = Path(os.path.realpath(path))
    if os.path.isdir(target):
        raise UsageError(f"{path} is a folder: name a file in it, such as {path / 'report.html'}.")
    if not os.path.isdir(target.parent):
        raise UsageError(f"{path} can't be written: there is no folder {target.parent}.")
    with files.replaced(path) as file:
        file.write(text.encode())
