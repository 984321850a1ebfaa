"""The command line: which command its words name, and its exit status. The commands themselves are in `bench.cli`.

Exit status: 0 all is well, 1 something failed or differs, 2 the request was not understood or cannot be met, 130 stopped
by Ctrl-C.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence

from bench import BenchError
from bench.cli import features, pages
from bench.cli import run as cells
from bench.cli import show as looking
from bench.cli.help import HELP, OVERVIEW
from bench.cli.words import STOPPED, USAGE, WELL, say
from bench.errors import listing, unknown
from bench.home import find_home

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "list": looking.list_all,
    "plan": cells.plan,
    "run": cells.run,
    "tune": cells.tune,
    "test": cells.test,
    "data check": features.data_check,
    "features list": features.features_list,
    "features check": features.features_check,
    "features import": features.features_import,
    "features extract": features.features_extract,
    "evaluate": cells.evaluate,
    "caption": cells.caption,
    "compare": looking.compare,
    "show": looking.show,
    "export csv": looking.export_csv,
    "leaderboard": pages.leaderboard,
    "reproduce list": pages.reproduce_list,
    "reproduce": pages.reproduce,
    "mlflow sync": looking.mlflow_sync,
    "ui": looking.ui,
    "version": looking.version,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. No mistake of the user's reaches them as a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path or title that the terminal's encoding lacks is no failure
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except BenchError as error:
        return say(str(error), USAGE)
    except KeyboardInterrupt:
        return say("stopped; the same command goes on where this one ended", STOPPED)
    except BrokenPipeError:
        # The reader of our output has seen enough (`bench list | head`). Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WELL
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        if error.filename is None and _output_is_full():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at exit
            return say(f"the output cannot be written ({error.strerror}): send it where there is room", USAGE)
        place = error.filename or find_home().root
        return say(f"{place}: {error.strerror}; free space there or make it writable, or set BENCH_HOME", USAGE)


def _output_is_full() -> bool:
    """Whether there is no room where our output goes: a line of its own is the only way to know."""
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except (OSError, ValueError):
        return True
    return False


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(OVERVIEW)
        return WELL
    if words[0] == "--version":
        return looking.version([])
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    if name not in COMMANDS:
        below = [command for command in COMMANDS if command.startswith(words[0] + " ")]
        if below and ("--help" in words or "-h" in words):
            print("\n\n".join(HELP[command] for command in below))
            return WELL
        raise _no_command(words, below)
    rest = words[len(name.split()) :]
    if "--help" in rest or "-h" in rest:
        print(HELP[name])
        return WELL
    return COMMANDS[name](rest)


def _no_command(words: list[str], below: list[str]) -> BenchError:
    """The error for words that name no command; `below` are the commands that begin with the first word."""
    if below and len(words) == 1:
        return BenchError(f'"{words[0]}" is half a command; allowed: {listing(below)}')
    return unknown("command", " ".join(words[:2]) if below else words[0], below or list(COMMANDS))


if __name__ == "__main__":
    sys.exit(main())
