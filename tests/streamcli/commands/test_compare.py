"""``streamcli compare`` as it is typed: its tables, its records, its gate and its refusals."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.registry import METHODS, MODES
from core.result import wilson
from streamcli.analysis import published
from streamcli.analysis.comparison import Comparison, compared
from streamcli.results.schema import Run
from streamcli.results.store import Store
from tests.support.asked import Asked
from tests.support.process import imported
from tests.support.records import FOUR, differing, recorded
from tests.support.typed import Type

pytest_plugins = ("tests.support.typed", "tests.support.asked")

DB = "runs.db"


@pytest.fixture
def four(home: Path) -> Store:
    """Streaming, window, re-computation and dense, one run each, all with the same scores."""
    return recorded(home / DB, *FOUR)


def compare(typed: Type, *words: str) -> Any:
    return typed("compare", "--db", DB, *words)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def names(store: Store) -> list[str]:
    from streamcli.results import frames

    return [str(name) for name in frames.runs(store, sort="run_id")["run_id"]]


def test_the_command_of_the_mission_prints_one_table(four: Store, typed: Type) -> None:
    done = compare(typed, "--mode", "decode-loop")
    assert (done.code, done.err) == (0, "")
    assert "bundled on bundled-narrative (599 tokens scored), decode-loop, float32" in done.out
    for method in ("streaming", "window", "recompute", "dense"):
        assert f"\n{method} " in done.out


def test_markdown_has_a_row_a_method_and_says_how_it_was_made(four: Store, typed: Type) -> None:
    out = compare(typed, "--format", "markdown").out
    lines = [cells(line) for line in out.splitlines() if line.startswith("|")]
    assert lines[0] == [
        *("method", "S", "W", "keys", "runs", "ppl", "nats vs recompute", "ms/token"),
        *("speed-up", "KV (MiB)", "verdict"),
    ]
    rows = {line[0]: line for line in lines[2:]}
    assert rows["streaming"][6:9] == ["0.0000", "4.31", "4.66x"]
    assert rows["streaming"][-1] == "equal to 0.0001 nats"
    assert rows["recompute"][-1] == "baseline"
    assert rows["dense"][3] == "599*" and rows["dense"][-1] == "no budget"
    assert "one run each: use sweep --repeats 5 for an interval" in out
    assert "--across-budgets" in out


def test_json_is_a_list_of_objects_with_the_figures_as_numbers(four: Store, typed: Type) -> None:
    found = json.loads(compare(typed, "--format", "json").out)
    by_method = {row["method"]: row for row in found}
    streaming = by_method["streaming"]
    assert streaming["difference_nats"] == streaming["largest_nats"] == 0.0
    assert streaming["speed_up"] == pytest.approx(20.1 / 4.31)
    assert streaming["speed_up_low"] is None and streaming["rounds"] == 0
    assert streaming["baseline_run_id"] == by_method["recompute"]["run_id"]
    assert by_method["dense"]["baseline_run_id"] is None
    assert all(row["verdict"] for row in found)


def test_across_budgets_is_marked(four: Store, typed: Type) -> None:
    out = compare(typed, "--across-budgets", "--format", "markdown").out
    dense = next(cells(line) for line in out.splitlines() if line.startswith("| dense"))
    assert dense[6] == "0.0000" and dense[-1] == "no budget: equal to 0.0001 nats"
    assert "compared all the same" in out


def test_any_method_can_be_the_baseline(four: Store, typed: Type) -> None:
    out = compare(typed, "--baseline", "window", "--format", "markdown").out
    assert "nats vs window" in out and "| window | 0 | 64 | 65 | 1 | 217.51 | - |" in out


def test_a_filter_on_the_method_keeps_its_baseline(four: Store, typed: Type) -> None:
    found = json.loads(compare(typed, "--method", "streaming", "--format", "json").out)
    assert [row["method"] for row in found] == ["streaming", "recompute"]


def test_a_missing_baseline_is_told_with_the_command_that_records_it(
    home: Path, typed: Type
) -> None:
    recorded(home / DB, FOUR[0])
    done = compare(typed)
    assert done.code == 0 and "no recompute run" in done.out
    assert "streamcli run --model bundled --dataset bundled-narrative --method rec" in done.err


def test_an_empty_database_is_told_in_one_line(home: Path, typed: Type) -> None:
    Store.open(home / DB)
    done = compare(typed)
    assert (done.code, done.out) == (0, "")
    assert "holds no finished run that matches: record one with streamcli sweep" in done.err
    assert compare(typed, "--format", "json").out == "[]\n"


def test_only_the_newest_tables_are_shown_and_it_is_said(home: Path, typed: Type) -> None:
    texts = [{"dataset": f"text-{i}", "tokens_sha256": f"{i}" * 64} for i in range(7)]
    recorded(home / DB, *texts)
    done = compare(typed)
    assert "text-6" in done.out and "text-2" in done.out and "text-1" not in done.out
    assert "the newest 5 of 7 tables" in done.err
    assert "text-0" in compare(typed, "--limit", "0").out
    assert "text-5" not in compare(typed, "--limit", "1").out


def test_two_runs_stand_side_by_side(four: Store, typed: Type) -> None:
    streaming, window, recompute, _ = names(four)
    out = compare(typed, recompute, streaming, "--format", "markdown").out
    rows = {cells(line)[0]: cells(line) for line in out.splitlines() if line.startswith("|")}
    assert rows["method"][1:3] == ["recompute", "streaming"]
    assert rows["ppl"][1:3] == ["216.98", "216.21"]
    assert rows["ms/token"][3] == "4.66x speed-up, one run each"
    assert "model" not in rows and "window" not in rows
    found = json.loads(compare(typed, window, "latest", "--format", "json").out)
    assert [row["method"] for row in found] == ["dense"]


def test_two_commits_have_a_row_a_configuration(home: Path, typed: Type) -> None:
    new = {"git_commit": "e" * 40}
    recorded(home / DB, *FOUR[:3], *({**run, **new} for run in FOUR[:2]))
    done = compare(typed, "--commit", "0123", "--commit", "eeee", "--format", "markdown")
    assert "eeee against 0123" in done.out and "nats vs 0123" in done.out
    rows = [cells(line)[0] for line in done.out.splitlines() if line.startswith("|")]
    assert sorted(rows[2:]) == ["streaming", "window"]
    assert "1 configurations finished at one of the two commits only" in done.err


APART = {"streaming": 0.2, "mit": 0.0, "window": 0.0}


@pytest.mark.parametrize(
    ("lengths", "scope", "units"),
    [
        ([3000], "within this text, by Student's t", "tokens"),
        ([600] * 5, "over 5 documents, by Student's t", "documents"),
        ([50] * 60, "over 60 documents, by bootstrap-t", "documents"),
    ],
)
def test_it_says_what_an_interval_is_over_and_how_much_text_would_show_a_difference(
    home: Path, typed: Type, lengths: list[int], scope: str, units: str
) -> None:
    differing(home / DB, lengths, **APART)
    out = compare(typed, "--margin", "0.001", "--format", "markdown").out
    assert f"lower is better; 95 % interval {scope}." in out
    found = {
        row["method"]: row
        for row in json.loads(compare(typed, "--margin", "0.001", "--format", "json").out)
    }
    assert found["streaming"]["verdict"].startswith("worse by 0.19")
    assert found["mit"]["verdict"] == "no difference shown"
    needed, other = (found["mit"][f"needed_{name}"] for name in (units, _other(units)))
    assert needed > sum(lengths) if units == "tokens" else needed > len(lengths)
    assert other is None and found["streaming"][f"needed_{units}"] is None
    assert re.search(
        rf"80 % power takes about so many {units}.*: .*mit \(65 keys, S = 4\) [\d,]+", out
    )
    assert all(row["clusters"].startswith(scope) for name, row in found.items() if name in APART)
    two = compare(typed, found["recompute"]["run_id"], found["mit"]["run_id"]).out
    assert f"nats a token, {scope}" in " ".join(two.split())


def _other(units: str) -> str:
    return "documents" if units == "tokens" else "tokens"


def test_equal_is_said_within_the_margin_that_is_asked_for_by_a_test_of_its_own(
    home: Path, typed: Type
) -> None:
    differing(home / DB, [3000], **APART)

    def verdicts(*words: str) -> dict[str, str]:
        found = json.loads(compare(typed, *words, "--format", "json").out)
        return {row["method"]: row["verdict"] for row in found}

    assert verdicts()["mit"] == verdicts("--margin", "0.01")["mit"] == "equal within 0.01 nats"
    assert verdicts("--margin", "0.02")["mit"] == "equal within 0.02 nats"
    assert verdicts("--margin", "0.0001")["mit"] == "no difference shown"
    assert verdicts("--margin", "0.5")["streaming"].startswith("worse by"), "it is shown, if small"
    out = compare(typed).out
    assert "by two one-sided tests at 5 %: the 90 % interval is within it" in out


def test_verdicts_are_corrected_for_the_comparisons_of_their_table(home: Path, typed: Type) -> None:
    many = {f"kvpress{kind}": 0.0 for kind in ("", "-stock", "-prefill", "-interval")}
    differing(home / DB, [3000], streaming=0.003, **APART_BUT_STREAMING, **many)
    found = json.loads(compare(typed, "--format", "json").out)
    tested = [row for row in found if row["difference_p"] is not None]
    (mine,) = (row for row in tested if row["method"] == "streaming")
    assert mine["difference_low_nats"] > 0, "its own interval excludes 0"
    assert mine["difference_p"] > 0.05 and not mine["verdict"].startswith("worse")
    alone = json.loads(compare(typed, "--method", "streaming", "--format", "json").out)
    (mine,) = (row for row in alone if row["method"] == "streaming")
    assert mine["difference_p"] < 0.05 and mine["verdict"].startswith("worse by")
    corrected = f"Holm-corrected over the {len(tested)} comparisons of this table"
    assert corrected in compare(typed).out
    assert "Holm" not in compare(typed, "--method", "streaming").out


APART_BUT_STREAMING = {name: nats for name, nats in APART.items() if name != "streaming"}


def test_the_margin_of_the_help_is_the_one_that_is_used(four: Store, typed: Type) -> None:
    from streamcli.analysis.verdicts import MARGIN

    assert f"[default: {MARGIN:g}, 1 % of perplexity]" in " ".join(
        re.sub(r"[^\w\[\]:.,% ]", " ", typed("compare", "--help").out).split()
    )


def slower(home: Path, ratio: float) -> list[str]:
    """Two commits of one configuration, the second one slower."""
    new = {"git_commit": "e" * 40, "ms_per_token_p50": 4.31 * ratio}
    return names(recorded(home / DB, FOUR[0], new))


@pytest.mark.parametrize(
    ("ratio", "limit", "code"),
    [(1.05, "2%", 1), (1.05, "0.02", 1), (1.05, "6%", 0), (0.5, "0%", 0)],
)
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


BAD = {
    "--baseline steaming": "unknown method 'steaming': choose one of",
    "--fail-above 2": "--fail-above is '2': write a percentage such as 2%, or 0.02",
    "--fail-above few": "--fail-above is 'few'",
    "--margin 0": "--margin is 0: it must be more than 0 nats",
    "--margin nan": "--margin is nan: it must be",
    "--limit -1": "--limit is -1: it must be from 1 to 1,000,000,000,000, or 0 for all",
    "--format pdf": "Invalid value for '--format'",
    "--commit a --commit a": "--commit is a and a: give one, or two that differ",
    "--commit a --commit b": "has no finished run of commit 'a' that matches",
    "latest": "1 run named (latest): name two, or none",
    "latest latest latest": "3 runs named",
    "latest latest": "are both run",
    "latest ZZZ": "has no run 'ZZZ'",
    "latest ZZZ --mode chunked": "two runs are named, so --mode has nothing to choose",
    "latest ZZZ --published": "--published goes with methods",
    "--since yesterday": "'yesterday' is not a time",
}


@pytest.mark.parametrize("words", BAD)
def test_what_is_asked_wrongly_ends_in_one_line_with_code_2(
    four: Store, typed: Type, words: str
) -> None:
    done = compare(typed, *words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1 and BAD[words] in done.err


def test_published_figures_stand_beside_ours_and_artefacts_are_explained(
    home: Path, typed: Type
) -> None:
    kvpress = {"method": "kvpress", "ppl": 216.2, "total_s": 3.1}
    prefill = {"method": "kvpress-prefill", "ppl": 230.0, "attended_keys": 340, "total_s": 2.5}
    recorded(home / DB, *FOUR[:2], FOUR[2] | {"total_s": 12.0}, FOUR[3], kvpress, prefill)
    out = compare(typed, "--published", "--format", "markdown").out
    assert "| streaming | 57.99 | 13.75 | 1.73x | 216.21 | 2.00 | 6.00x |" in out
    assert "Seconds (s) are for the whole text; a speed-up is recompute's over the method's." in out
    assert out.count("the speed-ups that it printed are not those of its seconds") == 1  # a note
    assert "| kvpress* | 69.51 | 12.77 |" in out
    artefact = next(cells(line) for line in out.splitlines() if "69.51 in 12.77 s" in line)
    assert (
        artefact[3] == "216.20 in 3.10 s; run as the seed did (kvpress-prefill): 230.00 in 2.50 s"
    )
    assert "never evicted again" in artefact[4] and "38 %" in artefact[4]
    for figure, command in (
        ("39.14 in 10.04 s", "--dataset wikitext --method kvpress --mode decode-loop"),
        ("40.46 in 0.041 s", "--dataset wikitext --method kvpress --mode chunked"),
    ):
        row = next(line for line in out.splitlines() if figure in line)
        assert command in row
    assert "Xiao et al. 2023" in out and "21.62/11.95/12.09/12.09/12.02" in out
    assert "Pythia-70M on a GPU" in out and "ours: bundled on bundled-narrative" in out


def test_published_tables_are_those_of_the_mode_and_text_asked_for(
    four: Store, typed: Type
) -> None:
    out = compare(typed, "--published", "--mode", "decode-loop", "--dataset", "pg19").out
    assert "decode-loop on PG19" in out
    assert "decode-loop on WikiText" not in out and "chunked on" not in out


def test_published_figures_as_json_name_their_source(four: Store, typed: Type) -> None:
    found = json.loads(compare(typed, "--published", "--format", "json").out)
    row = next(r for r in found if (r["text"], r["method"], r["mode"]) == (*KEY, "decode-loop"))
    assert (row["published_ppl"], row["published_total_s"]) == (57.99, 13.75)
    assert row["source"] == published.figures().sources["seed"].name and row["ppl"] == 216.2058
    assert row["total_s"] == 2.0 and row["speed_up"] == 1.0  # all whole times are the same here


def test_ours_beside_the_published_has_no_speed_up_on_another_budget(
    home: Path, typed: Type
) -> None:
    more = {"method": "mit", "mode": "chunked", "attended_keys": 320, "attended_keys_mean": 300.0}
    recorded(home / DB, *({**row, "mode": "chunked"} for row in FOUR), more)
    found = json.loads(compare(typed, "--published", "--format", "json").out)
    ours = {r["method"]: r for r in found if (r["text"], r["mode"]) == ("PG19", "chunked")}
    assert ours["mit"]["total_s"] == 2.0 and ours["mit"]["speed_up"] is None
    assert ours["streaming"]["speed_up"] == 1.0


KEY = ("PG19", "streaming")


def test_every_published_figure_is_of_a_mode_and_method_of_ours() -> None:
    known = published.figures()
    rows = [row for table in known.tables.values() for row in table]
    for row in rows:
        assert row.mode in MODES and row.method in METHODS
        assert row.dataset in known.texts
    assert len(rows) == 16 and len(known.artefacts) == 4
    assert rows[1].speed_up == pytest.approx(18.80 / 10.95)


def test_every_published_figure_names_its_source_and_what_differs() -> None:
    known = published.figures()
    for key in [each.source for each in known.series] + [each.source for each in known.speed_ups]:
        assert known.sources[key].name and known.sources[key].differs
    found = {each.model: each.values for each in known.series}
    assert found["Falcon-7B"]["0"] == 17.90 and found["MPT-7B"]["0"] == 460.29
    assert sum("160M" in model for model in found) == 3


def repeated(path: Path, times: int) -> Path:
    """A database of 48 configurations, each run so many times; the newest of each has a trace."""
    texts = [{"dataset": f"text-{i}", "tokens_sha256": f"{i:064d}"} for i in range(12)]
    recorded(path, *({**run, **text} for text in texts for run in FOUR))
    with closing(sqlite3.connect(path)) as connection, connection:
        names = [name for name in Run.model_fields if name not in ("run_id", "repeat", "sweep")]
        same = ", ".join(names)
        for turn in range(times - 1):
            connection.execute(
                f"INSERT INTO runs (run_id, repeat, sweep, {same}) SELECT "
                f"'00{turn:08d}' || substr(run_id, 11), {turn % 5}, 'sweep-{turn // 5}', {same} "
                "FROM runs WHERE sweep IS NULL"
            )
    return path


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repeated(tmp_path_factory.mktemp("few") / DB, 2)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repeated(tmp_path_factory.mktemp("many") / DB, 40)


@pytest.mark.parametrize("words", [[], ["--mode", "decode-loop"], ["--published"]])
def test_more_runs_are_no_more_questions_and_each_is_answered_by_an_index(
    few: Path,
    many: Path,
    typed: Type,
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
) -> None:
    made: list[int] = []

    def counted(group: Any, baseline: str) -> Comparison:
        made.append(len(group))
        return compared(group, baseline)

    monkeypatch.setattr("streamcli.analysis.selection.compared", counted)
    assert typed("compare", "--db", str(few), *words).code == 0
    statements = list(asked.statements)
    asked.clear()
    made.clear()
    assert typed("compare", "--db", str(many), *words).code == 0
    assert asked.statements == statements and asked.long_ways(many) == []
    assert len(statements) == (3 if "--published" in words else 6)
    assert asked.whole_rows == 48, "a whole row a configuration, and not a run"
    assert len(made) == (0 if "--published" in words else 5), "no more than is shown"


@pytest.mark.slow
def test_it_never_imports_torch(four: Store) -> None:
    lines = (f"compare --db {DB}", "compare --help", f"compare --db {DB} --published")
    assert not {"torch", "transformers", "plotly", "alembic"} & imported(*lines)
    assert "scipy" not in imported("compare --help", f"compare --db {DB} --published")


def told(rights: str) -> dict[str, Any]:
    """A run whose 40 questions were answered rightly where there is a 1."""
    right = rights.count("1")
    low, high = wilson(right, 40)
    shares = {"accuracy": right / 40, "accuracy_low": low, "accuracy_high": high, "chance": 0.1}
    answers = [[8 if n % 2 else 300, int(each)] for n, each in enumerate(rights)]
    return shares | {"dataset": "recall", "questions": 40, "answers": json.dumps(answers)}


def test_accuracies_are_held_against_the_baselines_question_by_question(
    home: Path, typed: Type
) -> None:
    recompute, streaming, window = (told(rights * 10) for rights in ("1101", "1101", "0100"))
    for each, method in ((recompute, "recompute"), (streaming, "streaming"), (window, "window")):
        each["method"] = method
    recorded(home / DB, recompute, streaming, window)
    out = compare(typed, "--format", "markdown").out
    lines = [cells(line) for line in out.splitlines() if line.startswith("|")]
    places = [lines[0].index(name) for name in ("accuracy", "points vs recompute", "horizon")]
    assert places == [7, 8, 9]
    rows = {line[0]: [line[place] for place in places] + line[-1:] for line in lines[2:]}
    assert rows["recompute"] == ["75.0% (60 to 86)", "-", "300+", "baseline"]
    assert rows["streaming"][1].startswith("+0.0 [-") and "same questions" in rows["streaming"][3]
    accuracy, points, horizon, verdict = rows["window"]
    assert accuracy == "25.0% (14 to 40)" and points.startswith("-50.0 [-") and horizon == "16"
    low, high = (float(each) for each in re.findall(r"-\d+\.\d(?=[,\]])", points))
    assert f"less accurate by {-high} to {-low} points" in verdict
    assert "over questions, as if independent (McNemar's exact test" in out
    found = {row["method"]: row for row in json.loads(compare(typed, "--format", "json").out)}
    row = found["window"]
    assert (row["right_alone"], row["baseline_right_alone"]) == (0, 20)
    assert row["accuracy_p"] == pytest.approx(2 / 2**20)
    assert (row["horizon"], row["horizon_open"]) == (16, False)
    assert found["streaming"]["accuracy_p"] is None
    two = (found[method]["run_id"] for method in ("recompute", "window"))
    both = compare(typed, *two, "--format", "markdown").out
    assert f"{points} points, over questions" in both and "| horizon | 300+ | 16 |" in both
