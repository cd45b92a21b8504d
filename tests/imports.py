"""Which modules commands bring in."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import shlex, sys
from streamcli.cli import main
for line in sys.argv[1:]:
    sys.argv = ["streamcli", *shlex.split(line)]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, line
print("modules", *{name.split(".")[0] for name in sys.modules})
"""


def imported(*lines: str) -> set[str]:
    """The packages that a process of its own holds after these commands, which all end well."""
    command = [sys.executable, "-c", CODE, *lines]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())
