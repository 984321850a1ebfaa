"""Pictures that were drawn before: a page of many tables is brought up to date in the time of those that changed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.records.store import CannotWrite, write_atomically
from bench.reports.figures.canvas import Picture


def kept(folder: Path, draw: Callable[..., Picture], *shown: Any) -> Picture:
    """`draw(*shown)`, from `folder` where the same was drawn by the same code. What lies there can be thrown away."""
    made_of = repr((draw.__name__, shown, version("matplotlib"), _code()))
    path = folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # not drawn yet, or damaged
        told = json.loads(path.read_text(encoding="utf-8"))
        return Picture(told["svg"], told["alt"])
    picture = draw(*shown)
    with contextlib.suppress(CannotWrite):
        write_atomically(path, json.dumps({"svg": picture.svg, "alt": picture.alt}))
    return picture


@functools.cache
def _code() -> str:
    """The digest of the modules that draw."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
