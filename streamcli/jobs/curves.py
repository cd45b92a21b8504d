"""Curves that others published, a token a line, read from CSV files."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import UsageError

NLL = "nll"


def read(path: Path) -> NDArray[np.float32]:
    """The nats of every token (T,), from the column ``nll`` of a CSV file with a header.

    Raises:
        UsageError: It can't be read, has no such column, or a value in it is no number.
    """
    nats = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if NLL not in (rows.fieldnames or ()):
                found = ", ".join(rows.fieldnames or ()) or "none"
                raise UsageError(f"{path} has no column {NLL!r} (its columns: {found}).")
            for row in rows:
                nats.append(_number(row[NLL], f"{path} line {rows.line_num}"))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no CSV file: {error}.") from error
    if not nats:
        raise UsageError(f"{path} has no rows: a curve is a line a token.")
    return np.array(nats, np.float32)


def _number(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where}: {NLL} is {text!r}: it must be a number of nats.")
    return value
