"""The wheel, built and installed alone: it is whole, brings nothing twice, and works anywhere."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support import bare, process

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
TEXT = ("--dataset", "bundled-narrative", "--max-tokens", "60")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout; hatchling comes from PyPI where it is not installed."""
    folder = tmp_path_factory.mktemp("built")
    here = ("--no-build-isolation",) if find_spec("hatchling") else ()
    words = ("wheel", "--no-deps", *here, "--wheel-dir", str(folder), str(ROOT))
    done = subprocess.run([*PIP, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that it is installed to, alone."""
    folder = tmp_path_factory.mktemp("installed")
    words = ("install", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    done = subprocess.run([*PIP, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def files(folder: Path) -> dict[str, Path]:
    """The files of a folder by their path in it, but for what Python made of them."""
    every = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in every if path.suffix != ".pyc"}


def test_it_brings_every_file_and_none_twice(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = [each.filename for each in archive.infolist() if not each.is_dir()]
        held = {name: archive.read(name) for name in names}
    assert max(Counter(names).values()) == 1
    hashes = Counter(hashlib.sha256(text).hexdigest() for text in held.values() if text)
    twice = [name for name, text in held.items() if hashes[hashlib.sha256(text).hexdigest()] > 1]
    assert not twice, "files of one content under several names"
    want = {f"{room}/{name}" for room in ("core", "streamcli") for name in files(ROOT / room)}
    want |= {f"core/bundled/{name}" for name in files(ROOT / "data" / "bundled")}
    about = {name for name in names if ".dist-info/" in name}
    assert set(names) - about == want
    assert {"core/py.typed", "streamcli/py.typed", "core/weights.c"} <= want
    kinds = {name.partition(".dist-info/")[2] for name in about}
    assert kinds == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


LIBRARY = """
import streamcli
from streamcli import evaluate
result = evaluate(model="bundled", dataset="bundled-narrative", window=20, max_tokens=60,
                  mode="chunked")
import core
print(result.scored_tokens, core.__file__, streamcli.__file__)
"""


def test_installed_alone_it_is_a_library_that_runs_sweeps_and_reports(
    installed: Path, tmp_path: Path
) -> None:
    lists = ("--methods", "streaming", "recompute", "--windows", "20", "--modes", "chunked")
    sweep = ("--models", "bundled", "--datasets", "bundled-narrative", "--max-tokens", "60")
    lines = (
        ("run", "--model", "bundled", *TEXT, "--window", "20"),
        ("sweep", *sweep, *lists),
        ("report", "--format", "json"),
    )
    flag, code, asked = process.words(*lines)
    done = bare.python(tmp_path, flag, LIBRARY + code, asked, path=installed)
    library, _, out = done.stdout.partition("\n")
    ended = process.told(done.returncode, out, done.stderr)[0]
    scored, *places = library.split()
    assert scored == "59"
    assert all(Path(place).is_relative_to(installed) for place in places)
    assert not any(each.code for each in ended), ended
    rows = json.loads(ended[-1].out)
    found = {(row["method"], row["mode"]) for row in rows}
    assert found == {
        ("streaming", "decode-loop"),
        ("streaming", "chunked"),
        ("recompute", "chunked"),
    }
    assert {row["dataset"] for row in rows} == {"bundled-narrative"}
    newest = max((ROOT / "streamcli/results/migrations/versions").glob("0*.py"))
    with closing(sqlite3.connect(tmp_path / "data" / "streamcli.db")) as database:
        ((revision,),) = database.execute("SELECT version_num FROM alembic_version")
    assert f'revision = "{revision}"' in newest.read_text(), "not every migration came along"


def test_installed_alone_it_is_a_command(installed: Path, tmp_path: Path) -> None:
    script = installed / "bin" / "streamcli"
    (tmp_path / "core.py").write_text("name = 'theirs'\n")
    done = bare.python(tmp_path, str(script), "--version", path=installed)
    assert done.stdout.startswith("streamcli "), done.stderr
