"""Where and with what a run was made: git, versions, machine, load. Provenance as columns."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from core import process
from core.hashing import sha256

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("streamcli", "torch", "transformers", "tokenizers", "datasets", "kvpress", "numpy")
CACHE = "TORCHINDUCTOR_CACHE_DIR"  # which torch makes when it is imported, if it is set
ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")  # a hook's repository
TOLD_BY = ("OMP_", "GOMP_", "KMP_", "MKL_", "TORCH", "CUDA_", "HF_", "TRANSFORMERS_")  # variables


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine and the code of one run.

    Attributes:
        git_commit: Commit of this project's checkout; None where it is installed without one.
        git_dirty: Whether tracked files of that checkout were changed.
        workdir_commit: Commit of the working folder, where that is another repository.
        workdir_dirty: Whether its tracked files were changed.
        versions: Package versions as ``name==version``, separated by spaces.
        python: Python's version.
        host: The machine's network name.
        cpu: The processor's name.
        gpu: The accelerator's name, None on the CPU.
        load_1m: The operating system's one-minute load average when the run began.
        pid: The process that ran it.
        process: That process, told apart from every other one; None where that can't be told.
    """

    git_commit: str | None
    git_dirty: bool | None
    workdir_commit: str | None
    workdir_dirty: bool | None
    versions: str
    python: str
    host: str
    cpu: str
    gpu: str | None
    load_1m: float | None
    pid: int
    process: str | None = None


def describe(gpu: str | None = None) -> Environment:
    """Look around, once, before a run."""
    ours, theirs = _repository(PROJECT), _repository(Path.cwd())
    if ours and Path(ours) != PROJECT:
        ours = None  # installed into a folder that belongs to another repository
    commit, dirty = _state(ours)
    there, there_dirty = _state(theirs if theirs != ours else None)
    return Environment(
        git_commit=commit,
        git_dirty=dirty,
        workdir_commit=there,
        workdir_dirty=there_dirty,
        versions=" ".join(versions(PACKAGES)),
        python=platform.python_version(),
        host=platform.node(),
        cpu=_cpu(),
        gpu=gpu,
        load_1m=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        pid=os.getpid(),
        process=process.name(),
    )


def _repository(folder: Path) -> str | None:
    return _git(folder, "rev-parse", "--show-toplevel")


def _state(repository: str | None) -> tuple[str | None, bool | None]:
    """Commit, and whether tracked files differ from it."""
    if repository is None:
        return None, None
    changes = _git(Path(repository), "status", "--porcelain", "--untracked-files=no")
    return _git(Path(repository), "rev-parse", "HEAD"), None if changes is None else bool(changes)


def _git(folder: Path, *words: str) -> str | None:
    here = {name: value for name, value in os.environ.items() if name not in ANOTHER}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, env=here
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def surroundings() -> tuple[Any, ...]:
    """The code, the packages, the machine and the variables that a preparation may depend on."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ()
    return (
        sha256(sorted(PROJECT.glob("core/**/*.py"))),
        *versions((*PACKAGES, "gguf")),
        platform.python_version(),
        platform.node(),
        (os.cpu_count(), cores),
        sorted(map(str, Path("/dev").glob("nvidia*"))),
        shutil.which(os.environ.get("CXX", "g++")),  # what torch compiles with
        sorted(pair for pair in os.environ.items() if pair[0].startswith(TOLD_BY)),
    )


def versions(packages: Iterable[str]) -> list[str]:
    """Those of ``packages`` that are installed, as ``name==version``."""
    return [f"{name}=={found}" for name in packages if (found := _version(name))]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def way_out(error: Exception) -> str:
    """What to do where a folder for compiled code can't be made; empty where it is not that."""
    place = os.environ.get(CACHE)
    if not (isinstance(error, OSError) and place and place in str(error)):
        return ""
    return f": {CACHE} must name a folder that can be written; unset it, or choose another."
