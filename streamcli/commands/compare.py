"""``streamcli compare``: which differences between recorded runs are more than chance."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core import registry
from core.errors import StreamError, UsageError
from streamcli import options
from streamcli.commands import opened, unmatched

if TYPE_CHECKING:
    from streamcli.analysis.paired import Pair
    from streamcli.render.tables import Sheet
    from streamcli.results.store import Store

TABLES = 5  # shown where no --limit is given


class Format(StrEnum):
    """How a comparison is written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"


def compare(
    ctx: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN_A RUN_B",
            help="Two runs to hold side by side: names, their beginnings, or latest.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option("--baseline", help="Method that the others are held against.")
    ] = registry.BASELINE,
    across_budgets: Annotated[
        bool,
        typer.Option("--across-budgets", help="Compare methods that see other numbers of keys."),
    ] = False,
    published: Annotated[
        bool,
        typer.Option("--published", help="The seed report's figures beside ours, and why."),
    ] = False,
    fail_above: Annotated[
        str | None,
        typer.Option(
            "--fail-above",
            help="End with code 1 where a perplexity got worse by more than this (2% or 0.02), "
            "unless its interval includes no change (without one the figure decides); between "
            "runs or commits, a time as well.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.TABLE,
    model: options.OnlyModel = None,
    dataset: options.OnlyDataset = None,
    method: options.OnlyMethod = None,
    mode: options.OnlyMode = None,
    since: options.OnlySince = None,
    commit: Annotated[
        list[str] | None,
        typer.Option(
            "--commit",
            help="Only runs of this git commit, or its beginning; given twice, the second is held "
            "against the first.",
            show_default=False,
        ),
    ] = None,
    sweep: options.OnlySweep = None,
    tag: options.OnlyTag = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            help=f"So many of the newest tables, 0 for all [dim]\\[default: {TABLES}][/dim]",
            show_default=False,
        ),
    ] = None,
    db: options.Database = None,
) -> None:
    """Tell which differences are more than chance: methods, two runs, or two commits.

    Perplexity is compared token by token, times round by round of a sweep
    with --repeats; each has a 95 % interval. Only runs on the same tokens,
    batch, number format, device, threads and machine share a table.

    [dim]streamcli compare --mode decode-loop
    streamcli compare --baseline mit --dataset wikitext --format markdown
    streamcli compare latest 01JC
    streamcli compare --commit 91e204b --commit 2c060ec --fail-above 2%
    streamcli compare --published[/dim]
    """
    registry.check("method", baseline)
    threshold = _fraction(fail_above)
    commits = commit or []
    where = options.filters({**ctx.params, "commit": commits[0] if len(commits) == 1 else None})
    _check(runs or [], commits, published, where)
    if limit is not None and limit < 0:
        raise UsageError(f"--limit is {limit}: it must be 1 or more, or 0 for all.")
    store = opened(db)
    if published:
        _published(store, form, where)
        return
    if runs:
        pairs, times = _two(store, form, runs), True
    elif len(commits) > 1:
        pairs, times = _commits(store, form, commits, where), True
    else:
        most = limit if limit is not None else 0 if threshold is not None else TABLES
        pairs, times = _methods(store, form, baseline, across_budgets, where, most), False
    if threshold is not None:
        _gate(pairs, threshold, str(fail_above), times=times)


def _check(runs: list[str], commits: list[str], published: bool, where: dict[str, Any]) -> None:
    """Refuse what can't be asked for at once."""
    if len(runs) not in (0, 2):
        raise UsageError(
            f"{len(runs)} run{'s' * (len(runs) > 1)} named ({' '.join(runs)}): name two, or none "
            "to compare methods."
        )
    if len(commits) > 2 or len(set(commits)) < len(commits):
        raise UsageError(f"--commit is {' and '.join(commits)}: give one, or two that differ.")
    if runs and (where or commits):
        name = next(iter([*where, "commit"]))
        raise UsageError(f"two runs are named, so --{name} has nothing to choose: leave it out.")
    if published and (runs or len(commits) > 1):
        raise UsageError("--published goes with methods, not with two runs or commits.")


def _fraction(text: str | None) -> float | None:
    """2% or 0.02 as a fraction."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value < (math.inf if text.endswith("%") else 1):
        raise UsageError(f"--fail-above is {text!r}: write a percentage such as 2%, or 0.02.")
    return value


def _methods(
    store: Store, form: Format, baseline: str, across: bool, where: dict[str, Any], most: int
) -> list[Pair]:
    from streamcli.analysis import paired, selection, verdicts
    from streamcli.render import compared, output

    query = selection.Query(where=where, limit=selection.LIMIT if most else 0, tables=most)
    found = selection.select(store, query, baseline)
    if not found.whole:
        output.say(unmatched(store, "finished run", where, "sweep"))
    repeats = {name: value for name, value in where.items() if name != "method"}
    tables = paired.against_baseline(store, found.whole, repeats, across=across)
    pairs = [pair for table in tables for pair in table.pairs]
    _show(form, [compared.methods(table, across=across) for table in tables], pairs)
    for table in tables:
        if baseline not in set(table.comparison.runs["method"]):
            output.say(verdicts.missing(table.comparison, found.whole))
    if len(tables) < found.tables or found.more:
        some = f", of the newest {query.limit} configurations" if found.more else ""
        output.say(
            f"the newest {len(tables)} of {found.tables} tables{some}: narrow down with --dataset, "
            "--model or --mode, or --limit 0 for all."
        )
    return pairs


def _commits(store: Store, form: Format, commits: list[str], where: dict[str, Any]) -> list[Pair]:
    from streamcli.analysis import paired
    from streamcli.render import compared, output

    before, after = commits
    pairs, alone = paired.against_commit(store, before, after, where)
    kinds = groupby(sorted(pairs, key=_heading), key=_heading)
    _show(form, [compared.commits(list(kind), before, after) for _, kind in kinds], pairs)
    if alone:
        output.say(f"{alone} configurations finished at one of the two commits only.")
    return pairs


def _heading(pair: Pair) -> str:
    from streamcli.render import tables

    return tables.title(pair.run)


def _two(store: Store, form: Format, runs: list[str]) -> list[Pair]:
    from streamcli.analysis import paired
    from streamcli.render import compared

    pair = paired.of_two(store, *runs)
    _show(form, [compared.two(pair)], [pair])
    return [pair]


def _published(store: Store, form: Format, where: dict[str, Any]) -> None:
    from streamcli.analysis.published import beside
    from streamcli.render import documents, published
    from streamcli.results import frames

    shown = beside(frames.latest(store, **where), where.get("mode"), where.get("dataset"))
    if form is Format.JSON:
        sys.stdout.write(documents.json_list(published.records(shown)))
    else:
        _pages(form, [*map(published.seed, shown), published.artefacts(shown)])


def _show(form: Format, sheets: list[Sheet], pairs: list[Pair]) -> None:
    from streamcli.render import compared, documents

    if form is Format.JSON:
        sys.stdout.write(documents.json_list(compared.records(pairs)))
    else:
        _pages(form, sheets)


def _pages(form: Format, sheets: Sequence[Sheet]) -> None:
    from streamcli.render import output, tables

    if form is Format.MARKDOWN:
        print("\n\n".join(map(tables.markdown, sheets)))
    else:
        for sheet in sheets:
            output.page(sheet)


def _gate(pairs: list[Pair], threshold: float, asked: str, *, times: bool) -> None:
    """End with code 1 where something got worse by more than the threshold."""
    from streamcli.analysis.verdicts import losses

    held = [pair for pair in pairs if pair.difference and not pair.is_base]
    if not held:
        raise StreamError(f"nothing could be compared, so nothing passes --fail-above {asked}.")
    lost = [
        (by, what, pair)
        for pair in held
        for what, by in losses(pair, times=times).items()
        if by > threshold
    ]
    if lost:
        by, what, pair = max(lost, key=lambda each: each[0])
        run = pair.run
        budget = f"S={run['n_sink']} W={run['window']}"
        raise StreamError(
            f"{len(lost)} figure{'s' * (len(lost) > 1)} worse by more than {asked}; the worst: "
            f"{what} of {run['method']} ({budget}, {run['mode']}, {run['dataset']}), {by:+.1%}."
        )
