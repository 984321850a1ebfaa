"""Whether the process that left a note behind still lives."""

from __future__ import annotations

import os
from pathlib import Path

GONE = ("Z", "X")  # ended, and kept in the table until its parent asks how


def alive(pid: int) -> bool:
    """Whether a process of this machine has the id `pid`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process: it lives, and may not be signalled
        return True
    return True


def birth(pid: int) -> str:
    """When the process `pid` of this machine began, in ticks since the machine did: ids are given out again, and fast in
    containers. Empty for one that has ended, and where the system has no `/proc`."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *rest = told.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if state in GONE else rest[18]


def same(pid: int, born: str) -> bool:
    """Whether the process `pid` lives and is the one whose `birth` was noted as `born`."""
    return birth(pid) == born if born else alive(pid)
