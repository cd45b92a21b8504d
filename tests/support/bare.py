"""Python with the packages that streamcli needs, and without any checkout that is installed.

A checkout that is installed with ``--editable`` is on the path by a .pth file of the environment.
The interpreter beneath the environment does not read that file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

BASE = getattr(sys, "_base_executable", sys.executable)
PACKAGES = sysconfig.get_paths()["purelib"]


def python(folder: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Python in ``folder``, with ``path`` on its path if given, and few variables."""
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([*([str(path)] if path else []), PACKAGES]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    call = [BASE, *words]
    return subprocess.run(call, cwd=folder, env=env, capture_output=True, text=True, check=False)
