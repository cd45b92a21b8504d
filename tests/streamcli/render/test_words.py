"""What a report says in words is what its rows say, and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from streamcli.analysis import summary
from streamcli.analysis.selection import Query
from streamcli.jobs.select import select
from streamcli.render import records
from streamcli.results.columns import COLUMNS
from streamcli.results.store import Store
from tests.support.records import FOUR, recorded
from tests.support.reported import DB


def said(store: Store) -> list[str]:
    return [sentence for each in select(store, Query()).whole for sentence in summary.words(each)]


def test_words_say_what_the_rows_say(four: Store) -> None:
    assert said(four) == [
        "With 65 keys, streaming has a perplexity of 216.21 against 216.98 of re-computation, "
        "0.35% lower; a decode step takes 4.31 ms against 20.1 ms, 4.66x the speed here.",
        "Without sinks, 65 keys give a perplexity of 217.51, 0.60% higher than streaming's.",
        "A cache for 65 keys takes 0.523 MiB however long the stream; a dense one takes 4.68 MiB "
        "by the end of this one, for a perplexity of 209.79.",
    ]


def test_words_claim_nothing_without_a_row_and_name_the_command_that_records_it(
    home: Path,
) -> None:
    (sentence,) = said(recorded(home / "streaming.db", {"dtype": "bfloat16"}))
    assert sentence == (
        "What streaming costs with 65 keys can't be told without re-computation with as many "
        "keys: `streamcli run --model bundled --dataset bundled-narrative --method recompute "
        "--mode decode-loop --n-sink 4 --window 60 --max-tokens 600 --threads 2 --dtype bfloat16`."
    )
    (sentence,) = said(recorded(home / "window.db", FOUR[1]))
    assert sentence.startswith("None of these runs is of streaming: record one with `streamcli run")
    assert "--n-sink 4 --window 60 " in sentence


def test_several_settings_without_re_computation_are_counted(home: Path) -> None:
    more = [{"window": window, "attended_keys": window + 5} for window in (124, 252)]
    store = recorded(home / DB, {}, more[0])
    assert "with 65 keys, and of 1 more setting, can't" in said(store)[0]
    assert "with 65 keys, and of 2 more settings, can't" in said(recorded(home / DB, more[1]))[0]


def test_the_caution_is_true_of_several_comparisons_and_of_rounds(home: Path) -> None:
    store = recorded(home / DB, *[{"repeat": turn} for turn in range(3)], {"dataset": "another"})
    caution = summary.caution(select(store, Query()).comparisons)
    assert "what is compared is on one machine and one text." in caution
    assert "and a speed-up the geometric mean over rounds where there are 3;" in caution


def test_words_do_not_compare_unequal_budgets(home: Path) -> None:
    other = {"method": "recompute", "window": 124, "attended_keys": 129, "ppl": 190.0}
    (sentence,) = said(recorded(home / DB, {}, other))
    assert "can't be told" in sentence and "190" not in sentence


def test_words_call_a_slower_and_worse_streaming_what_it_is(home: Path) -> None:
    worse = {"ppl": 240.0, "ms_per_token_p50": 40.2}
    first, *_ = said(recorded(home / DB, worse, FOUR[2]))
    assert "10.61% higher" in first and "0.500x the speed here" in first


def test_words_on_many_budgets_give_the_extremes(home: Path) -> None:
    rows = [
        {**row, "window": keys - 5, "attended_keys": keys, "ppl": row.get("ppl", 200) * scale}
        for keys, scale in ((65, 1.0), (129, 0.9), (257, 0.8))
        for row in (FOUR[0] | {"ppl": 216.2 + keys / 100}, FOUR[2])
    ]
    (sentence,) = said(recorded(home / DB, *rows))
    assert sentence.startswith("Over 3 settings with 65 to 257 keys, streaming's perplexity")
    assert re.search(
        r"changes by [+-]0\.\d\d% to \+0\.\d\d%, and its speed is 4.66x here", sentence
    )


def test_a_document_beyond_what_a_float_holds_has_an_infinite_perplexity() -> None:
    document = {"position": 0, "name": "a", "scored_tokens": 2, "nll_nats": 2 * 710.0}
    documents = pd.DataFrame([document | {"words": 1, "utf8_bytes": 1}])
    (sheet,) = records.details(dict.fromkeys(COLUMNS), documents)
    assert sheet.rows == [["0", "a", "2", "inf", "1,420.00", "1", "1"]]
