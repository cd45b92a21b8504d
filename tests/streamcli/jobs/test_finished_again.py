"""A finished sweep typed again: told from the bytes of files, and made again where they changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core import environment, foreknown, runner
from core.packaged import bundled
from streamcli.settings import PREFIX
from tests.support.process import typed_there
from tests.support.samples import thinned
from tests.support.typed import Type

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.slow]

SMALL = ("--modes", "chunked", "--windows", "20", "--methods", "streaming", "--max-tokens", "60")
OWN = ("sweep", "--models", "./model", "--datasets", "./text.jsonl", *SMALL)
DONE, BEFORE = "1 runs: 1 done.", "1 runs: 1 finished on this machine before"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of one layer."""
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(bundled("model"), tmp_path_factory.mktemp("small") / "model")
    thinned(AutoModelForCausalLM.from_pretrained(folder)).save_pretrained(folder)
    return folder


@pytest.fixture
def own(home: Path, small: Path) -> Path:
    """A model and a text of three documents in the working folder, one sweep of which is done."""
    shutil.copytree(small, home / "model")
    _rows(home, "One sentence of many. " * 40, "Another. " * 40, "The last. " * 40)
    return home


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was prepared, one after the other."""
    prepare, seen = runner.prepare, list[Any]()

    def counted(*given: Any) -> Any:
        seen.append(given[0])
        return prepare(*given)

    monkeypatch.setattr(runner, "prepare", counted)
    yield seen
    environment.surroundings.cache_clear()


def _rows(home: Path, *texts: str) -> None:
    lines = [json.dumps({"text": text}) for text in texts]
    (home / "text.jsonl").write_text("\n".join(lines))


def _flip(path: Path) -> None:
    """Change one bit of a file's last number, and leave its size, its times and its name."""
    before, raw = path.stat(), bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(bytes(raw))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _spelled_otherwise(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3))


@pytest.mark.parametrize(
    "change",
    [
        lambda home: _flip(home / "model" / "model.safetensors"),
        lambda home: _spelled_otherwise(home / "model" / "config.json"),
        lambda home: _spelled_otherwise(home / "model" / "tokenizer.json"),
        lambda home: (home / "model" / "chat_template.jinja").write_text("{{ messages }}"),
    ],
    ids=["weights", "config", "tokenizer", "another file"],
)
def test_a_model_that_changed_is_noticed(
    typed: Type, own: Path, prepared: list[Any], change: Callable[[Path], object]
) -> None:
    assert DONE in typed(*OWN).err and len(prepared) == 1
    assert BEFORE in typed(*OWN).err and len(prepared) == 1
    change(own)
    assert DONE in typed(*OWN).err and len(prepared) == 2
    assert BEFORE in typed(*OWN).err and len(prepared) == 2


def test_a_text_that_changed_is_noticed_as_far_as_it_is_read(
    typed: Type, own: Path, prepared: list[Any]
) -> None:
    first, whole = "One sentence of many. " * 40, (*OWN[:-1], "5000")
    assert DONE in typed(*OWN).err and DONE in typed(*whole).err and len(prepared) == 2
    _rows(own, first, "Another. " * 40, "The last. " * 40, "One more. " * 40)
    assert BEFORE in typed(*OWN).err and len(prepared) == 2  # reads the first document alone
    assert DONE in typed(*whole).err and len(prepared) == 3
    _rows(own, f"{first}!", "Another. " * 40)
    assert BEFORE in typed(*OWN).err and len(prepared) == 4  # what it reads is the same
    _rows(own, first.replace("many", "some"))
    assert DONE in typed(*OWN).err and len(prepared) == 5


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"])
def test_what_settles_an_open_option_is_noticed(
    typed: Type, own: Path, prepared: list[Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(*OWN)
    monkeypatch.setenv(name, "0,1")
    environment.surroundings.cache_clear()  # as in another process
    assert BEFORE in typed(*OWN).err and len(prepared) == 2


def test_a_damaged_record_costs_time_alone(typed: Type, own: Path, prepared: list[Any]) -> None:
    typed(*OWN)
    for path in foreknown.folder().iterdir():
        path.write_text('{"documents": [')
    assert BEFORE in typed(*OWN).err and len(prepared) == 2
    assert BEFORE in typed(*OWN).err and len(prepared) == 2


def test_force_makes_what_is_known_to_be_finished(
    typed: Type, own: Path, prepared: list[Any]
) -> None:
    typed(*OWN)
    assert DONE in typed(*OWN, "--force").err
    assert BEFORE in typed(*OWN).err and len(prepared) == 2


def test_the_oldest_records_make_room(
    typed: Type, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreknown, "MOST", 2)
    for tokens in ("30", "31", "32"):
        typed(*OWN[:-1], tokens)
    assert len(list(foreknown.folder().iterdir())) == 2


def test_it_takes_neither_torch_nor_transformers(
    typed: Type, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = own / "cache"
    monkeypatch.setattr(foreknown, "folder", lambda: cache / "streamcli" / "prepared")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    environment.surroundings.cache_clear()
    typed(*OWN)
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    (found,), modules = typed_there(OWN, folder=own, env=env)
    assert found.code == 0 and BEFORE in found.err and "streaming" in found.out
    assert not {"torch", "transformers", "datasets", "scipy", "plotly"} & modules
