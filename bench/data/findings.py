"""One thing that a check found, with the clips it is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """`error` stops a run, `warning` is said and counted. `message` is one sentence; `clips` are the ids it is about."""

    severity: Literal["error", "warning"]
    message: str
    clips: tuple[str, ...] = ()


def named(ids: Iterable[str], show: int = 5) -> str:
    """The first `show` ids in a sentence, and how many more there are: `vid1, vid2 and 7 more`."""
    ids = list(ids)
    shown = ", ".join(ids[:show])
    return shown if len(ids) <= show else f"{shown} and {len(ids) - show:,} more"


def many(number: int, one: str, more: str | None = None) -> str:
    """A number with its noun: `1 clip`, `1,970 clips`, `2 copies`."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"
