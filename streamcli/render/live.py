"""What a model writes, as it writes it: text to stdout, the state of the stream to stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from streamcli import harmless
from streamcli.render.output import plain

readline: ModuleType | None = None
with suppress(ImportError):  # not on Windows; where it is, ``input`` lets a line be edited
    import readline

PROMPT = "> "
HOW = "Ctrl-C ends an answer; Ctrl-D, /exit or Ctrl-C at an empty prompt ends the chat"
PARTS = re.compile(r"\n|[^\S\n]+|\S+")


class Screen:
    """Where turns are shown.

    Args:
        as_json: Whether a turn is one JSON object and nothing else.
        budget: Keys that are held at most; None where they grow with the stream.
    """

    def __init__(self, *, as_json: bool, budget: int | None) -> None:
        self.as_json, self.budget = as_json, budget
        self.words = Console(stderr=True, highlight=False)
        self.lines = Lines(Console().width) if sys.stdout.isatty() else None
        self.typed = ""  # what stood in the line when Ctrl-C came

    def piece(self, text: str) -> None:
        """The next piece of what the model writes; a terminal shows it, and never obeys it."""
        if not self.as_json:
            shown = self.lines.add(harmless.visible(text)) if self.lines else text
            print(shown, end="", flush=True)

    def turn(self, values: Mapping[str, Any]) -> None:
        """What a turn gave in the end, by name."""
        if self.as_json:
            print(json.dumps({name: plain(value) for name, value in values.items()}), flush=True)
            return
        if self.lines:
            print(self.lines.end(), end="")
            self.lines.width = Console().width  # the window may have another size by now
        print(flush=True)
        if self.words.is_terminal:
            self.words.print(Text(status(values, self.budget), style="dim"))

    def greet(self, model: str) -> None:
        """What a person who is at a terminal must know."""
        if self.words.is_terminal:
            held = f"{self.budget:,} keys" if self.budget else "all keys"
            self.words.print(Text(f"{model} holds {held} of the stream. {HOW}.", style="dim"))

    def asks(self) -> Iterator[str]:
        """What a person types, line by line, until there is no more.

        Ctrl-C in a line takes the line back; at an empty prompt it is the end.
        """
        while True:
            self.words.print()
            try:
                line = self._line()
            except KeyboardInterrupt:
                if self.typed:
                    self.words.print()
                    continue
                line = ""
            if not line:
                self.words.print()
                return
            yield line.rstrip("\n")

    def look(self) -> None:
        """Note what stands in the line that is being typed; it is gone when an exception comes."""
        self.typed = readline.get_line_buffer() if readline else ""

    def _line(self) -> str:
        """The next line, its end included; nothing where there is none."""
        if sys.stdout.isatty():
            with suppress(EOFError):
                return input(PROMPT) + "\n"
            return ""
        self.words.print(PROMPT, end="")
        return sys.stdin.readline()


class Lines:
    """Text in lines of a terminal, broken between words; comes in pieces, goes on as it can.

    Args:
        width: Columns of the terminal.
    """

    def __init__(self, width: int) -> None:
        self.width, self.column, self.space, self.word = width, 0, "", ""

    def add(self, text: str) -> str:
        """What can be shown now: all but the last word, which may go on."""
        shown = ""
        for part in PARTS.findall(text):
            if part == "\n":
                shown += self._placed() + part
                self.column, self.space = 0, ""
            elif part.isspace():
                shown += self._placed()
                self.space += part
            else:
                self.word += part
        return shown

    def end(self) -> str:
        """The last word; the next text begins a line."""
        last = self._placed()
        self.column, self.space = 0, ""
        return last

    def _placed(self) -> str:
        """The word, on this line or the next."""
        if not self.word:
            return ""
        size, gap = cell_len(self.word), self.space
        if self.column and self.column + cell_len(gap) + size > self.width:
            gap, self.column = "\n", 0
        else:
            self.column += cell_len(gap)
        self.column = (self.column + size - 1) % self.width + 1
        shown, self.space, self.word = gap + self.word, "", ""
        return shown


def status(values: Mapping[str, Any], budget: int | None) -> str:
    """Speed, keys and tokens of a turn, in a line."""
    held = f"{values['keys_held']:,}" + (f" of {budget:,}" if budget else "")
    ended = {"interrupted": "stopped; ", "max_new_tokens": "cut at --max-new-tokens; "}
    return (
        f"{ended.get(values['stop_reason'], '')}{values['tokens_per_s']:.1f} tokens/s, "
        f"{held} keys held, {values['stream_tokens']:,} tokens in all"
    )
