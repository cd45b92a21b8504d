"""Every column says what it is, and a cell shows a value as a reader expects it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from streamcli.results.columns import COLUMNS, DEFAULT, PUBLIC, format_value


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
    for name, column in COLUMNS.items():
        assert column.name == name and column.title and len(column.help) > 5
        assert not column.help.endswith(".")
        assert column.align == ("left" if column.form in ("text", "sha", "flag") else "right")
        for suffix, unit in (("_s", "s"), ("_mib", "MiB"), ("_nats", "nats")):
            assert column.unit == unit or not name.endswith(suffix) or name == "tokens_per_s"


def test_titles_differ() -> None:
    assert len({column.title for column in COLUMNS.values()}) == len(COLUMNS)


def test_a_report_shows_public_columns() -> None:
    assert set(DEFAULT) <= set(PUBLIC)
