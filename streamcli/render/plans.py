"""A sweep's plan as a table: what would run, what is there already, and how long it may take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from streamcli.analysis.history import Outlook
from streamcli.render.progress import spelled
from streamcli.render.tables import Sheet, unused_sizes
from streamcli.results.columns import ASKED, COLUMNS, NAMED, TASK, Column, reading

SELDOM = ("softmax_type", "budget_mib")  # only where an arm has them
LISTED = (
    Column("order", "#", "count", "Place in the first round"),
    *(COLUMNS[name] for name in (*reading({*ASKED, *SELDOM}), "attended_keys")),
    Column("finished", "finished", "text", "Runs that are there already, of those wanted"),
    Column("time", "time left", "count", "Estimate for the runs that would be made"),
)


def plan(outlooks: Sequence[Outlook], repeats: int, *, within_trained: bool) -> Sheet:
    """The arms in the order of the first round of each model, text and mode."""
    all_cells = [_cells(each, order, repeats) for order, each in enumerate(outlooks, start=1)]
    same = {
        name: values.pop()
        for name in TASK  # in the title where there is one only
        if len(values := {cells[name] for cells in all_cells}) == 1
    }
    empty = {name for name in SELDOM if all(cells[name] == "-" for cells in all_cells)}
    columns = [column for column in LISTED if column.name not in {*same, *empty}]
    rows = [[cells[column.name] for column in columns] for cells in all_cells]
    every, left = repeats * len(outlooks), sum(each.left for each in outlooks)
    notes = []
    if any(each.arm.window is None and not each.arm.budget_mib for each in outlooks):
        notes.append("half: of the length that the model was trained on.")
    if within_trained:
        notes.append("Windows beyond the length that a model was trained on are left out.")
    if repeats > 1:
        notes.append(f"In {repeats} rounds for each model, text and mode, every second backwards.")
    notes.append(f"{every} runs, {left} to be made: {_total(outlooks)}.")
    return Sheet(", ".join(["What would run", *same.values()]), columns, rows, notes)


def _cells(each: Outlook, order: int, repeats: int) -> dict[str, str]:
    arm, unused = each.arm, unused_sizes({"method": each.arm.method})
    mib = "" if arm.budget_mib is None else f"{arm.budget_mib:.4g}"
    half = "half" if arm.n_sink == 0 else f"half - {arm.n_sink}"
    window = "what fits" if mib else half
    keys = "what fits" if mib else "half + 1"
    if arm.window is not None:
        window, keys = f"{arm.window:,}", f"{arm.attended_keys:,}"
    return {
        "order": f"{order}",
        **{name: getattr(arm, name) for name in NAMED},
        "n_sink": "-" if "n_sink" in unused else f"{arm.n_sink}",
        "window": "-" if "window" in unused else window,
        "softmax_type": arm.softmax_type or "-",
        "budget_mib": mib or "-",
        "attended_keys": keys if arm.spec.has_budget else "all",
        "finished": f"{each.finished} of {repeats}",
        "time": spelled(each.left * each.run_s) if each.run_s and each.left else "-",
    }


def _total(outlooks: Sequence[Outlook]) -> str:
    """The time of all runs that would be made, as far as it is known."""
    known = [each.left * each.run_s for each in outlooks if each.left and each.run_s]
    unknown = sum(each.left for each in outlooks if not each.run_s)
    if not known:
        return (
            "no similar run tells how long they take"
            if unknown
            else "nothing to do where device and threads are as they were"
        )
    if unknown:
        return f"at least {spelled(sum(known))}, and {unknown} of which no similar run tells"
    return f"about {spelled(sum(known))}, and the time to load"


def queue(sweeps: Sequence[dict[str, Any]], place: str) -> Sheet:
    """What is in the queue, a line a sweep, and why runs of it failed."""
    numbers = ("runs", "done", "failed", "left out", "waiting", "claimed")
    columns = [
        Column("sweep", "sweep", "text", "Sweep that the runs belong to"),
        *(Column(name, name, "count", "How many") for name in numbers),
        Column("by", "by", "text", "Machines whose workers have what is claimed"),
    ]
    rows, why = [], Counter[str]()
    for each in sweeps:
        counts = [f"{each[name]:,}" for name in numbers]
        at = [f"{n} on {host}" if n > 1 else str(host) for host, n in each["by"].items()]
        rows.append([each["sweep"], *counts, ", ".join(at) or "-"])
        why.update(each["why"])
    failures = [f"{number} failed: {what}" for what, number in why.items()]
    return Sheet(f"The queue of {place}", columns, rows, failures)
