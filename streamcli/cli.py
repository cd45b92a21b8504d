"""Builds the Typer app, mounts the commands, and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from core.errors import StreamError
from streamcli import __version__
from streamcli.commands import report, run, sweep, verify

FIRST = """What does a streaming KV cache cost my model, and what does it buy?

Start with [bold]streamcli run[/bold], then [bold]streamcli report[/bold]."""

app = typer.Typer(
    help=FIRST,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run.run)
app.command()(sweep.sweep)
app.command()(report.report)
app.command()(verify.verify)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"streamcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Show what to do first where no command is given; ``debug`` is read by ``main``."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


LISTS = {"--" + name.replace("_", "-") for name in sweep.LISTS}


def spread(words: list[str]) -> list[str]:
    """Words in which each value after a list option has that option of its own.

    ``--datasets wikitext pg19`` and ``--datasets wikitext,pg19`` both become
    ``--datasets wikitext --datasets pg19``.
    """
    out: list[str] = []
    option, awaited = "", False
    for word in words:
        value = word
        if word.startswith("-") and not word[1:2].isdigit():  # -1 is a value
            if awaited:
                out.append(option)  # it got no value, and Typer will say so
            name, _, value = word.partition("=")
            option = name if name in LISTS else ""
            awaited = bool(option)
        if not option:
            out.append(word)
            continue
        for part in filter(None, value.split(",")):
            out += [option, part]
            awaited = False
    return [*out, option] if awaited else out


def main() -> None:
    """Run the command line; the console script's entry."""
    words = sys.argv[1:]
    try:
        sys.exit(app(spread(words), standalone_mode=False))
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if "--debug" in words:
            raise
        if isinstance(error, StreamError):
            _stop(str(error), error.exit_code)
        if hasattr(error, "format_message"):  # Typer's own, whose classes it keeps to itself
            command = getattr(getattr(error, "ctx", None), "command_path", "streamcli")
            text = error.format_message()
            _stop(f"{text}{'' if text.endswith(('.', '?')) else '.'} See {command} --help.", 2)
        text = [*str(error).strip().splitlines(), "no message"][0]
        _stop(f"{type(error).__name__}: {text} (streamcli --debug ... shows where)", 1)


def _stop(message: str, code: int) -> NoReturn:
    print(f"streamcli: {message}", file=sys.stderr)
    sys.exit(code)
