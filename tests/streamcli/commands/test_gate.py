"""``streamcli compare --fail-above``: what a gate fails, passes and doesn't judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamcli.results.store import Store
from tests.support.records import FOUR, recorded, run_ids
from tests.support.reported import DB, compare
from tests.support.typed import Type


def slower(home: Path, ratio: float) -> list[str]:
    """Two commits of one configuration, the second one slower."""
    new = {"git_commit": "e" * 40, "ms_per_token_p50": 4.31 * ratio}
    return run_ids(recorded(home / DB, FOUR[0], new))


@pytest.mark.parametrize(
    ("ratio", "limit", "code"),
    [(1.05, "2%", 1), (1.05, "0.02", 1), (1.05, "6%", 0), (0.5, "0%", 0)],
)
@pytest.mark.slow
def test_the_gate_fails_a_slower_commit_and_names_it(
    home: Path, typed: Type, ratio: float, limit: str, code: int
) -> None:
    runs = slower(home, ratio)
    for words in (runs, ("--commit", "0123", "--commit", "eeee")):
        done = compare(typed, *words, "--fail-above", limit)
        assert done.code == code
        if code:
            assert done.err.count("\n") == 1
            assert "time a token of streaming (S=4 W=60, decode-loop, bundled-na" in done.err
            assert "+5.0%" in done.err


def test_the_gate_on_methods_is_of_perplexity_and_not_of_time(four: Store, typed: Type) -> None:
    assert compare(typed, "--baseline", "window", "--fail-above", "1%").code == 0


def test_the_gate_does_not_pass_what_was_not_compared(home: Path, typed: Type) -> None:
    recorded(home / DB, FOUR[0])
    done = compare(typed, "--fail-above", "2%")
    assert done.code == 1 and "nothing could be compared" in done.err.splitlines()[-1]
