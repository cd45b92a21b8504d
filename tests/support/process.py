"""Commands typed in a process of their own: for what is read, imported or said once a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from core import registry
from tests.support.children import Child
from tests.support.typed import Typed

END = "\x1e"
CODE = """
import json, sys
from streamcli.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["streamcli", *words]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    print(end="\\x1e", file=sys.stderr, flush=True)
    print(end=f"\\x1e{code}\\x1e", flush=True)
print(*{name.split(".")[0] for name in sys.modules})
"""


def typed_there(
    *lines: Sequence[str], folder: Path | None = None, env: Mapping[str, str] | None = None
) -> tuple[list[Typed], set[str]]:
    """How each command ended, one after the other, and the packages that were imported by then."""
    command = [sys.executable, *words(*lines)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
    return told(done.returncode, done.stdout, done.stderr)


def typed_in_fork(*lines: Sequence[str], folder: Path, path: str = "") -> list[Typed]:
    """The same in a process that has torch and the bundled model already, with ``path`` on its."""
    return told(*Child(folder, _type, lines, path).ended())[0]


def _type(lines: Sequence[Sequence[str]], path: str) -> None:
    sys.path.append(path)
    registry.plugins.cache_clear()
    sys.argv = words(*lines)[1:]
    exec(CODE, {})


def words(*lines: Sequence[str]) -> list[str]:
    """What to tell Python so that it carries out these commands."""
    return ["-c", CODE, json.dumps(lines)]


def told(code: int, out: str, err: str) -> tuple[list[Typed], set[str]]:
    """What such a process has told, as ``typed_there`` gives it."""
    assert code == 0, err
    *outs, modules = out.split(END)
    codes, errs = map(int, outs[1::2]), err.split(END)[:-1]
    return list(map(Typed, codes, outs[::2], errs)), set(modules.split())


def imported(*lines: str) -> set[str]:
    """The packages that are imported by these commands, all of which end well."""
    ended, modules = typed_there(*map(str.split, lines))
    assert not any(each.code for each in ended), ended
    return modules
