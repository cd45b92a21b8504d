"""The default command, with a Hub that answers, one that does not, and no network at all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.hub_standin import Hub, pg19, tiny_model, wikitext
from tests.support.method_cases import need
from tests.support.process import typed_there
from tests.support.typed import Typed

SHORT = ("--mode", "chunked", "--window", "20", "--max-tokens", "90", "--json")


TEXTS = ("wikitext", "pg19")
CARD = ("sweep --datasets wikitext pg19", "compare --mode decode-loop", "report --format markdown")


@pytest.fixture(scope="module")
def online(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Typed]]:
    """The commit of the default model, and how runs and the commands of the design card end."""
    commit = hub.put("EleutherAI/pythia-70m", tiny_model())
    words = "A lighthouse stands on a rock, and the sea goes round it at night. "
    hub.put("Salesforce/wikitext", wikitext([words * 20]), kind="datasets")
    book = pg19({10146: "It was a dark and stormy night. " * 40})
    hub.put("emozilla/pg19", book, kind="datasets")
    runs = [["run", "--dataset", dataset, *SHORT, "--db", "runs.db"] for dataset in TEXTS]
    folder = tmp_path_factory.mktemp("online")
    return commit, typed_there(*runs, *map(str.split, CARD), folder=folder, env=hub.env())[0]


def test_the_default_model_and_texts_come_from_the_hub(online: tuple[str, list[Typed]]) -> None:
    commit, ended = online
    for dataset, done in zip(TEXTS, ended, strict=False):
        assert done.code == 0, done.err
        row = json.loads(done.out)
        assert (row["model"], row["dataset"]) == ("EleutherAI/pythia-70m", dataset)
        assert row["model_revision"] == commit
        assert "instead" not in done.err


Unreachable = tuple[dict[str, Typed], Path]
ASKED = {
    "by its name": ("--model", "EleutherAI/pythia-70m"),
    "of the Hub": ("--source", "hub"),
    "by nobody": (),
}


@pytest.fixture(scope="module")
def unreachable(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Unreachable:
    """How runs end in a process that reaches no Hub, and the folder of their databases."""
    folder = tmp_path_factory.mktemp("unreachable")
    env = hub.env(cache="empty", HF_ENDPOINT="http://127.0.0.1:9")
    lines = [["run", *words, *SHORT, "--db", f"{name}.db"] for name, words in ASKED.items()]
    ended, _ = typed_there(*lines, folder=folder, env=env)
    return dict(zip(ASKED, ended, strict=True)), folder


def test_stand_ins_take_over_where_no_hub_answers_and_are_recorded_as_such(
    unreachable: Unreachable,
) -> None:
    done = unreachable[0]["by nobody"]
    assert done.code == 0, done.err
    row = json.loads(done.out)
    assert (row["model"], row["dataset"]) == ("bundled", "bundled-encyclopedia")
    assert (row["requested_model"], row["requested_dataset"]) == (
        "EleutherAI/pythia-70m",
        "wikitext",
    )
    first, second = done.err.splitlines()[:2]
    assert "running the bundled model instead" in first
    assert "reading bundled-encyclopedia instead" in second


@pytest.mark.parametrize("asked", ["by its name", "of the Hub"])
def test_a_model_that_is_named_never_gives_way(unreachable: Unreachable, asked: str) -> None:
    done, folder = unreachable[0][asked], unreachable[1]
    assert done.code == 1
    assert len(done.err.splitlines()) == 1 and "pythia-70m" in done.err
    assert not (folder / f"{asked}.db").exists() and (folder / "by nobody.db").exists()


def test_the_three_commands_of_the_design_card_work_as_typed_with_a_hub(
    online: tuple[str, list[Typed]],
) -> None:
    need("kvpress")
    ended = online[1][len(TEXTS) :]
    assert not any(each.code for each in ended), ended
    swept, compared, shown = ended
    assert "24 runs: 24 done." in swept.err and "instead" not in swept.err
    assert compared.out.count("EleutherAI/pythia-70m on ") == 2
    assert "recompute" in compared.out and "95 % interval" in compared.out
    titles = re.findall(r"^\*\*\d+\. EleutherAI/", shown.out, re.MULTILINE)
    assert len(titles) >= 6
    for method in ("streaming", "mit", "kvpress", "recompute"):
        assert shown.out.count(f"\n| {method} ") >= 6
