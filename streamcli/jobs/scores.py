"""Reading the scores of single tokens, of no more runs than are shown, for paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import StreamError
from streamcli.analysis import paired, selection
from streamcli.analysis.comparison import Comparison, Row
from streamcli.results import frames
from streamcli.results.columns import missing
from streamcli.results.store import Store

BATCH = 50  # pairs whose scores are held at once


def of_pairs(
    store: Store, held: Sequence[tuple[Row, Row]]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, list[int]]]:
    """Nats of every scored token of these runs and baselines, and lengths of the documents."""
    nll = store.nll(row["run_id"] for pair in held for row in pair)
    documents = frames.documents(store, {base["run_id"] for _, base in held})
    lengths: dict[str, list[int]] = {}
    for run_id, tokens in zip(documents["run_id"], documents["scored_tokens"], strict=True):
        lengths.setdefault(run_id, []).append(int(tokens))
    return nll, lengths


def asked(store: Store, held: Sequence[tuple[Row, Row]]) -> dict[str, list[int]]:
    """How many questions each document of these baselines has, where its text asks some."""
    bases = {base["run_id"] for _, base in held if not missing(base["questions"])}
    documents = frames.documents(store, bases) if bases else None
    counts: dict[str, list[int]] = {}
    if documents is not None:
        every = documents["questions"].fillna(0)
        for run_id, questions in zip(documents["run_id"], every, strict=True):
            counts.setdefault(run_id, []).append(int(questions))
    return counts


def with_intervals(
    store: Store, found: Sequence[Comparison], shown: Iterable[str]
) -> list[Comparison]:
    """Comparisons in which the perplexity changes of these runs have their intervals.

    Args:
        store: The opened database.
        found: The comparisons, with their baselines.
        shown: The names of the runs.
    """
    wanted = set(shown)
    held = [pair for each in found for pair in selection.held(each) if pair[0]["run_id"] in wanted]
    ends: dict[str, dict[str, Any]] = {}
    for first in range(0, len(held), BATCH):
        ends |= _changes(store, held[first : first + BATCH])
    return [replace(each, runs=selection.with_changes(each.runs, ends)) for each in found]


def _changes(store: Store, held: Sequence[tuple[Row, Row]]) -> dict[str, dict[str, Any]]:
    """What is known of each run's change; scores that are damaged cost no other run's."""
    try:
        nll, lengths = of_pairs(store, held)
    except StreamError as error:
        if len(held) == 1:
            return {held[0][0]["run_id"]: {"clusters": str(error).rstrip(".")}}
        return {name: each for pair in held for name, each in _changes(store, [pair]).items()}
    return {
        run["run_id"]: selection.change(paired.difference(run, base, nll, lengths))
        for run, base in held
    }
