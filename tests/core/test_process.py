"""Which processes have surely ended, and of which nobody can tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core import process

ROOT = Path(__file__).parents[2]
NAME = [
    sys.executable,
    "-c",
    "from core import process; print(process.name(), flush=True); input()",
]
FIELDS = ("machine", "boot", "pids", "times", "pid", "ticks")

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")


def other(**changed: str) -> str:
    """The name of this process, but for some parts."""
    parts = dict(zip(FIELDS, (process.name() or "").split(":"), strict=True))
    return ":".join({**parts, **changed}.values())


def begun(*before: str) -> tuple[subprocess.Popen[str], str]:
    """A process that lives until its input is closed, and its name."""
    child = subprocess.Popen(
        [*before, *NAME],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout
    return child, child.stdout.readline().strip()


def test_a_living_process_has_not_ended_and_a_killed_one_has() -> None:
    child, name = begun()
    assert process.ended(process.name()) is False
    assert process.ended(name) is False
    child.kill()
    while process.ended(name) is False:  # until it is a zombie, which nobody has waited for
        pass
    assert process.ended(name) is True
    child.communicate()
    assert process.ended(name) is True


def test_a_number_that_was_given_out_again_is_another_process() -> None:
    assert process.ended(other(ticks="1")) is True


def test_another_boot_of_this_machine_ended_all() -> None:
    assert process.ended(other(machine="ours", boot="before")) is None
    known = other(boot="before")
    assert process.ended(known) is (None if known.startswith(":") else True)


@pytest.mark.parametrize("changed", ["pids", "times"])
def test_of_another_container_nobody_can_tell(changed: str) -> None:
    assert process.ended(other(**{changed: "1"}, ticks="1")) is None


def test_another_container_of_the_same_image_and_kernel_is_not_another_boot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "FIRST_PID_NAMESPACE", "pid:[1]")
    assert (process.name() or "").startswith(":"), "a container's machine-id is its image's"
    assert process.ended(other(boot="of another host")) is None


@pytest.mark.parametrize(
    "name", [None, "", "1234", "a:b:c:d:x:1", ":::::", "a:b:c:d:99999999999:1"]
)
def test_what_is_no_name_is_not_known(name: str | None) -> None:
    assert process.ended(name) is None


def test_a_process_in_a_pid_namespace_of_its_own_is_never_taken_for_one_of_ours() -> None:
    command = ("unshare", "--pid", "--fork", "--mount-proc")
    try:
        child, name = begun(*command)
    except OSError:
        pytest.skip("there is no unshare")
    if not name:
        child.communicate()
        pytest.skip("this user may make no namespace")
    assert name.split(":")[0] == "" and name.split(":")[4] == "1"
    assert process.ended(name) is None  # though our process 1 is another one
    child.communicate("\n")
    assert process.ended(name) is None


def test_without_proc_there_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = process.name()
    monkeypatch.setattr(process, "PROC", tmp_path)
    assert process.name() is None
    assert process.ended(name) is None
    (tmp_path / "self").symlink_to("1")  # of another namespace, as mounted from outside
    assert process.name() is None
