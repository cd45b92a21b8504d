"""Every column says what it is, and a cell shows a value as a reader expects it."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.config import RunConfig
from core.environment import Environment
from core.facts import RunFacts
from core.result import RunResult
from streamcli.results.columns import (
    ADDED,
    ALL,
    ASKED,
    BENCHMARKS,
    COLUMNS,
    DOCUMENTS,
    HEADINGS,
    PROBES,
    SAME_RUN,
    TABLE,
    TRACES,
    VIEW,
    Origin,
    chosen,
    format_ends,
    format_value,
    reading,
)
from streamcli.results.schema import Benchmark, DocumentRow, Probe, Run, Trace

TABLES: list[tuple[Any, dict[str, Any]]] = [
    (DocumentRow, DOCUMENTS),
    (Trace, TRACES),
    (Benchmark, BENCHMARKS),
    (Probe, PROBES),
]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("ppl", 36.789, "36.79"),
        ("ppl", 999.994, "999.99"),
        ("ppl", 999.996, "1.00e+03"),
        ("ppl", 123456.0, "1.23e+05"),
        ("ppl", math.inf, "inf"),
        ("ppl", math.nan, "-"),
        ("ppl", None, "-"),
        ("ms_per_token", 26.123, "26.1"),
        ("ms_per_token", 1.0749, "1.07"),
        ("ms_per_token", 0.041239, "0.0412"),
        ("ms_per_token", 9.996, "10.0"),
        ("ms_per_token", 999.6, "1,000"),
        ("ms_per_token", 1234.5, "1,234"),
        ("ms_per_token", 0.0, "0"),
        ("kv_mib", np.float32(11.5), "11.5"),
        ("kv_mib", -math.inf, "-inf"),
        ("scored_tokens", 1_234_567, "1,234,567"),
        ("scored_tokens", np.int64(4095), "4,095"),
        ("window", 1020.0, "1,020"),
        ("window", pd.NA, "-"),
        ("seed", 20260131, "20260131"),
        ("nll_nats", 3.60512, "3.6051"),
        ("attended_keys_mean", 1024.96, "1,025.0"),
        ("trust", np.True_, "yes"),
        ("git_dirty", False, "no"),
        ("git_dirty", None, "-"),
        ("run_id", "01M85S67KH19NXVYYP8DJAPRRP", "01M85S67KH19NXVYYP8DJAPRRP"),
        ("git_commit", "0123456789abcdef" * 2, "0123456789"),
        ("model_revision", "2026.11.24.post1", "2026.11.24.post1"),
        ("notes", "One.\nTwo.", "One. Two."),
    ],
)
def test_a_cell_shows(name: str, value: Any, shown: str) -> None:
    assert format_value(COLUMNS[name], value) == shown


def test_every_column_says_what_it_is() -> None:
    for name, column in ALL.items():
        assert column.name == name and column.title and len(column.help) > 5
        assert not column.help.endswith(".")
        assert column.align == ("left" if column.form in ("text", "sha", "flag") else "right")
        for suffix, unit in (("_s", "s"), ("_mib", "MiB"), ("_nats", "nats")):
            assert column.unit == unit or not name.endswith(suffix) or name == "tokens_per_s"


def test_titles_differ() -> None:
    assert len({column.title for column in COLUMNS.values()}) == len(COLUMNS)


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        (Origin.CONFIG, RunConfig),
        (Origin.FACTS, RunFacts),
        (Origin.ENVIRONMENT, Environment),
        (Origin.RESULT, RunResult),
    ],
)
def test_a_column_comes_from_where_it_says(origin: Origin, source: Any) -> None:
    held = {field.name for field in fields(source)}
    held |= {name for name, kind in vars(source).items() if isinstance(kind, property)}
    assert set(chosen(origin=origin)) <= held


def test_what_is_stored_and_what_is_derived_are_apart() -> None:
    assert list(COLUMNS) == list(Run.model_fields) == list(ALL)[: len(COLUMNS)]
    derived = set(chosen(origin=Origin.DERIVED))
    assert derived == set(ALL) - set(COLUMNS) >= set(ADDED)
    assert Origin.TABLE not in {column.origin for column in ALL.values()}


def test_every_stored_column_is_on_the_page_of_a_run_once() -> None:
    shown = [name for groups in HEADINGS.values() for name in chosen(*groups, stored=True)]
    assert sorted(shown) == sorted(COLUMNS)


def test_every_column_of_every_table_says_what_it_is() -> None:
    for model, columns in TABLES:
        names = set(model.model_fields)
        assert all(name in columns or name in COLUMNS for name in names)
        assert {n for n, c in columns.items() if c.origin is not Origin.DERIVED} <= names


def test_tables_read_from_what_was_asked_to_what_was_found() -> None:
    assert " ".join(TABLE) == (
        "model dataset mode method n_sink window attended_keys budget_mib ppl ppl_change accuracy "
        "compared_ms speed_up kv_mib peak_mem_mib"
    )
    assert set(ASKED) < set(TABLE) and set(reading(VIEW)) == set(VIEW)


def test_a_new_order_of_columns_is_no_new_index_of_the_database() -> None:
    assert " ".join(SAME_RUN) == "config_key weights_sha256 files_sha256 tokens_sha256 host"


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (-0.091, -0.042, " (-9.1 to -4.2)"),
        (0.95, 1.9, " (+95.0 to +190.0)"),
        (0.9, 12.0, " (+90 to +1,200)"),
        (-0.0012, 0.0003, " (-0.12 to +0.03)"),
        (0.0, 0.0, " (+0.00 to +0.00)"),
        (math.nan, 0.1, ""),
        (None, None, ""),
    ],
)
def test_an_interval_is_written_to_two_digits_of_its_width(
    low: float | None, high: float | None, shown: str
) -> None:
    assert format_ends(low, high) == shown
