"""What a command shows of the runs that it has just made follows the rule of every report."""

from __future__ import annotations

import pytest

from streamcli.analysis.selection import of_repeats
from streamcli.render import notes
from tests.support.figure_runs import frame, run

TIME = "ms_per_token_p50"


def test_times_are_the_median_over_repeats_and_perplexity_is_the_latest() -> None:
    waits = {(1, "recompute"): 0.25, (2, "recompute"): 0.125, (2, "streaming"): 0.0}
    rows = [
        run(3 * turn + place, method=method, repeat=turn, sweep="S", ppl=30.0 + turn)
        | {TIME: ms, "waited": waits.get((turn, method))}
        for turn, times in enumerate([(10.0, 40.0), (20.0, 50.0), (30.0, 60.0)])
        for place, (method, ms) in enumerate(zip(("streaming", "recompute"), times, strict=True))
    ]
    newest_first = frame(rows).sort_values("run_id", ascending=False)
    [found] = of_repeats(newest_first)
    shown = {row["method"]: row for row in found.runs.to_dict("records")}
    assert (shown["streaming"]["compared_ms"], shown["recompute"]["compared_ms"]) == (20.0, 50.0)
    assert shown["streaming"]["ppl"] == 32.0
    assert shown["streaming"]["speed_up"] == pytest.approx((4 * 2.5 * 2) ** (1 / 3))
    assert [row["compared_waited"] for row in shown.values()] == [0.0, 0.25]
    assert notes.repeated(found.rows).startswith("; of several runs of a configuration")
