"""Arms are timed in turn and held against each other round by round; rows go where they belong."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch

from core import engine, extras, weights
from core.config import RunConfig
from core.errors import UsageError
from core.measure import bench, floors
from core.measure.bench import Arm
from core.measure.floors import Machine, Work
from core.methods.base import Stream
from core.models import shapes
from streamcli.jobs import bench as job
from streamcli.results.schema import unpack
from streamcli.results.store import Store
from tests.support.databases import sql
from tests.support.typed import DB, Type

pytestmark = pytest.mark.usefixtures("little")


def arm(name: str, log: list[str]) -> Arm:
    again = partial(arm, name, log)
    return Arm(RunConfig(window=8), lambda: log.append(name), 1, Work(1, 1), again, label=name)


def test_every_round_takes_every_arm_in_an_order_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Machine, "measure", lambda self: None)
    log: list[str] = []
    arms = [arm(name, log) for name in "abc"]
    assert list(bench.run(arms, Machine("cpu", torch.float32), 8, 1, seed=0)) == list(range(1, 9))
    rounds = ["".join(log[6 + 6 * i : 12 + 6 * i : 2]) for i in range(8)]
    assert all(sorted(each) == list("abc") for each in rounds)
    assert len(set(rounds)) > 2
    assert all(len(each.rounds_ms) == 8 for each in arms)
    with pytest.raises(UsageError, match="nothing to time"):
        list(bench.run([], Machine("cpu", torch.float32), 8, 1, seed=0))


def test_a_ratio_is_taken_round_by_round_so_that_a_slow_minute_cancels() -> None:
    ours, base = arm("a", []), arm("b", [])
    minute = np.array([1.0, 10, 2, 5, 3, 8, 1])
    ours.rounds_ms = [[t] for t in 3 * minute]
    base.rounds_ms = [[t] for t in 6 * minute]
    found = bench.ratio(ours, base)
    assert (found.median, found.low, found.high) == (0.5, 0.5, 0.5)
    wide = bench.figure(3 * minute)
    assert wide.low < wide.median == 9 < wide.high


def test_a_recomputing_arm_encodes_its_budget_at_every_step() -> None:
    loaded = shapes.build("tiny", dtype="float32", device="cpu")
    asked = RunConfig(method="recompute", n_sink=4, window=27, device="cpu")
    fed = bench.decode_arm(loaded, asked)
    logits = fed.step()
    assert isinstance(logits, torch.Tensor) and logits.shape == (1, 1, 512)
    assert fed.kv_mib == 0 and fed.work.flops > 20 * floors.decode_work(loaded.model, 32).flops


@pytest.mark.slow
def test_an_arm_that_holds_everything_reads_it_and_is_held_against_no_budget(typed: Type) -> None:
    loaded = shapes.build("tiny", dtype="float32", device="cpu")
    asked = RunConfig(method="dense", n_sink=4, window=27, device="cpu")
    fed = bench.decode_arm(loaded, asked)
    held = fed.kv_mib * 2**20 / (4 * 2 * 2 * 64)  # bytes x keys and values x layers x K D
    with weights.for_decoding(loaded.model, 1):
        assert held > 200 and fed.work == floors.decode_work(loaded.model, int(held) + 1)
    words = ["--shape", "tiny", "--methods", "streaming", "dense", "recompute", "--windows", "28"]
    words += ["--engines", "eager", "--rounds", "2", "--steps", "3", "--json"]
    rows = {row["arm"]: row for row in json.loads(typed("bench", "decode", *words).out)}
    assert rows["streaming"]["speed_ups"] and not rows["dense"]["speed_ups"]


@pytest.mark.slow
def test_what_else_may_stay_is_timed_beside_streaming_and_each_arm_has_a_floor_of_its_own(
    typed: Type,
) -> None:
    kept = ("context-shift", "tova", "h2o", "keydiff", "knorm")
    words = ["--shape", "tiny", "--methods", "streaming", *kept, "--windows", "28"]
    words += ["--engines", "eager", "--rounds", "2", "--steps", "2"]
    rows = {row["arm"]: row for row in json.loads(typed("bench", "decode", *words, "--json").out)}
    assert all(set(rows[name]["ratios"]) == {"streaming"} for name in kept)
    assert rows["streaming"]["ratios"] == {} and {r["attended_keys"] for r in rows.values()} == {33}
    floors_ms = {name: rows[name]["floor_ms"] for name in kept}
    assert floors_ms.pop("context-shift") < rows["streaming"]["floor_ms"]
    assert set(floors_ms.values()) == {rows["streaming"]["floor_ms"]}
    assert "S + W = 32" in typed("bench", "--show", "latest").out


@pytest.mark.parametrize(
    ("method", "every", "mean"),
    [("streaming", None, 33), ("streaming", 8, 36), ("context-shift", None, 26)],
)
@pytest.mark.slow
def test_a_floor_is_of_the_keys_that_the_steps_of_a_cycle_see_on_average(
    method: str, every: int | None, mean: int
) -> None:
    loaded = shapes.build("tiny", dtype="float32", device="cpu")
    asked = RunConfig(method=method, n_sink=4, window=28, device="cpu", evict_every=every)
    fed = bench.decode_arm(loaded, asked)
    with weights.for_decoding(loaded.model, 1):
        assert fed.work == floors.decode_work(loaded.model, mean)
    # 33 in steps of 1; 33 to 40 where one in 8 evicts; 20 to 33 where 14 leave at a time
    assert fed.cycle == {"streaming": every or 1, "context-shift": 14}[method]


@pytest.mark.slow
def test_bench_prints_rows_and_records_them_apart_from_the_runs(
    tmp_path: Path, typed: Type
) -> None:
    where = str(tmp_path / "b.db")
    words = ["bench", "decode", "--shape", "tiny", "--methods", "streaming", "mit", "recompute"]
    words += ["--engines", "eager", "--windows", "28", "60", "--rounds", "2", "--steps", "3"]
    code, out, _ = typed(*words, "--json", "--db", where)
    assert code == 0
    rows = json.loads(out)
    assert [(row["arm"], row["window"]) for row in rows] == [
        *((method, window) for window in (28, 60) for method in ("streaming", "mit", "recompute")),
        ("streaming, again", 28),
    ]
    for row in rows:
        assert row["floor_ms"] > 0 and row["ms_per_token"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["ratio_to_floor"] == row["ms_per_token"] / row["floor_ms"]
    assert set(rows[0]["ratios"]) == {"mit"} and set(rows[0]["speed_ups"]) == {"recompute"}
    kept = sql(Store.open(where), "SELECT model, engine, rounds, latency_ms FROM benchmarks")
    assert sql(Store.open(where), "SELECT * FROM runs") == []
    assert len(kept) == 7 and kept[0][:3] == ("random:tiny", "eager", 2)
    assert len(unpack(kept[0][3])) == 6


@pytest.mark.slow
def test_a_recorded_benchmark_is_listed_and_shown_as_it_was_in_a_file_too(
    typed: Type, home: Path
) -> None:
    words = "bench decode --shape tiny --methods streaming recompute --rounds 2 --steps 2"
    first = typed(*words.split(), "--windows", "28", "60", "--engines", "eager").out.splitlines()
    typed(*words.split(), "--windows", "28", "--engines", "eager")
    names = [row["benchmark_id"] for row in json.loads(typed("bench", "--list", "--json").out)]
    assert len(names) == 2 and names[0] > names[1]
    again = typed("bench", "--show", names[1]).out.splitlines()
    [also] = [line for line in again if line not in first]
    assert [line for line in again if line != also] == first
    assert words.split(" --r")[0] in also and "--windows 28 60 --rounds 2" in also
    rows = json.loads(typed("bench", "--show", "latest", "--json").out)
    assert [row["arm"] for row in rows] == ["streaming", "recompute", "streaming, again"]
    assert list(rows[0]["speed_ups"]) == ["recompute"]
    listing = typed("bench", "--list").out
    assert "2 benchmarks" in listing and "random:tiny" in listing

    drawn = typed("bench", "--show", names[1], "--out", "w.html")
    caption = (home / "w.html").read_text().partition("<figcaption>")[2]
    assert drawn.code == 0 and "bench decode --shape tiny" in caption, "with machine and date"
    assert typed("bench", "--show", "latest", "--out", "w.html").refuses(2, "--windows")

    page = home / "page.md"
    page.write_text(
        f"<!-- streamcli:begin bench show={names[1]} -->\n<!-- streamcli:end bench -->\n"
    )
    assert typed("report", "--update", str(page)).code == 0
    assert page.read_text().count("| recompute ") == 2 and words[:22] in page.read_text()
    exported = typed("db", "export", "out.jsonl").code, typed("db", "import", "out.jsonl").code
    assert exported == (0, 0)


def test_what_is_asked_of_recorded_benchmarks_and_is_not_there_is_refused_in_one_line(
    typed: Type, home: Path
) -> None:
    assert typed("bench").refuses(2, "decode, window", "what to time")
    assert typed("bench", "--list").err.count("has no benchmark yet") == 1
    assert typed("bench", "--show", "latest").refuses(2, "no benchmark yet", "`streamcli bench`")
    assert typed("bench", "--show", "01Z").refuses(2, "'01Z': `streamcli bench --list` shows them")
    assert typed("bench", "decode", "--show", "latest").refuses(2, "--show", "leave WHAT out")
    assert typed("bench", "--list", "--rounds", "2").refuses(2, "--list", "leave --rounds out")
    words = "bench decode --shape tiny --windows 28 --rounds 2 --steps 1 --engines eager"
    typed(*words.split(), "--methods", "streaming")
    sql(Store.open(DB), "UPDATE benchmarks SET about = NULL, shown = NULL")  # an older version's
    assert typed("bench", "--show", "latest").refuses(2, "kept times and no table", "time it again")


@pytest.mark.slow
def test_peers_are_timed_as_shipped_too_and_both_ratios_are_given(typed: Type) -> None:
    words = "bench decode --shape tiny --methods streaming mit --windows 28 --rounds 2 --steps 1"
    engines = ["--engines", "eager", "as-shipped"]
    rows = {row["arm"]: row for row in json.loads(typed(*words.split(), *engines, "--json").out)}
    assert set(rows["streaming"]["ratios"]) == {"mit", "mit, as shipped"}
    assert rows["mit, as shipped"]["engine"] == "as-shipped"
    assert rows["mit, as shipped"]["floor_ms"] > rows["mit"]["floor_ms"] or not weights.compiler()


@pytest.mark.slow
def test_tokens_of_several_documents_in_step_share_a_step_and_are_held_against_their_like(
    typed: Type, home: Path
) -> None:
    words = "bench decode --shape tiny --methods streaming recompute --windows 28 --rounds 2"
    more = ["--steps", "1", "--engines", "eager", "--batch-sizes", "1", "4", "--json"]
    rows = [row for row in json.loads(typed(*words.split(), *more).out) if not row["twin"]]
    assert [row["batch_size"] for row in rows] == [1, 1, 4, 4]
    one, four = (row for row in rows if row["arm"] == "streaming")
    assert four["kv_mib"] == 4 * one["kv_mib"]
    assert four["tokens_per_s"] == 1000 / four["ms_per_token"]
    assert set(four["speed_ups"]) == {"recompute"}
    assert four["floor_ms"] <= one["floor_ms"]  # weights are read once for all four
    kept = sql(Store.open(DB), "SELECT batch_size, step_mib, length FROM benchmarks")
    assert [row[0] for row in kept] == [1, 1, 4, 4, 1] and all(row[1] > 0 for row in kept)
    assert {row[2] for row in kept} == {None}


def test_a_prompt_is_read_whole_by_a_cache_and_its_last_tokens_alone_by_recomputation() -> None:
    loaded = shapes.build("tiny", dtype="float32", device="cpu")
    asked = RunConfig(n_sink=4, window=27, device="cpu", chunk_size=16, method="streaming")
    streamed = [bench.prompt_arm(loaded, asked, length) for length in (100, 200)]
    assert 1.9 < streamed[1].work.flops / streamed[0].work.flops < 2.1
    encoded = [
        bench.prompt_arm(loaded, replace(asked, method="recompute"), length)
        for length in (100, 200)
    ]
    assert encoded[0].work == encoded[1].work
    made = streamed[1].step()
    assert isinstance(made, Stream) and made.held() == 31
    assert streamed[1].kv_mib == streamed[0].kv_mib > 0


@pytest.mark.slow
def test_a_figure_of_a_benchmark_shows_each_arm_along_the_axis(typed: Type, tmp_path: Path) -> None:
    words = "bench prompt --shape tiny --methods streaming dense --windows 28 --rounds 2"
    page = tmp_path / "figures" / "prompts.html"
    done = typed(*words.split(), "--lengths", "40", "80", "--out", str(page))
    assert done.code == 0 and "first" in done.out
    drawn = page.read_text()
    for name in ("streaming", "dense", "ms to the first token", "tokens of the prompt"):
        assert name in drawn
    for words in ("median over 2 rounds", "was timed as two arms", "2 rounds are too few"):
        assert words in drawn.partition("<figcaption>")[2]
    assert (page.parent / "plotly.min.js").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("window --out w.gif", ".gif"),
        ("window --windows 28 --out w.html", "--windows"),
        ("prompt --lengths 28 --out w.html", "--lengths"),
        ("decode --batch-sizes 0", "batch_size is 0"),
        ("length --batch-sizes 2", "--batch-sizes is for bench decode"),
    ],
)
def test_a_figure_or_size_that_cannot_be_is_refused_before_anything_is_timed(
    typed: Type, monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    monkeypatch.setattr(bench, "run", lambda *_: pytest.fail("timed"))
    assert typed("bench", *words.split(), "--shape", "tiny").refuses(2, told)


def test_one_arm_timed_twice_tells_how_far_ratios_can_be_trusted() -> None:
    first, twin = arm("a", []), arm("a, again", [])
    twin.twin = first
    first.rounds_ms = [[10.0 + 0.01 * i] for i in range(8)]
    for factor, doubted in ((1.0, False), (1.1, True)):
        twin.rounds_ms = [[factor * (10 + 0.01 * (7 - i))] for i in range(8)]
        [note] = job._twice([first, twin])
        assert note.startswith("UNSTABLE") is doubted
    twin.rounds_ms = [[10.0 * (2 if i % 2 else 0.5)] for i in range(8)]
    assert [*job._twice([first, twin])][0].startswith("UNSTABLE")


def test_a_database_that_cannot_be_opened_is_told_before_anything_is_timed(
    typed: Type, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "run", lambda *_: pytest.fail("timed"))
    (home / "no.db").write_text("text, and no database at all")
    done = typed("bench", "decode", "--shape", "tiny", "--windows", "28", "--db", "no.db")
    assert done.refuses(2, "no.db")


@pytest.mark.slow
def test_what_nobody_named_is_left_out_where_it_cannot_run_and_what_is_named_is_refused(
    typed: Type, no_kvpress: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "compiler", lambda: None)
    words = "bench decode --shape tiny --windows 28 --rounds 2 --steps 1".split()  # noqa: SIM905
    done = typed(*words)
    assert done.code == 0
    assert "kvpress eager is left out" in done.err and "compiled is left out" in done.err
    assert "mit, as shipped" in done.out and "streaming was timed as two arms" in done.out
    assert "taken by other machines of the host" in done.out
    assert "2 rounds are too few for an interval" in done.out
    assert typed(*words, "--engines", "eager").code == 0
    for more in (("--engines", "compiled"), ("--methods", "kvpress")):
        assert typed(*words, *more).refuses(2)


@pytest.mark.parametrize(
    "words",
    [
        *("decode --dtype fp16", "decode --window 0", "length --lengths 0", "startup --db x.db"),
        *("decode --engine compild", "decode --window 20 9999999", "decode --n-sink -1"),
    ],
)
def test_bench_refuses_what_it_cannot_do_in_one_line(typed: Type, words: str) -> None:
    said = words.split()[1].strip("-").replace("-", "_")
    assert typed("bench", *words.split()).refuses(2, said)


def test_bench_refuses_what_does_not_exist(typed: Type) -> None:
    for option, value in (("--shape", "pythia-71m"), ("--methods", "stream")):
        assert typed("bench", "decode", option, value).refuses(2, value, "Did you mean")


@pytest.mark.slow
def test_startup_times_whole_commands_and_names_one_that_fails(
    typed: Type, in_process: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = json.loads(typed("bench", "startup", "--rounds", "2", "--json").out)
    names = ["--help", "run", "report", "compare", "plot"]
    assert [row["command"].split(",")[0] for row in rows] == names
    assert [words[0] for words in in_process] == names * 2
    monkeypatch.setattr(subprocess, "run", lambda call, **_: CompletedProcess(call, 1, "", "why"))
    failed = typed("bench", "startup", "--rounds", "2")
    assert (failed.code, failed.err) == (1, "streamcli: `streamcli --help` failed: why\n")


def test_a_method_whose_package_is_not_there_is_told_before_anything_is_built(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    monkeypatch.setattr(shapes, "build", lambda *_, **__: pytest.fail("a model was built"))
    done = typed("bench", "decode", "--methods", "streaming", "kvpress")
    assert done.refuses(2, "'kvpress' needs the package kvpress", "pip install")
