"""Whether the process that left a note behind still lives."""

from __future__ import annotations

import os


def alive(pid: int) -> bool:
    """Whether a process of this machine has the id `pid`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process: it lives, and may not be signalled
        return True
    return True
