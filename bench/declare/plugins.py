"""Methods of other packages: whether they can be imported, found out in a process of their own and remembered.

A plug-in is code of somebody else: it may raise, print, hang or end the process when it is imported, and none of that may
reach a listing or stop the cells of other methods.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from bench import BenchError
from bench.declare.registry import MethodEntry, method_digest, method_entry
from bench.disk.limits import own_json, own_text
from bench.disk.whole import CannotWrite, write_atomically
from bench.home import Home

SECONDS = 60  # importing torch from a cold disk takes some ten
PROBE = """
import importlib, json, sys, traceback
name, folder, sys.path[:] = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
try:
    module = importlib.import_module(name)
    problem = "" if callable(getattr(module, "build", None)) else "it has no function build(settings, streams, vocabulary)"
except BaseException as error:
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(folder)]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    problem = f"its import raises {type(error).__name__}: {error}{place}"
print("\\n" + json.dumps(problem), flush=True)
"""


def is_plugin(entry: MethodEntry) -> bool:
    """Whether another distribution brings this method."""
    return entry.source != "bench"


def import_error(entry: MethodEntry, home: Home) -> str | None:
    """Why a plug-in cannot be imported, in a sentence; None where it can, or where its card is refused already.

    Success is remembered by the digest of its code, failure is not: what is mended in the environment shows at once.
    """
    if not is_plugin(entry) or entry.card is None or entry.folder is None:
        return None
    path = home.work / "plugins.json"
    known = _read(path)
    try:
        mark = f"{method_digest(entry.folder)} {sys.version_info.major}.{sys.version_info.minor} {entry.folder}"
    except BenchError as no_python:
        return str(no_python)
    if known.get(entry.module) == mark:
        return None
    reason = _probe(entry.module, entry.folder)
    if reason is None:
        with contextlib.suppress(CannotWrite):  # costs a second at the next listing and nothing else
            write_atomically(path, json.dumps(known | {entry.module: mark}, indent=0, sort_keys=True) + "\n")
    return reason


def check_imports(words: Iterable[str], entries: dict[str, MethodEntry], home: Home) -> None:
    """Raise BenchError for a plug-in among the methods of a request (`guest`, `guest:variant`) that cannot be imported."""
    for name in dict.fromkeys(word.partition(":")[0] for word in words):
        entry = method_entry(name, entries)
        if error := import_error(entry, home):
            raise BenchError(f"method {name} of the package {entry.source} cannot be used: {error}")


def _read(path: Path) -> dict[str, str]:
    try:
        known = own_json(own_text(path))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _probe(module: str, folder: Path) -> str | None:
    command = [sys.executable, "-c", PROBE, module, str(folder), json.dumps(sys.path)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"its import takes more than {SECONDS} seconds"
    try:
        problem = json.loads((done.stdout.splitlines() or [""])[-1])
    except ValueError:
        problem = f"its import ends the process (status {done.returncode})"
    return " ".join(str(problem).split()) or None
