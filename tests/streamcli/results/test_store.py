"""What is recorded comes back as it was, and a run ends once."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from sqlmodel import Session

from core.config import RunConfig
from core.environment import Environment
from core.errors import StreamError, UsageError
from core.facts import RunFacts
from core.result import Answer, DocumentResult, RunResult, wilson
from streamcli.results import frames, ulid, values
from streamcli.results.schema import Run, Trace
from streamcli.results.store import Store
from tests.support.databases import sql
from tests.support.records import Begin

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture
def run_id(store: Store, begin: Begin) -> str:
    """A run that has begun."""
    return begin(store, 2)


def count(store: Store, table: str) -> Any:
    """Rows of a table."""
    return sql(store, f"SELECT count(*) FROM {table}")[0][0]


def test_a_finished_run_comes_back_as_it_was(
    store: Store,
    run_id: str,
    config: RunConfig,
    facts: RunFacts,
    environment: Environment,
    result: RunResult,
) -> None:
    finished = store.finish(run_id, result)
    run = store.get(run_id)
    assert run.model_dump() == finished.model_dump()
    assert (run.status, run.repeat, run.error) == ("done", 2, None)
    for source in (config, facts, environment, result):
        for field in fields(source):
            if field.name not in ("documents", "nll", "latency_ms", "notes", "param", "answers"):
                assert getattr(run, field.name) == getattr(source, field.name), field.name
    for name in ("scored_tokens", "nll_nats", "ppl", "word_ppl", "byte_ppl", "tokens_per_s"):
        assert getattr(run, name) == getattr(result, name), name
    assert run.attended_keys == config.attended_keys == 1025
    assert (run.documents, run.notes) == (2, "One thing.\nAnd another.")


def test_traces_come_back_bit_for_bit(store: Store, run_id: str, result: RunResult) -> None:
    odd = np.array([0x7FC12345, 0xFFC00001, 0x80000000, 1], dtype=np.uint32).view(np.float32)
    nll = np.concatenate([result.nll, odd, np.random.default_rng(0).random(5000, np.float32)])
    store.finish(run_id, replace(result, nll=nll, latency_ms=nll[:0]))
    kept_nll, kept_latency = store.trace(run_id)
    assert kept_nll.dtype == kept_latency.dtype == np.float32
    assert kept_nll.tobytes() == nll.tobytes()
    assert kept_latency.shape == (0,)


def test_documents_come_back_in_reading_order(store: Store, run_id: str, result: RunResult) -> None:
    asked, silent = result.documents
    result = replace(result, documents=(replace(asked, questions=9, right_answers=4), silent))
    store.finish(run_id, result)
    kept = frames.documents(store, [run_id])
    assert kept.position.tolist() == [0, 1]
    assert set(kept.run_id) == {run_id}
    kept = kept.astype(object).where(kept.notna(), None)
    cells = kept.drop(columns=["run_id", "position"]).values.tolist()
    names = [field.name for field in fields(DocumentResult)]
    again = [DocumentResult(**dict(zip(names, row, strict=True))) for row in cells]
    assert again == list(result.documents)


def test_the_configs_key_and_times_are_stored(
    store: Store, run_id: str, config: RunConfig, result: RunResult
) -> None:
    begun = store.get(run_id)
    assert (begun.config_key, begun.status, begun.ppl) == (config.key, "running", None)
    done = store.finish(run_id, result)
    assert MOMENT.fullmatch(done.created_at) and MOMENT.fullmatch(done.finished_at or "")
    assert done.created_at <= (done.finished_at or "")


def test_dense_attends_what_it_attended(store: Store, begin: Begin, result: RunResult) -> None:
    run_id = begin(store, method="dense")
    assert store.get(run_id).attended_keys is None
    assert store.finish(run_id, result).attended_keys == result.attended_keys_max


def test_infinite_perplexity_stays_and_nan_is_null(
    store: Store, run_id: str, result: RunResult
) -> None:
    lost = replace(result.documents[0], nll_nats=math.inf)
    store.finish(run_id, replace(result, documents=(lost,), kv_mib=math.nan, total_s=0.0))
    run = store.get(run_id)
    assert run.ppl == run.nll_nats == run.word_ppl == math.inf
    assert run.kv_mib is None and run.tokens_per_s is None
    assert frames.documents(store, [run_id]).nll_nats.tolist() == [math.inf]
    assert frames.runs(store).ppl.tolist() == [math.inf]


def test_numbers_of_numpy_are_stored_as_numbers(
    store: Store, run_id: str, result: RunResult
) -> None:
    odd: dict[str, Any] = {"attended_keys_min": np.int64(5), "peak_mem_mib": np.float32(0.5)}
    run = store.finish(run_id, replace(result, **odd))
    assert (run.attended_keys_min, run.peak_mem_mib) == (5, 0.5)
    assert type(store.get(run_id).attended_keys_min) is int


def test_text_that_no_database_holds_is_mended(
    store: Store, run_id: str, result: RunResult
) -> None:
    stray = replace(result.documents[0], name="caf\udce9\0.txt")
    store.finish(run_id, replace(result, documents=(stray,)))
    assert frames.documents(store, [run_id]).name.tolist() == ["caf?\ufffd.txt"]


def test_a_number_beyond_64_bits_is_refused(store: Store, begin: Begin) -> None:
    with pytest.raises(UsageError, match="seed is 9223372036854775808"):
        begin(store, seed=2**63)


def test_a_failed_run_is_a_row_with_its_error_in_one_line(store: Store, run_id: str) -> None:
    store.fail(run_id, "it broke:\n  badly\0")
    run = store.get(run_id)
    assert (run.status, run.error, run.ppl) == ("failed", "it broke: badly\ufffd", None)
    assert run.finished_at


def test_an_interrupted_run_is_a_row(store: Store, run_id: str) -> None:
    store.interrupt(run_id)
    assert store.get(run_id).status == "interrupted"


def test_a_run_ends_once(store: Store, run_id: str, result: RunResult) -> None:
    store.finish(run_id, result)
    store.interrupt(run_id)
    store.fail(run_id, "too late")
    assert (store.get(run_id).status, store.get(run_id).error) == ("done", None)
    with pytest.raises(StreamError, match="is done"):
        store.finish(run_id, replace(result, elapsed_s=9.0))
    store.delete(run_id)
    with pytest.raises(StreamError, match="is not there"):
        store.finish(run_id, result)
    with pytest.raises(UsageError, match="has no run"):
        store.fail(run_id, "gone")


def test_a_run_that_was_taken_for_dead_ends_all_the_same(
    store: Store, run_id: str, result: RunResult
) -> None:
    assert store.reap(lambda _: None) == store.reap(lambda _: False) == []
    assert store.reap(lambda _: True) == [run_id]
    assert store.get(run_id).status == "interrupted"
    assert store.finish(run_id, result).status == store.get(run_id).status == "done"


def test_a_beginning_and_an_end_may_be_told_twice(
    store: Store, config: RunConfig, facts: RunFacts, environment: Environment, result: RunResult
) -> None:
    run = values.run(config, facts, environment, 0)
    for _ in range(2):  # where the answer to a commit is lost
        store.enter(run)
    ended = [store.finish(run.run_id, result) for _ in range(2)]
    assert ended[0].model_dump() == ended[1].model_dump() == store.get(run.run_id).model_dump()
    assert (count(store, "runs"), count(store, "documents"), count(store, "traces")) == (1, 2, 1)


def test_nothing_of_a_result_is_kept_when_a_part_of_it_fails(
    store: Store, run_id: str, result: RunResult
) -> None:
    nameless: Any = None
    broken = replace(result.documents[1], name=nameless)
    with pytest.raises(StreamError) as caught:
        store.finish(run_id, replace(result, documents=(result.documents[0], broken)))
    assert "\n" not in str(caught.value)
    assert (store.get(run_id).status, store.get(run_id).ppl) == ("running", None)
    assert count(store, "documents") == count(store, "traces") == 0


def test_deleting_a_run_deletes_its_documents_and_trace(
    store: Store, begin: Begin, result: RunResult
) -> None:
    kept, gone = (begin(store, repeat) for repeat in range(2))
    for run_id in (kept, gone):
        store.finish(run_id, result)
    store.delete(gone)
    assert (count(store, "runs"), count(store, "documents"), count(store, "traces")) == (1, 2, 1)
    assert store.get("latest").run_id == kept
    for act in (store.delete, store.get, store.trace):
        with pytest.raises(UsageError, match=gone):
            act(gone)


def test_a_run_is_found_by_the_beginning_of_its_name(store: Store, begin: Begin) -> None:
    with pytest.raises(UsageError, match="no run yet"):
        store.get("latest")
    first, second = (begin(store, repeat) for repeat in range(2))
    assert store.get("latest").run_id == second
    assert store.get(first).run_id == store.get(first.lower()).run_id == first
    same = next(n for n in range(26) if first[n] != second[n])
    assert store.get(second[: same + 1]).run_id == second
    with pytest.raises(UsageError, match=f"several runs.*{second}.*{first}"):
        store.get(first[:same])
    for absent in ("Z", "%", "_", ""):
        with pytest.raises(UsageError, match="has no run|several runs"):
            store.get(absent)


def test_a_damaged_trace_is_told(store: Store, run_id: str, result: RunResult) -> None:
    store.finish(run_id, result)
    with Session(store.engine.execution_options(writes=True)) as session:
        row = session.get_one(Trace, run_id)
        row.nll = row.nll[:-3]
        session.commit()
    with pytest.raises(StreamError, match="trace of run .* is damaged"):
        store.trace(run_id)


def test_names_rise_though_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5_000_000, 5_000_000, 1_000_000, 9_000_000])
    monkeypatch.setattr("time.time_ns", lambda: 10**18 + next(times))
    monkeypatch.setattr(ulid, "_last", {"pid": 0, "ulid": 0})
    names = [ulid.new() for _ in range(4)]
    assert names == sorted(set(names))
    assert all(re.fullmatch(f"[{ulid.CROCKFORD}]{{26}}", name) for name in names)


def test_a_forked_child_does_not_count_on_from_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 10**18)
    monkeypatch.setattr(ulid, "_last", {"pid": 0, "ulid": 0})
    first, second = ulid.new(), ulid.new()
    monkeypatch.setattr("os.getpid", lambda: 1)
    child = ulid.new()
    assert first[:20] == second[:20] != child[:20]


def test_a_row_is_a_plain_value_after_the_session(store: Store, run_id: str) -> None:
    run = store.get(run_id)
    assert isinstance(run, Run) and run.host == "bench"


def test_what_became_of_each_question_is_kept_in_order_with_the_accuracy(
    store: Store, begin: Begin, result: RunResult
) -> None:
    kinds = ((7, True), (900, False), (None, True), (None, False))
    answers = [Answer(distance=d, candidates=4, right=r) for d, r in kinds]
    run_id = begin(store)
    store.finish(run_id, replace(result, answers=tuple(answers)))
    row = store.get(run_id)
    assert row.answers == "[[7,1],[900,0],[null,1],[null,0]]"
    assert (row.questions, row.accuracy, row.chance) == (4, 0.5, 0.25)
    assert (row.accuracy_low, row.accuracy_high) == wilson(2, 4)
    again = begin(store, 1)
    store.finish(again, result)
    row = store.get(again)
    assert [row.answers, row.questions, row.accuracy, row.chance] == [None] * 4
