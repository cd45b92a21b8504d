"""Published figures: ``streamcli compare --published`` beside ours, and the figures themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.registry import METHODS, MODES
from streamcli.analysis import published
from streamcli.results.store import Store
from tests.support.records import FOUR, recorded
from tests.support.reported import DB, cells, compare
from tests.support.typed import Type

KEY = ("PG19", "streaming")


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
