"""A module of the user's that is called ``core``: commands take no notice, a program is told."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.support import bare

ROOT = Path(__file__).parents[2]
THEIRS = ("core.py", "core/__init__.py")
checkout = partial(bare.python, path=ROOT)  # Python with this checkout on the path


@pytest.fixture(params=THEIRS)
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The user's own module, in the folder in which they work."""
    path = tmp_path / str(request.param)
    path.parent.mkdir(exist_ok=True)
    path.write_text("name = 'theirs'\n")
    return path


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of a traceback."""
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_commands_take_their_own_package(theirs: Path, tmp_path: Path) -> None:
    done = checkout(tmp_path, "-m", "streamcli", "runs", "--help")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_process_that_a_command_spawns_takes_its_own_package(tmp_path: Path) -> None:
    (tmp_path / "core.py").write_text("name = 'theirs'\n")
    (tmp_path / "parent.py").write_text(
        "import multiprocessing, runpy, sys\n"
        "from streamcli.__main__ import main\n"
        "from core.errors import UsageError\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(repr, (UsageError('from the child'),)))\n"
    )
    done = checkout(tmp_path, "parent.py")
    assert (done.returncode, done.stdout) == (0, "UsageError('from the child')\n"), done.stderr


def test_a_program_is_told_which_file_is_in_the_way(theirs: Path, tmp_path: Path) -> None:
    done = checkout(tmp_path, "-c", "from streamcli import StreamingKVCache")
    line = told(done)
    assert line.startswith("ImportError: streamcli needs its own package 'core', and ")
    assert str(theirs) in line and "rename that" in line


def test_a_program_that_uses_its_own_core_is_told_and_keeps_it(
    theirs: Path, tmp_path: Path
) -> None:
    done = checkout(
        tmp_path,
        "-c",
        "import core, streamcli\n"
        "try:\n    streamcli.evaluate\n"
        "except ImportError as error:\n    print(core.name, error)\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("theirs ") and str(theirs) in done.stdout


def test_a_module_without_a_file_is_told_too(tmp_path: Path) -> None:
    code = "import sys, types; sys.modules['core'] = types.ModuleType('core')\n"
    done = checkout(tmp_path, "-c", code + "from streamcli import evaluate")
    assert "a module without a file comes before it" in told(done)


def test_a_folder_without_code_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    done = checkout(
        tmp_path, "-c", "from streamcli import RunConfig; print(RunConfig(window=3).window)"
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


@pytest.mark.slow
def test_a_checkout_that_is_not_installed_works() -> None:
    done = bare.python(ROOT, "-m", "streamcli", "runs", "--help")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    nowhere = bare.python(ROOT.parent, "-m", "streamcli", "--version")
    assert "No module named streamcli" in nowhere.stderr, "another checkout is on the path"
