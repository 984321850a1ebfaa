"""The command line: which command is named, and its exit status. The commands are in `bench.cli.commands`.

Exit status: 0 all is well, 1 something failed or differs, 2 the request was not understood or cannot be met, 130 stopped
by Ctrl-C, 70 a fault of bench itself.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from bench import BenchError
from bench.cli.answers import OUR_FAULT, STOPPED, USAGE, WELL, say
from bench.cli.commands import COMMANDS
from bench.cli.help import overview, page
from bench.errors import listing, masked, unknown
from bench.home import find_home

LONGEST = 300  # characters of a stranger's name or message in a sentence
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. No mistake of the user's reaches them as a traceback."""
    given = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path or title that the terminal's encoding lacks is no failure
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _dispatch(given)
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
            return _refused_by_the_system(error, given)
        if error.filename is None and _output_is_full():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at exit
            return say(f"the output cannot be written ({error.strerror}): send it where there is room", USAGE)
        place = error.filename or find_home().root
        return say(f"{place}: {error.strerror}; free space there or make it writable, or set BENCH_HOME", USAGE)
    except MemoryError:
        return say("the memory of this machine does not suffice; give it smaller files, or this command more", USAGE)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
        where = _keep_trace(given)
        return say(f"this is a fault of bench, not of what you gave ({what}); please report it with {where}", OUR_FAULT)


def _refused_by_the_system(error: OSError, argv: Sequence[str]) -> int:
    """A fault that no reader of files expected: of a disk, a name that is too long, a network."""
    what = " ".join((error.strerror or str(error) or type(error).__name__).split())
    name = "" if error.filename is None else f"{str(error.filename)[:LONGEST]}: "
    return say(f"{name}{what}; where it happened is written to {_keep_trace(argv)}", USAGE)


def _keep_trace(argv: Sequence[str]) -> Path | str:
    """Write the traceback of the error at hand where a person can send it from; returns the file."""
    name = f"trace-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    text = masked(f"bench {' '.join(argv)}\n\n{traceback.format_exc()}")
    for folder in (find_home().work, Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return folder / name
    return "the words above: no file could be written"


def _output_is_full() -> bool:
    """Whether there is no room where our output goes: a line of its own is the only way to know."""
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except (OSError, ValueError):
        return True
    return False


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(overview())
        return WELL
    if argv[0] == "--version":
        argv = ["version"]
    name = " ".join(argv[:2]) if " ".join(argv[:2]) in COMMANDS else argv[0]
    asks_for_help = "--help" in argv or "-h" in argv
    if name not in COMMANDS:
        below = [command for command in COMMANDS if command.startswith(argv[0] + " ")]
        if below and asks_for_help:
            print("\n\n".join(map(page, below)))
            return WELL
        raise _no_command(argv, below)
    if asks_for_help:
        print(page(name))
        return WELL
    return COMMANDS[name].function()(argv[len(name.split()) :])


def _no_command(argv: list[str], below: list[str]) -> BenchError:
    """The error for a command line that names no command; `below` are the commands that begin with its first word."""
    if below and len(argv) == 1:
        return BenchError(f'"{argv[0]}" is half a command; allowed: {listing(below)}')
    return unknown("command", " ".join(argv[:2]) if below else argv[0], below or list(COMMANDS))


if __name__ == "__main__":
    sys.exit(main())
