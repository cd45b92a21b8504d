"""What a model writes, as it writes it: text to stdout, the state of the stream to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from streamcli import harmless
from streamcli.render.output import plain

PROMPT = "> "


class Screen:
    """Where turns are shown.

    Args:
        as_json: Whether a turn is one JSON object and nothing else.
        budget: Keys that are held at most; None where they grow with the stream.
    """

    def __init__(self, *, as_json: bool, budget: int | None) -> None:
        self.as_json, self.budget = as_json, budget
        self.to_person = sys.stdout.isatty()
        self.words = Console(stderr=True, highlight=False)

    def piece(self, text: str) -> None:
        """The next piece of what the model writes."""
        if not self.as_json:
            print(harmless.visible(text) if self.to_person else text, end="", flush=True)

    def turn(self, values: Mapping[str, Any]) -> None:
        """What a turn gave in the end, by name."""
        if self.as_json:
            print(json.dumps({name: plain(value) for name, value in values.items()}), flush=True)
            return
        print(flush=True)
        if self.words.is_terminal:
            self.words.print(Text(status(values, self.budget), style="dim"))

    def asks(self) -> str:
        """The person's next line.

        Raises:
            EOFError: There is none.
        """
        if sys.stdin.isatty() and self.to_person:
            return input(PROMPT)
        self.words.print(PROMPT, end="")
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")


def status(values: Mapping[str, Any], budget: int | None) -> str:
    """Speed, keys and tokens of a turn, in a line."""
    held = f"{values['keys_held']:,}" + (f" of {budget:,}" if budget else "")
    ended = {"interrupted": "stopped; ", "max_new_tokens": "cut at --max-new-tokens; "}
    return (
        f"{ended.get(values['stop_reason'], '')}{values['tokens_per_s']:.1f} tokens/s, "
        f"{held} keys held, {values['stream_tokens']:,} tokens of the stream"
    )
