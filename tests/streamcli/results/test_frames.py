"""A query gives the runs that meet every condition, typed alike whatever is in them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from core.errors import UsageError
from core.result import RunResult
from streamcli.results import frames, values
from streamcli.results.columns import COLUMNS
from streamcli.results.store import Store
from tests.support.records import Begin

ASKED: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["dense", "window", "streaming"]),
    ({"status": None}, ["streaming", "recompute", "dense", "window", "streaming"]),
    ({"status": ("failed", "running")}, ["streaming", "recompute"]),
    ({"method": "window"}, ["window"]),
    ({"method": ("window", "dense")}, ["dense", "window"]),
    ({"method": []}, []),
    ({"method": "window", "window": 105}, ["window"]),
    ({"method": "window", "window": 106}, []),
    ({"mode": "chunked", "model": None}, ["dense", "window", "streaming"]),
    ({"mode": "decode-loop", "status": "failed"}, ["recompute"]),
    ({"model": "no such model"}, []),
    ({"status": "no such status"}, []),
    ({"sort": "ppl"}, ["dense", "window", "streaming"]),
    ({"sort": "-ppl"}, ["streaming", "window", "dense"]),
    ({"sort": "-ppl", "limit": 2}, ["streaming", "window"]),
    ({"sort": "ms_per_token_p95"}, ["streaming", "window", "dense"]),
    ({"sort": "-ms_per_token_p95"}, ["window", "streaming", "dense"]),
    ({"limit": 1}, ["dense"]),
    ({"since": "2020-01-01"}, ["dense", "window", "streaming"]),
    ({"since": "2999-01-01T00:00:00Z"}, []),
    ({"tokens_sha256": "b" * 64, "limit": 1}, ["dense"]),
]


@pytest.fixture
def filled(store: Store, begin: Begin, result: RunResult) -> Store:
    """Three finished runs of falling perplexity, a failed one and one that runs."""
    for repeat, method in enumerate(("streaming", "window", "dense")):
        run_id = begin(store, repeat, method=method, mode="chunked", window=100 + repeat)
        documents = (replace(result.documents[0], nll_nats=9.0 - repeat),)
        p95 = None if method == "dense" else 2.0
        store.finish(run_id, replace(result, documents=documents, ms_per_token_p95=p95))
    store.fail(begin(store, method="recompute"), "no")
    begin(store)
    return store


def test_runs_are_those_that_meet_every_condition(filled: Store) -> None:
    for asked, found in ASKED:
        assert frames.runs(filled, **asked).method.tolist() == found, asked


def test_since_takes_any_zone_and_begins_at_the_moment(filled: Store) -> None:
    second = frames.runs(filled).created_at.tolist()[1]
    moment = datetime.fromisoformat(second).astimezone(timezone(timedelta(hours=-7)))
    for since in (second, moment, moment.isoformat(), moment.astimezone(UTC).replace(tzinfo=None)):
        assert frames.runs(filled, since=since).method.tolist() == ["dense", "window"]


def test_times_as_text_sort_as_times_do() -> None:
    moments = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=i * 333) for i in range(9)]
    assert [values.stamp(moment) for moment in moments] == sorted(map(values.stamp, moments))
    assert len({len(values.stamp(moment)) for moment in moments}) == 1


def test_columns_are_all_in_order_or_those_asked_for(filled: Store) -> None:
    assert list(frames.runs(filled).columns) == list(COLUMNS)
    assert list(frames.runs(filled, columns=["ppl", "window"]).columns) == ["ppl", "window"]


def test_types_do_not_depend_on_what_is_found(filled: Store) -> None:
    for frame in (frames.runs(filled), frames.runs(filled, status="failed")):
        none = frames.runs(filled, model="none")
        assert none.empty and list(none.dtypes) == list(frame.dtypes)
    kinds = frames.runs(filled).dtypes.astype(str)
    names = ["scored_tokens", "ppl", "trust", "git_commit"]
    assert kinds[names].tolist() == ["Int64", "float64", "boolean", "object"]
    assert frames.documents(filled, []).dtypes.astype(str)["words"] == "Int64"


def test_a_wrong_name_or_time_is_told_with_the_nearest(filled: Store) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"columns": ["pql"]}, "unknown column 'pql'.*Did you mean 'ppl'"),
        ({"sort": "-windw"}, "unknown sort key 'windw'.*Did you mean 'window'"),
        ({"metod": "dense"}, "unknown column 'metod'.*Did you mean 'method'"),
        ({"since": "yesterday"}, "'yesterday' is not a time: write 2026-01-31"),
    ]
    for where, words in wrong:
        with pytest.raises(UsageError, match=words):
            frames.runs(filled, **where)
