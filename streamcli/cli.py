"""Builds the Typer app, mounts the commands, and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from core.errors import StreamError
from streamcli import __version__
from streamcli.commands import report, run

FIRST = """What does a streaming KV cache cost my model, and what does it buy?

Start with [bold]streamcli run[/bold], then [bold]streamcli report[/bold]."""

app = typer.Typer(
    help=FIRST,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run.run)
app.command()(report.report)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"streamcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """The options that every command has."""


def main() -> None:
    """Run the command line; the console script's entry."""
    debug = "--debug" in sys.argv[1:]
    try:
        app()
    except StreamError as error:
        if debug:
            raise
        print(f"streamcli: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("streamcli: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        text = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {text[0] if text else 'no message'}"
        print(f"streamcli: {reason} (--debug shows where)", file=sys.stderr)
        sys.exit(1)
