"""``streamcli compare``: which differences between recorded runs are more than chance."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core import registry
from core.config import LARGEST
from core.errors import UsageError
from streamcli import completion, options
from streamcli.jobs.database import opened

if TYPE_CHECKING:
    from streamcli.analysis.paired import Pair
    from streamcli.render.tables import Sheet
    from streamcli.results.store import Store

TABLES = 5  # shown where no --limit is given
OF_METHODS = ("baseline", "across_budgets", "limit")  # options that two runs or commits don't have
OF_VERDICTS = ("margin", "fail_above")


class Format(StrEnum):
    """How a comparison is written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"


@options.filtered
def compare(
    ctx: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN_A RUN_B",
            help="Two runs to compare: names, their beginnings, or latest.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            "--baseline",
            help="Method that the others are compared with.",
            autocompletion=completion.OF["method"],
        ),
    ] = registry.BASELINE,
    across_budgets: Annotated[
        bool,
        typer.Option(
            "--across-budgets", help="Also compare methods that see different numbers of keys."
        ),
    ] = False,
    published: Annotated[
        bool,
        typer.Option(
            "--published", help="Show the seed report's figures beside ours, and why they differ."
        ),
    ] = False,
    fail_above: Annotated[
        str | None,
        typer.Option(
            "--fail-above",
            help="End with code 1 where a perplexity got worse by more than this (2% or 0.02), or "
            "an accuracy by more points, unless its interval includes no change (without one the "
            "figure decides); between runs or commits, a time as well.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            help="Nats: scores are called equal where two one-sided tests at 5 % show that they "
            "differ by less [dim]\\[default: 0.01, 1 % of perplexity][/dim]",
            show_default=False,
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.TABLE,
    commit: Annotated[
        list[str] | None,
        typer.Option(
            "--commit",
            help="Only runs of this git commit, or its beginning; given twice, the second is "
            "compared with the first.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            help=f"Show this many of the newest tables; 0 for all [dim]\\[default: {TABLES}][/dim]",
            show_default=False,
        ),
    ] = None,
    db: options.Database = None,
    **given: Any,
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
    if published:
        options.refuse(
            ctx, {*OF_METHODS, *OF_VERDICTS}, "--published shows whole tables, and judges none"
        )
    elif runs or len(commits) > 1:
        two = "runs" if runs else "commits"
        options.refuse(ctx, OF_METHODS, f"two {two} are compared, not methods")
    if limit is not None and not 0 <= limit <= LARGEST:
        raise UsageError(f"--limit is {limit}: it must be from 1 to {LARGEST:,}, or 0 for all.")
    if margin is not None and not 0 < margin < math.inf:
        raise UsageError(f"--margin is {margin:g}: it must be more than 0 nats, such as 0.01.")
    store = opened(db)
    if published:
        _with_published(store, form, where)
        return
    if runs:
        pairs = _two_runs(store, form, runs, margin)
    elif len(commits) > 1:
        pairs = _two_commits(store, form, commits, where, margin)
    else:
        most = limit if limit is not None else 0 if threshold is not None else TABLES
        pairs = _methods(store, form, where, baseline, margin, across=across_budgets, most=most)
    if threshold is not None:
        from streamcli.jobs.compare import refuse_losses

        times = bool(runs or len(commits) > 1)
        refuse_losses(pairs, threshold, str(fail_above), times=times)


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
    store: Store,
    form: Format,
    where: dict[str, Any],
    baseline: str,
    margin: float | None,
    *,
    across: bool,
    most: int,
) -> list[Pair]:
    from streamcli.jobs import compare as job
    from streamcli.render import compared, output

    found = job.methods(store, where, baseline, across=across, most=most)

    def sheets(within: float) -> list[Sheet]:
        return [compared.methods(t, across=across, margin=within) for t in found.tables]

    _show(form, [table.pairs for table in found.tables], sheets, margin)
    for remark in found.remarks:
        output.say(remark)
    return found.pairs


def _two_commits(
    store: Store, form: Format, commits: list[str], where: dict[str, Any], margin: float | None
) -> list[Pair]:
    from streamcli.jobs import compare as job
    from streamcli.render import compared, output

    before, after = commits
    pairs, alone = job.against_commit(store, before, after, where)
    _show(form, compared.kinds(pairs), partial(compared.commits, pairs, before, after), margin)
    if alone:
        output.say(f"{alone} configurations finished at one of the two commits only.")
    return pairs


def _two_runs(store: Store, form: Format, runs: list[str], margin: float | None) -> list[Pair]:
    from streamcli.jobs import compare as job
    from streamcli.render import compared

    pair = job.of_two(store, *runs)
    _show(form, [[pair]], lambda within: [compared.two(pair, within)], margin)
    return [pair]


def _with_published(store: Store, form: Format, where: dict[str, Any]) -> None:
    from streamcli.jobs import compare as job
    from streamcli.render import documents, published

    found = job.with_published(store, where)
    if form is Format.JSON:
        sys.stdout.write(documents.json_list(published.records(found)))
    else:
        _pages(form, [*map(published.seed, found), published.artefacts(found)])


def _show(
    form: Format,
    tables: Sequence[Sequence[Pair]],
    sheets: Callable[[float], Sequence[Sheet]],
    margin: float | None,
) -> None:
    """Write pairs, table by table, as they are or as ``sheets`` sets them, judged by a margin."""
    from streamcli.analysis.verdicts import MARGIN
    from streamcli.render import compared, documents

    within = MARGIN if margin is None else margin
    if form is Format.JSON:
        sys.stdout.write(documents.json_list(compared.records(tables, within)))
    else:
        _pages(form, sheets(within))


def _pages(form: Format, sheets: Sequence[Sheet]) -> None:
    from streamcli.render import output, tables

    if form is Format.MARKDOWN:
        print(tables.markdown_pages(sheets))
    else:
        output.pages(sheets)
