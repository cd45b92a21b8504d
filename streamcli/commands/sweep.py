"""``streamcli sweep``: every combination of some lists, one model in memory at a time."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import Interrupted, StreamError, UsageError, unknown
from streamcli import options
from streamcli.jobs import plan
from streamcli.jobs.executors import EXECUTORS, LOCAL
from streamcli.jobs.plan import PRESETS, Plan

if TYPE_CHECKING:
    from streamcli.settings import Settings

OWN = ("preset", "file", "dry_run", "force", "enqueue", "workers", "executor")  # what no run has


@options.run_options(lists={each.name for each in plan.varied().values()}, **plan.DEFAULTS)
def sweep(
    ctx: typer.Context,
    preset: Annotated[
        str | None,
        typer.Option(
            help="A ready-made plan, which flags override. "
            + " ".join(f"[bold]{name}[/bold]: {each.purpose}." for name, each in PRESETS.items()),
            autocompletion=lambda: list(PRESETS),
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="A .yaml or .toml file with options by name (windows: \\[60, 124]), which "
            "flags override.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, with an estimate of its time.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also run what this machine has finished before."),
    ] = False,
    enqueue: Annotated[
        bool,
        typer.Option(
            "--enqueue", help="Make no runs; leave them in the database for streamcli worker."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=plan.MOST,
            help="Let this many workers make the runs at the same time, each on its own cores. "
            "[dim]\\[default: none, the runs are made here one after the other][/dim]",
            show_default=False,
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            help="What starts the workers: "
            + "; ".join(f"[bold]{name}[/bold], {words}" for name, words in EXECUTORS.items())
            + ".",
            autocompletion=lambda: list(EXECUTORS),
        ),
    ] = LOCAL,
    repeats: options.Repeats = None,
    db: options.Database = None,
    **given: Any,
) -> None:
    """Run every combination of the lists, record each, and show them side by side.

    A configuration that this machine has finished is not run again, so that
    a sweep goes on where it stopped. An option that a method or mode does not
    have is left out of its runs.

    [dim]streamcli sweep --datasets wikitext pg19
    streamcli sweep --preset quick
    streamcli sweep --methods streaming window --windows 60 124 252 --modes chunked --dry-run
    streamcli sweep --datasets pg19 --workers 2 --threads 1
    streamcli sweep --datasets pg19 --enqueue[/dim]
    """
    from streamcli import settings
    from streamcli.render import output

    _check(executor, workers, enqueue=enqueue, dry_run=dry_run)
    flags = {name: value for name, value in ctx.params.items() if name not in OWN}
    values = plan.gather(flags, preset, file)
    asked = settings.read({name: values[name] for name in plan.single() if name in values})
    todo = plan.make(values, asked)
    for line in todo.left_out:
        output.say(line)
    if dry_run:
        _show(todo, asked, force)
        return
    explicit = values["explicit"] or asked.model_is_explicit
    if enqueue:
        _enqueue(todo, asked, explicit, force, values.get("db"))
        return
    try:
        if workers:
            _hand_out(todo, asked, explicit, force, values.get("db"), (executor, workers))
        else:
            _carry_out(todo, asked, explicit, force, values.get("db"))
    except (KeyboardInterrupt, Interrupted) as stop:
        again = "with --force it begins anew" if force else "the same command goes on from here"
        words = str(stop) or "interrupted."
        raise Interrupted(f"{words} What is done is kept; {again}.") from stop


def _check(executor: str, workers: int | None, *, enqueue: bool, dry_run: bool) -> None:
    if executor not in EXECUTORS:
        raise unknown("executor", executor, EXECUTORS)
    if executor != LOCAL and not workers:
        raise UsageError(f"--executor {executor} starts workers: say how many, as --workers 4.")
    if enqueue and (workers or dry_run):
        other = "--workers" if workers else "--dry-run"
        raise UsageError(f"--enqueue only leaves the runs in the database: leave {other} out.")


def _enqueue(todo: Plan, asked: Settings, explicit: bool, force: bool, flag: str | None) -> None:
    """Leave the runs for workers."""
    from streamcli.jobs import hand_out
    from streamcli.jobs.database import opened
    from streamcli.render import output, records

    store = opened(asked.database_url, new=True)
    sweep, added = hand_out.put(store, todo, explicit, force)
    there = len(todo) - added
    if there:
        output.say(f"{records.number_of(there)} waited there already.")
    named = f" --db {shlex.quote(store.place if '://' in flag else flag)}" if flag else ""
    if added:
        output.say(
            f"{records.number_of(added)} of sweep {sweep} wait in {store.place}; "
            f"next: streamcli worker{named}"
        )


def _hand_out(
    todo: Plan,
    asked: Settings,
    explicit: bool,
    force: bool,
    flag: str | None,
    how: tuple[str, int],
) -> None:
    """Let workers make the runs, show them, and say what became of them."""
    from streamcli.analysis.selection import of_repeats
    from streamcli.jobs.hand_out import HandOut
    from streamcli.render import output
    from streamcli.render.progress import Board

    with Board([arm for arm, _ in todo]) as board:
        done = HandOut.of(todo, asked.database_url, board.ended, output.say)
        done.carry_out(*how, explicit=explicit, force=force)
    if done.run_ids:
        output.terminal(of_repeats(done.runs()))
        output.say_recorded(done.store.place, flag)
    for line in done.summary():
        output.say(line)
    if done.failed or done.left:
        raise StreamError(f"{done.failed + done.left} of {len(todo)} runs failed.")


def _show(todo: Plan, asked: Settings, force: bool) -> None:
    """Print the plan; nothing is loaded, and no database is made."""
    from streamcli.analysis.history import History
    from streamcli.jobs import history, processes
    from streamcli.render import output, plans
    from streamcli.results import addresses
    from streamcli.results.store import Store

    file = addresses.file_of(addresses.located(asked.database_url))
    known = History()
    if file is None or os.path.exists(file):
        store = Store.open(asked.database_url)
        known = history.read(store, [arm.model for arm in todo.arms], processes.host())
    outlooks = [known.outlook(arm, todo.repeats, force=force) for arm in todo.arms]
    if todo.within_trained:
        outlooks = [each for each in outlooks if not each.is_beyond]
    output.page(plans.plan(outlooks, todo.repeats, within_trained=todo.within_trained))


def _carry_out(todo: Plan, asked: Settings, explicit: bool, force: bool, flag: str | None) -> None:
    """Make the runs, show them, and say what became of them."""
    from streamcli.analysis.selection import of_repeats
    from streamcli.jobs.record import Recorder
    from streamcli.jobs.sweep import Sweep
    from streamcli.render import output
    from streamcli.render.progress import Board
    from streamcli.results import ulid

    with Board([arm for arm, _ in todo]) as board:
        recorder = Recorder(asked.database_url, explicit, output.say, board.watch, ulid.new())
        done = Sweep(todo, recorder, board.ended, force)
        done.carry_out()
    if done.run_ids:
        output.terminal(of_repeats(recorder.ledger.runs(done.run_ids)))
        if not recorder.ledger.kept:
            output.say_recorded(recorder.store.place, flag)
    for line in done.summary():
        output.say(line)
    if done.run_ids:
        recorder.settle()
    if done.failed:
        raise StreamError(f"{sum(map(len, done.failed.values()))} of {len(todo)} runs failed.")
