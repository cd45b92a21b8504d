"""The command line as a user types it: what goes where, exit codes, and rows."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from core import runner
from core.errors import StreamError
from streamcli import cli
from streamcli.results import frames
from streamcli.results.columns import COLUMNS
from streamcli.results.store import Store
from tests.support.process import typed_in_fork
from tests.support.typed import Type

pytestmark = pytest.mark.usefixtures("home")

QUICK = ("--model", "bundled", "--dataset", "bundled-narrative", "--max-tokens", "120")
SMALL = (*QUICK, "--window", "20", "--mode", "chunked")


def rows(db: str = "data/streamcli.db") -> Any:
    return frames.runs(Store.open(db), status=None)


def test_a_run_prints_its_table_and_is_recorded(typed: Type) -> None:
    done = typed("run", *SMALL)
    assert done.code == 0
    assert "bundled on bundled-narrative (119 tokens scored), chunked, float32" in done.out
    assert re.search(r"recorded in /.+/data/streamcli.db; next: streamcli report\n", done.err)
    (row,) = rows().to_dict("records")
    assert (row["status"], row["method"]) == ("done", "streaming")
    assert (row["n_sink"], row["window"]) == (4, 20)


def test_json_is_one_object_whose_keys_are_the_columns_and_nothing_else(typed: Type) -> None:
    done = typed("run", *SMALL, "--json")
    found = json.loads(done.out)
    assert list(found) == list(COLUMNS)
    assert found["scored_tokens"] == 119 and found["attended_keys"] == 25
    assert found["ms_per_token_p50"] is None
    assert done.out.count("\n") == 1


def test_repeats_are_rows_of_their_own(typed: Type) -> None:
    done = typed("run", *SMALL, "--repeats", "2", "--json")
    first, second = [json.loads(line) for line in done.out.splitlines()]
    assert first["run_id"] != second["run_id"]
    assert (first["repeat"], second["repeat"]) == (0, 1)
    assert first["config_key"] == second["config_key"]
    assert first["nll_nats"] == second["nll_nats"]


def test_a_variable_sets_what_a_flag_would(typed: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMCLI_WINDOW", "17")
    monkeypatch.setenv("STREAMCLI_DATABASE_URL", "elsewhere.db")
    found = json.loads(typed("run", *QUICK, "--mode", "chunked", "--json").out)
    assert found["window"] == 17
    assert len(rows("elsewhere.db")) == 1


@pytest.mark.slow
def test_a_sweep_takes_values_separated_by_spaces_commas_or_repeats(typed: Type) -> None:
    done = typed(
        *("sweep", "--models", "bundled", "--datasets", "bundled-narrative"),
        *("--methods", "streaming", "window,recompute", "--methods", "dense"),
        *("--modes", "chunked", "--windows", "20", "30", "--max-tokens", "120"),
    )
    assert done.code == 0
    assert len(rows()) == 7  # dense has no budget
    assert set(rows()["attended_keys"]) == {25, 35, 119}
    assert "7/7" in done.err


@pytest.mark.slow
def test_a_sweep_leaves_an_option_out_where_a_mode_does_not_have_it(typed: Type) -> None:
    words = ("--methods", "streaming", "mit", "--windows", "20", "--max-tokens", "90")
    limits = ("--timed-tokens", "9", "--context-tokens", "40", "--evict-every", "8")
    data = ("--models", "bundled", "--datasets", "bundled-narrative")
    done = typed("sweep", *data, *words, *limits)
    assert done.code == 0, done.err
    assert set(rows()["mode"]) == {"decode-loop", "chunked", "kvpress-official"}
    assert set(rows()["timed_tokens"].dropna()) == {9}


@pytest.mark.slow
def test_a_report_compares_only_what_may_be_compared(typed: Type) -> None:
    for method in ("streaming", "recompute"):
        typed("run", *SMALL, "--method", method)
    typed("run", *SMALL, "--dtype", "bfloat16")
    typed("run", *SMALL)
    done = typed("report", "--format", "markdown")
    tables = re.findall(r"^\*\*(.+)\*\*$", done.out, re.MULTILINE)
    assert len(tables) == 4 and tables[0].startswith("Overview") and "bfloat16" in "".join(tables)
    assert tables[-1] == "Notes on these tables"
    line = next(line for line in done.out.splitlines() if line.startswith("| streaming"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    by_method = rows().query("dtype == 'float32'").drop_duplicates("method").set_index("method")
    change = by_method.loc["streaming", "ppl"] / by_method.loc["recompute", "ppl"] - 1
    assert cells[5] == f"{change:+.2%}"
    assert "not shown: 1 older run of the same configurations" in done.out


BAD = {
    "run --method steaming": "unknown method 'steaming': choose one of",
    "run --mode chunkd": "Did you mean 'chunked'?",
    "run --dataset wikitxt": "Did you mean 'wikitext'?",
    "run --model bundeld": "Did you mean 'bundled'?",
    "run --dtype int8": "unknown dtype 'int8'",
    "run --source web": "unknown source 'web'",
    "run --model bundled --device tpu": "unknown device 'tpu'",
    "run --model bundled --device cuda:99": "device 'cuda:99' is not available",
    "run --window 0": "window is 0: it must be 1 or more",
    "run --n-sink -1": "n_sink is -1: it must be 0 or more",
    "run --chunk-size 0": "chunk_size is 0: it must be 1 or more",
    "run --window ten": "Invalid value for '--window'",
    "run --window abc": "it is 'abc'",
    "run --model bundled --threads 5000": "threads is 5000",
    "run --model bundled --profile nowhere/p.json": "there is no folder nowhere",
    "run --model bundled --profile .": "can't be written",
    "plot --width 10": "it is '10'",
    "run --repeats 0": "--repeats is 0",
    "run --mode chunked --timed-tokens 5": "timed_tokens is for mode 'decode-loop'",
    "run --model bundled --dataset nothing.txt": "nothing.txt",
    "run --model bundled --dataset empty.txt": "empty.txt",
    "run --model bundled --dataset binary.txt": "binary.txt",
    "run --model bundled --dataset latin.txt": "latin.txt",
    "run --model nothing/at/all/here": "there is no file or folder",
    "sweep --datasets": "requires an argument",
    "rnu": "Did you mean 'run'?",
    "report --format pdf": "Invalid value for '--format': 'pdf' is not one of",
}


@pytest.mark.parametrize("words", BAD)
@pytest.mark.slow
def test_what_is_asked_wrongly_ends_in_one_line_with_code_2_and_no_trace(
    typed: Type, home: Path, words: str
) -> None:
    (home / "empty.txt").touch()
    (home / "binary.txt").write_bytes(bytes(range(256)) * 9)
    (home / "latin.txt").write_bytes("déjà vu ".encode("latin-1") * 99)
    assert typed(*words.split()).refuses(2, BAD[words])
    assert not (home / "data").exists()


def test_more_tokens_than_the_text_has_runs_on_what_is_there_and_says_so(
    typed: Type, home: Path
) -> None:
    (home / "short.txt").write_text("A short text, and no more than that. " * 9)
    done = typed("run", "--model", "bundled", "--dataset", "short.txt", "--mode", "chunked")
    assert done.code == 0
    assert "asked for 1024 tokens, the text has" in done.err
    assert rows()["scored_tokens"].iloc[0] < 200


def test_a_batch_that_the_text_does_not_fill_is_told(typed: Type) -> None:
    done = typed("run", *SMALL, "--batch-size", "4")
    said = "batch_size is 4, but bundled-narrative has 1 document to read: no more go in step."
    assert done.code == 0 and f"streamcli: {said}\n" in done.err
    assert "no more go in step" not in typed("run", *SMALL).err


PRODUCTS = ("aten::addmm", "streamcli::widen", "streamcli::share")


@pytest.mark.slow
def test_a_profile_is_of_forwards_that_no_record_holds(home: Path) -> None:
    kinds = ("--mode chunked", "--timed-tokens 9", "--method mit --mode kvpress-official")
    lines = [
        ["run", *QUICK, "--window", "20", *kind.split(), "--profile", f"{place}.json", "--json"]
        for place, kind in enumerate(kinds)
    ]
    ended = typed_in_fork(*lines, folder=home)
    for place, done in enumerate(ended):
        assert done.code == 0, done.err
        assert all(line.startswith("streamcli: ") for line in done.err.splitlines())
        events = json.loads((home / f"{place}.json").read_text())["traceEvents"]
        products = sum(event.get("name") in PRODUCTS for event in events)
        # Four layers of four in each forward; in a single step the head is read as they are.
        assert products and products % (16, 16, 17)[place] == 0
    names = [json.loads(done.out)["run_id"] for done in ended]
    assert sorted(names) == sorted(rows()["run_id"])


UNWRITABLE = {
    "report --out {}": "r.md",
    "report --format csv --out {}": "r.csv",
    "db export {}": "r.jsonl",
    "db export {} --mode chunked": "r.csv",
    "plot --out {}": "figures",
    "bundle latest --out {}": "folder",
    f"run {' '.join(SMALL)} --profile {{}}": "trace.json",
    f"run {' '.join(SMALL)} --db {{}}": "x.db",
    "sweep --models bundled --datasets bundled-narrative --modes chunked --methods window mit "
    "--windows 20 --max-tokens 60 --db {}": "x.db",
    "bench decode --shape tiny --rounds 2 --steps 1 --windows 8 --db {}": "x.db",
    "db import runs.jsonl --db {}": "x.db",
    "db merge data/streamcli.db --db {}": "x.db",
    "report --db {}": "x.db",
    "db stats --db {}": "x.db",
}


@pytest.mark.parametrize("words", UNWRITABLE)
@pytest.mark.parametrize("where", ["file.txt/", "loop/", "x" * 300], ids=["file", "loop", "long"])
def test_a_named_place_that_can_not_be_written_is_one_line_with_code_2(
    typed: Type, store: Store, home: Path, words: str, where: str
) -> None:
    typed("db", "export", "runs.jsonl")
    (home / "file.txt").write_text("text")
    (home / "loop").symlink_to("loop")
    place = f"{where}{UNWRITABLE[words]}"
    there = sorted(home.rglob("*"))
    done = typed(*words.format(place).split())
    last = done.err.splitlines()[-1]
    assert (done.code, done.out) == (2, "")
    assert last.startswith("streamcli: ") and place in last and "Error" not in last
    assert sorted(home.rglob("*")) == there


def test_an_interrupted_run_is_a_row_that_says_so(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "execute", interrupted)
    done = typed("run", *SMALL)
    assert done.code == 130 and done.err.startswith("streamcli: interrupted; run ")
    assert list(rows()["status"]) == ["interrupted"]


def test_running_out_of_memory_is_a_row_and_a_line_with_a_way_out(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from core.modes import chunked

    def full(*_: Any) -> None:
        torch.empty(2**50)

    monkeypatch.setattr(chunked, "score", full)
    done = typed("run", *SMALL)
    assert done.code == 1 and "smaller --chunk-size" in done.err.splitlines()[-1]
    assert rows()["error"].iloc[0].startswith("out of memory")


def test_an_unforeseen_error_is_one_line_and_a_traceback_only_with_debug(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(runner, "execute", broken)
    done = typed("run", *SMALL)
    assert done.code == 1
    assert done.err.splitlines()[-1] == "streamcli: RuntimeError: first line second line"
    monkeypatch.setattr(sys, "argv", ["streamcli", "--debug", "run", *SMALL])
    with pytest.raises(StreamError) as caught:
        cli.main()
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_streamcli_alone_shows_what_to_do_first(typed: Type) -> None:
    done = typed()
    assert done.code == 0 and re.search(r"Start with.+\n.+ streamcli run +│\n", done.out)


@pytest.mark.slow
def test_json_is_asked_for_in_two_ways_by_every_command_that_has_either(typed: Type) -> None:
    """Walks the commands, so that a new one is not forgotten."""
    import typer

    def leaves(at: Any, path: list[str]) -> list[tuple[list[str], Any]]:
        below = getattr(at, "commands", {})
        if not below:
            return [(path, at)]
        return [leaf for name, each in below.items() for leaf in leaves(each, [*path, name])]

    asked = []
    for path, command in leaves(typer.main.get_command(cli.app), []):
        flags = {flag for each in command.params for flag in each.opts}
        if "--json" in flags or ("--format" in flags and "json" in typed(*path, "--help").out):
            want = "--json" if "--json" in flags else "--format=json"
            for words in (["--json"], ["--format", "json"], ["--format=json"]):
                found = " ".join(cli.spread([*path, *words])).replace("--format ", "--format=")
                assert found == " ".join([*path, want])
            asked.append(path)
    assert len(asked) >= 7
    assert cli.spread(["plot", "--format", "png"]) == ["plot", "--format", "png"]
    typed("run", *SMALL)
    for words in (["runs", "show", "latest"], ["report"], ["runs", "list"], ["db", "stats"]):
        told = [typed(*words, *how).out for how in (["--json"], ["--format", "json"])]
        assert told[0] == told[1] and json.loads(told[0])


def test_debug_before_the_command_makes_no_other_words_of_the_rest() -> None:
    for words in ("sweep --dataset a b", "run --method streaming-int --kv-bits 4"):
        rest = cli.spread(words.split())
        assert cli.spread(["--debug", *words.split()]) == ["--debug", *rest] and "4" not in rest
