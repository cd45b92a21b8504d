"""Which process this is, named so that no other is ever taken for it, and whether one has ended.

A number alone is given out again, containers share numbers and host names, and clocks jump. So a
process is named by the boot of its kernel, its PID and time namespaces, its number, and the tick of
the kernel's own clock at which it started. Where /proc does not tell all of it there is no name.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
MACHINE_ID = Path("/etc/machine-id")
FIRST_PID_NAMESPACE = "pid:[4026531836]"  # the kernel's own, in which no container is


class _Place(NamedTuple):
    """Where process numbers mean the same.

    Attributes:
        machine: Hash of the machine's id and name; empty in a container, whose image may bear one.
        boot: The kernel's name for the time since it was started.
        pids: Its PID namespace.
        times: Its time namespace, by which start times are told.
    """

    machine: str
    boot: str
    pids: str
    times: str


def name() -> str | None:
    """This process; None where /proc does not tell."""
    place, started = _place(), _started(os.getpid())
    return ":".join([*place, str(os.getpid()), started[1]]) if place and started else None


def ended(process: str | None) -> bool | None:
    """Whether the process of a ``name`` has surely ended (True), surely not (False), or who knows.

    It has where no process of its number is there that started when it did, and where this machine
    was started anew since. One of another machine, of another container, or without a name may be
    alive for all that can be told here.
    """
    parts = (process or "").split(":")
    here = _place()
    if here is None or len(parts) != len(_Place._fields) + 2 or not parts[-2].isdecimal():
        return None
    there, number, ticks = _Place(*parts[:-2]), int(parts[-2]), parts[-1]
    if there.boot != here.boot:
        return True if there.machine and there.machine == here.machine else None
    if (there.pids, there.times) != (here.pids, here.times):
        return None
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass  # it is another user's, whose start can be read all the same
    started = _started(number)
    if started is None:
        return None
    state, now = started
    return state in "ZX" or now != ticks


def _place() -> _Place | None:
    try:
        if os.readlink(PROC / "self") != str(os.getpid()):  # another namespace's /proc
            return None
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        spaces = PROC / "self/ns"
        pids = os.readlink(spaces / "pid")
        times = os.readlink(spaces / "time") if (spaces / "time").is_symlink() else ""
    except OSError:
        return None
    machine = _machine() if pids == FIRST_PID_NAMESPACE else ""
    return _Place(machine, boot, _number(pids), _number(times))


def _number(space: str) -> str:
    """Of a link such as ``pid:[4026531836]``."""
    return space.partition("[")[2].rstrip("]")


def _machine() -> str:
    """A hash: the id itself is not to be passed on."""
    try:
        found = MACHINE_ID.read_text().strip()
    except OSError:
        return ""
    words = f"streamcli {found} {platform.node()}"
    return hashlib.sha256(words.encode()).hexdigest()[:16] if found else ""


def _started(number: int) -> tuple[str, str] | None:
    """The state of a process, and when it started, in ticks since the boot."""
    try:
        after_name = (PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
        return after_name[0], after_name[19]
    except (OSError, IndexError):
        return None
