"""Mistakes as sentences: what, where, which values are allowed, what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from bench import BenchError


class ChangedError(BenchError):
    """What a cell was planned with is another by now: its key names what was, and it leaves no record under it."""


class AbsentError(BenchError):
    """What is needed of one cell or clip is not on this machine; others may have theirs."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean "x"?` for the closest of `choices`, or an empty string when none is close."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(word).lower(), list(by_lower), n=1, cutoff=0.6)
    return f'; did you mean "{by_lower[close[0]]}"?' if close else ""


def listing(words: Iterable[str]) -> str:
    """`a, b, c` in the order given, or `none`."""
    return ", ".join(str(word) for word in words) or "none"


def unknown(kind: str, word: str, choices: Iterable[str], where: str = "") -> BenchError:
    """The error for a name that does not exist: the allowed ones and the closest of them."""
    names = list(choices)
    place = f"{where}: " if where else ""
    return BenchError(f'{place}unknown {kind} "{word}"; allowed: {listing(names)}{did_you_mean(word, names)}')


@dataclass(frozen=True)
class Finding:
    """`error` stops a run, `warning` is printed and counted. `message` is one sentence; `clips` are the ids it is about."""

    severity: Literal["error", "warning"]
    message: str
    clips: tuple[str, ...] = ()


def named(ids: Iterable[str], show: int = 5) -> str:
    """The first `show` ids in a sentence, and how many more there are: `vid1, vid2 and 7 more`."""
    ids = list(ids)
    shown = ", ".join(ids[:show])
    return shown if len(ids) <= show else f"{shown} and {len(ids) - show:,} more"


def first_line(error: BaseException) -> str:
    """The first line of what an error of somebody else's says, the system's without their numbers and paths; or the name of its
    type where it says nothing."""
    said = getattr(error, "strerror", None) or str(error)
    return (said.strip().splitlines() or [type(error).__name__])[0]


_PASSWORD = re.compile(r"(?<=://)([^\s/:@'\"]*):[^\s'\"]*@")  # to the last @: it may hold any sign
_SECRET = re.compile(r"(?i)\b((?:\w+[_-])?(?:password|passwd|pwd|token|secret|api[_-]?key)=)[^\s&;,'\"]+")


def masked(text: str) -> str:
    """A text without the passwords of addresses in it, and without what follows `password=`, `token=` and the like."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


class Mistakes(BenchError):  # noqa: N818 - said as it is
    """Several mistakes of one command."""

    def __init__(self, told: list[BenchError]) -> None:
        listed = "".join(f"\n  {number}. {error}" for number, error in enumerate(told, start=1))
        super().__init__(f"{len(told)} mistakes:{listed}")
        self.told = told


@contextmanager
def kept(told: list[BenchError]) -> Iterator[None]:
    """What goes wrong inside is added to `told`."""
    try:
        yield
    except BenchError as error:
        told.append(error)


def together(checks: Iterable[Callable[[], object]]) -> None:
    """Make all checks, so that several mistakes of one command are told at once. Raises BenchError with what they raise."""
    told: list[BenchError] = []
    for check in checks:
        with kept(told):
            check()
    if told:
        raise all_of(told)


def singly(told: Iterable[BenchError]) -> list[BenchError]:
    """The mistakes in these errors, each once."""
    single = [one for error in told for one in (error.told if isinstance(error, Mistakes) else [error])]
    return list({str(error): error for error in single}.values())


def all_of(told: Iterable[BenchError]) -> BenchError:
    """The error alone, or one that lists them all, each once."""
    errors = singly(told)
    return errors[0] if len(errors) == 1 else Mistakes(errors)


def many(number: int, one: str, more: str | None = None) -> str:
    """A number with its noun: `1 clip`, `1,970 clips`, `2 copies`."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def sizes(shape: Iterable[int]) -> str:
    """A shape in a sentence: `28x1536`."""
    return "x".join(map(str, shape))
