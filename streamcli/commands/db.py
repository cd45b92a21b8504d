"""``streamcli db``: the results database: where it is, what it holds, whether it is sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import StreamError
from streamcli import harmless, options
from streamcli.jobs.database import opened, unmatched

if TYPE_CHECKING:
    from streamcli.results.store import Store
    from streamcli.results.transfer import Moved

app = typer.Typer()


@app.callback(invoke_without_command=True)
def root(ctx: typer.Context) -> None:
    """Look after the database: where it is, what it holds, whether it is sound.

    [dim]streamcli db[/dim]
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command()
def path(db: options.Database = None) -> None:
    """Print where the results are, a file or a URL without its password. Nothing is opened.

    [dim]streamcli db path[/dim]
    """
    from streamcli import settings
    from streamcli.results import addresses

    typer.echo(harmless.line(addresses.named(addresses.located(settings.place(db)))))


@app.command()
def stats(
    db: options.Database = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how many runs there are of each kind, the room that they take, and the first and last.

    [dim]streamcli db stats
    streamcli db stats --json[/dim]
    """
    from json import dumps

    from streamcli.render import output, records
    from streamcli.results import maintenance

    found = maintenance.stats(opened(db))
    if json:
        typer.echo(dumps(found))
    elif not found["runs"]:
        output.say(f"{found['place']} holds no run yet: record one with streamcli run.")
    else:
        output.page(records.stats(found, maintenance.COUNTED))


@app.command()
@options.filtered
def export(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="A .jsonl file (whole runs) or a .csv file (rows only).")
    ],
    db: options.Database = None,
    **given: Any,
) -> None:
    """Write every run that has ended to a file; a file of that name is replaced when all went well.

    A .jsonl file holds whole runs, with documents and traces, for streamcli
    db import anywhere; what streamcli bench and probe found too, unless a
    filter chooses among the runs.

    [dim]streamcli db export runs.jsonl
    streamcli db export runs.csv --method streaming --since 2026-01-31[/dim]
    """
    from streamcli.render import output, records
    from streamcli.results import frames, portable
    from streamcli.results.columns import STATUSES

    store = opened(db)
    ended = [status for status in STATUSES if status != "running"]
    where = options.filters(ctx.params)
    runs = frames.runs(store, status=ended, columns=("run_id",), sort="run_id", **where)
    run_ids = list(runs["run_id"])
    if where and not run_ids:  # a file of that name may hold an earlier export
        raise StreamError(unmatched(store, "run that has ended", where, "run"))
    others = portable.export(store, file, run_ids, others=not where)
    *more, last = [f"{_rows(number)} of {table}" for table, number in others.items()] or [""]
    first = ", ".join([records.number_of(len(run_ids)), *more])
    output.say(f"{file} holds {first}{last and f' and {last}'} of {store.place}.")


@app.command("import")
def take_in(
    file: Annotated[
        list[Path],
        typer.Argument(help="A .jsonl file or several, as streamcli db export wrote them."),
    ],
    db: options.Database = None,
) -> None:
    """Take in the runs of a .jsonl file that are not here yet: all of them, or none.

    What streamcli bench and probe found comes too, where the file has it. A
    run whose result could not be recorded when it ended, and which is in such
    a file of its own, is done then.

    [dim]streamcli db import runs.jsonl
    streamcli db import runs.jsonl --db another.db[/dim]
    """
    from streamcli.results import portable

    store = opened(db, new=True)
    for each in file:
        _say_moved(portable.load(store, each), str(each), store)


@app.command()
def merge(
    other: Annotated[str, typer.Argument(help="Another database: a path or a SQLAlchemy URL.")],
    db: options.Database = None,
) -> None:
    """Take in the runs of another database that are not here yet: all of them, or none.

    What streamcli bench and probe found comes too. The other one is only read.
    Works between SQLite and PostgreSQL, both ways.

    [dim]streamcli db merge other.db
    streamcli db merge data/streamcli.db --db copy.db[/dim]
    """
    from streamcli.results import addresses, transfer

    store = opened(db, new=True)
    _say_moved(transfer.merge(store, other), addresses.named(addresses.located(other)), store)


@app.command()
def vacuum(db: options.Database = None) -> None:
    """Give back the room of runs that were deleted.

    [dim]streamcli db vacuum[/dim]
    """
    from streamcli.render import output, records
    from streamcli.results import maintenance

    store = opened(db)
    before, after = maintenance.vacuum(store)
    output.say(f"{store.place}: {records.size(before)} before, {records.size(after)} now.")


@app.command()
def check(db: options.Database = None) -> None:
    """Prove that the database is sound, and each run's figures follow from its own parts.

    The file, the schema and the view are checked; then, run by run, that
    the trace is as long as the scored tokens, that it sums to the
    documents, and they to the run. Ends with code 1 where something is
    wrong.

    [dim]streamcli db check[/dim]
    """
    from streamcli.render import output, records
    from streamcli.results import maintenance

    store = opened(db)
    found = maintenance.check(store)
    if not found:
        runs = maintenance.stats(store)["runs"]
        output.say(f"{store.place} is sound: {records.number_of(runs)}.")
        return
    output.page(records.check(((each.run_id, each.what) for each in found), store.place))
    raise StreamError(f"{store.place} is not sound: see the findings above ({len(found)}).")


def _say_moved(moved: Moved, source: str, store: Store) -> None:
    from streamcli.render import output, records

    words = f"{records.number_of(moved.added)} came from {source} to {store.place}"
    words += f", {moved.known:,} were here already" if moved.known else ""
    running = f"; {moved.running:,} still running stayed there" if moved.running else ""
    others = {"benchmarks": moved.benchmarks, "probes": moved.probes}
    more = "".join(f"; {_rows(n)} of {table} came too" for table, n in others.items() if n)
    output.say(f"{words}{running}{more}.")


def _rows(number: int) -> str:
    return f"{number:,} row{'s' * (number > 1)}"
