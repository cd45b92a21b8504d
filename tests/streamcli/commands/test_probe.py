"""``streamcli probe`` as it is typed: said in words, drawn, written and recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from streamcli.results.schema import unpack
from streamcli.results.store import Store
from tests.support.typed import DB, Type

WHAT = ("--model", "bundled", "--dataset", "bundled-narrative", "--threads", "1")
SMALL = (*WHAT, "--max-tokens", "200", "--window", "28")


def rows() -> list[Any]:
    with Store.open(DB).transaction() as connection:
        return list(connection.execute(text("SELECT * FROM probes")).mappings())


@pytest.mark.slow
def test_the_bundled_model_has_no_sinks_and_is_told_so(typed: Type) -> None:
    done = typed("probe", *SMALL)
    assert done.code == 0, done.err
    title, found, keep, elsewhere, blank, *rest = done.out.splitlines()
    assert title == "probe: bundled on bundled-narrative" and blank == ""
    assert found.startswith("No sinks: 0.0 % of 16 heads give the first token more than 0.3 of")
    assert keep.startswith("Keep none: at 32 keys no number of sinks betters the perplexity of a")
    assert elsewhere == "No other token is a sink of 1 % of the heads."
    assert rest[0].split("layer") == ["", " before eviction    ", " after, 4 + 28 keys"]
    assert [line.split()[0] for line in rest[1:5]] == ["0", "1", "2", "3"]
    assert all(len(line.split()) == 10 for line in rest[1:5])
    assert "over 3 texts of 64 tokens" in rest[5] and "arXiv 2410.10781" in rest[5]
    assert "By number of sinks, at 32 keys" in done.out and "Sinks among" not in done.out
    assert "streamcli: perplexity of S = 8, W = 24 ..." in done.err  # piped: told as it goes
    assert done.err.splitlines()[-1].startswith("streamcli: recorded in the table probes of ")
    assert not Path("figures").exists()


@pytest.mark.slow
def test_what_was_found_is_recorded_and_printed_whole(typed: Type) -> None:
    done = typed("probe", *SMALL, "--json", "--threshold", "0.01", "--n-sink", "2")
    assert done.code == 0, done.err
    shown, (row,) = json.loads(done.out), rows()
    assert shown["probe_id"] == row["probe_id"] and row["attended_keys"] == 31
    assert json.loads(row["sinks"]) == shown["sinks"] and len(shown["sinks"]) > 1
    assert json.loads(row["perplexities"]) == shown["perplexities"]
    assert [len(shown["before"]), len(shown["before"][0])] == [row["n_layers"], row["n_heads"]]
    assert unpack(row["after"]).tolist() == [share for layer in shown["after"] for share in layer]
    assert row["mass_before"] == pytest.approx(unpack(row["before"]).mean())
    assert row["threshold"] == 0.01 and row["tokens"] == 200 and row["scored_tokens"] == 199
    assert row["tokens_sha256"] and row["weights_sha256"] and row["versions"]


@pytest.mark.slow
def test_a_page_of_it_stands_alone_and_the_words_are_on_it(typed: Type) -> None:
    done = typed("probe", *SMALL, "--format", "html", "--out", "maps")
    assert done.code == 0, done.err
    page = Path("maps/probe.html").read_text()
    assert "No sinks: 0.0 % of 16 heads" in page and "After, 4 + 28 keys" in page
    assert "maps/probe.html holds the heat map" in done.err
    assert page.count('"type":"heatmap"') == 2 and Path("maps/plotly.min.js").is_file()


def test_what_can_not_be_is_refused_before_anything_is_recorded(typed: Type) -> None:
    assert typed("probe", *SMALL, "--threshold", "0").refuses(2, "--threshold is 0", "above 0")
    assert typed("probe", *SMALL, "--threshold", "1.5").refuses(2, "1.5")
    assert typed("probe", *SMALL, "--n-sink", "0").refuses(2, "n_sink is 0", "1 or more")
    assert typed("probe", *SMALL, "--out", "x").refuses(2, "writes no heat map: leave --out out")
    short = typed("probe", *SMALL, "--max-tokens", "60")
    assert short.code == 2 and "60 tokens hardly fill a cache of 33 keys" in short.err
    assert rows() == []


@pytest.mark.slow
def test_a_recorded_probe_is_listed_and_shown_as_it_was(typed: Type) -> None:
    first = typed("probe", *SMALL)
    typed("probe", *WHAT, "--max-tokens", "150", "--window", "12")
    names = [row["probe_id"] for row in rows()]
    again = typed("probe", "--show", names[0][:14] if names[0][:14] != names[1][:14] else names[0])
    assert (again.code, again.out) == (0, first.out)
    assert typed("probe", "--show", "latest").out != first.out
    whole = json.loads(typed("probe", "--show", names[0].lower(), "--json").out)
    assert whole["probe_id"] == names[0] and len(whole["before"]) == 4
    listing = typed("probe", "--list").out
    assert "2 probes in " in listing
    assert [line.split()[4:6] for line in listing.splitlines()[4:6]] == [["4", "12"], ["4", "28"]]
    assert [each["probe_id"] for each in json.loads(typed("probe", "--list", "--json").out)] == [
        *reversed(names)
    ]
    drawn = typed("probe", "--show", "latest", "--format", "html", "--out", "maps")
    assert drawn.code == 0 and list(Path("maps").glob("*.html")) and len(rows()) == 2


def test_what_is_not_recorded_is_not_shown(typed: Type) -> None:
    Store.open(DB)
    assert typed("probe", "--show", "latest").refuses(2, "has no probe yet", "streamcli probe")
    assert typed("probe", "--show", "zz").refuses(2, "'zz'", "streamcli probe --list")
    assert typed("probe", "--show", "zz", "--window", "9").refuses(2, "--show", "leave --window")
    assert typed("probe", "--list", "--format", "png").refuses(2, "--list", "leave --format out")
