"""A published curve is read whole, or refused with the file, the line and the value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import UsageError
from streamcli.jobs import curves
from streamcli.render.figures.drawn import Drawn
from streamcli.render.figures.streams import laid_over


def test_the_column_of_nats_is_read_whatever_stands_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("input_length,nll,ppl\n1,4.3125,74.6\n2,6.5,751\n")
    assert curves.read(path).tolist() == [4.3125, 6.5]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("length,ppl\n1,2\n", "no column 'nll' (its columns: length, ppl)"),
        ("", "no column 'nll' (its columns: none)"),
        ("nll\n", "has no rows"),
        ("nll\n1.5\nx\n", "line 3: nll is 'x'"),
        ("a,nll\n1\n", "line 2: nll is None"),
        ("nll\nnan\n", "line 2: nll is 'nan'"),
    ],
)
def test_what_is_no_curve_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "curve.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        curves.read(path)
    assert told in str(refused.value) and str(path) in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"nll\n\xff\xfe\n")
    for name in ("nothing.csv", "bytes.csv"):
        with pytest.raises(UsageError, match=name):
            curves.read(tmp_path / name)


def test_a_figure_of_nothing_has_nothing_laid_over() -> None:
    none = Drawn("stream", "title", None, "nothing there")
    assert laid_over(none, {"curve": np.ones(3, np.float32)}) is none
