"""A page before it is Markdown or HTML: headings, paragraphs, tables, pictures. Both twins are made of one of these.

Text here is as it was read: it is escaped where it is written, by `bench.pages.markdown` and `bench.pages.html`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

JOINER = "\u200d"  # holds emoji together; the other format characters can reverse or hide the text around them


def clean(text: str) -> str:
    """`text` on one line, without control characters and without those that turn the direction of text."""
    line = " ".join(text.split())
    return "".join(mark for mark in line if mark == JOINER or unicodedata.category(mark) not in ("Cc", "Cf", "Cs"))


@dataclass(frozen=True)
class Picture:
    """A figure: the SVG, and what it shows in words for those who cannot see it."""

    svg: str
    alt: str


@dataclass(frozen=True)
class Link:
    """`path` is relative to the page. `page` says that it leads to another page of ours, which has twins; then `path` has no
    ending."""

    words: str
    path: str
    page: bool = False


@dataclass(frozen=True)
class Jump:
    """The way to a heading of the same page, by its anchor."""

    words: str
    anchor: str


@dataclass(frozen=True)
class Code:
    """Text as a machine writes it."""

    text: str


@dataclass(frozen=True)
class Quote:
    """Words of a caption, in whichever direction their script runs."""

    text: str


@dataclass(frozen=True)
class Alarm:
    """What must not be overlooked: a failed or missing cell."""

    text: str


NOTHING = "—"
Span = str | Link | Jump | Code | Quote | Alarm
Line = str | tuple[Span, ...]


@dataclass(frozen=True)
class Cell:
    """One field of a table, and the number that it is sorted by; without one it is sorted as text."""

    line: Line
    order: float | None = None


Field = Cell | Line


def amount(value: float | None, form: str = "") -> Cell:
    """A number as one field, written as the format says; a dash where there is none."""
    return Cell(NOTHING) if value is None else Cell(format(value, form), value)


def p_value(p: float) -> str:
    """A p as it is written everywhere, with three digits."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


@dataclass(frozen=True)
class Column:
    """`number` columns are set flush right; `help` says what the column holds."""

    name: str
    number: bool = False
    help: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells. `caption` says what the table is to those who come upon it without the text around it."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Field, ...], ...]


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    line: Line


@dataclass(frozen=True)
class Bullets:
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Image:
    """A picture; `path`, relative to the page, is where its file lies for the Markdown twin."""

    picture: Picture
    path: str


@dataclass(frozen=True)
class Folded:
    """Parts that a reader opens: what makes a table checkable and is not its message."""

    summary: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Contents:
    """The ways to the sections of a page."""

    jumps: tuple[Jump, ...]


Part = Heading | Paragraph | Bullets | Table | Image | Folded | Contents
P = TypeVar("P", Heading, Image)
SECTION = 2  # the level of headings that a list of contents names


@dataclass(frozen=True)
class Document:
    """One page. `title` is its first heading."""

    title: str
    parts: tuple[Part, ...] = field(default=())

    @property
    def body(self) -> tuple[Part, ...]:
        """The parts, and before the first of two or more sections the list of contents."""
        headings = list(_all(self.parts, Heading))
        jumps = [
            Jump(heading.text, to)
            for heading, to in zip(headings, self.anchors, strict=True)
            if heading.level == SECTION
        ]
        if len(jumps) < 2:
            return self.parts
        first = next(place for place, part in enumerate(self.parts) if part in headings)
        return (*self.parts[:first], Contents(tuple(jumps)), *self.parts[first:])

    @property
    def anchors(self) -> list[str]:
        """The anchors of all headings in order: what GitHub makes of their text, told apart by numbers."""
        taken = {anchor(self.title): 0}
        found = []
        for heading in _all(self.parts, Heading):
            name = anchor(heading.text)
            number = taken[name] = taken.get(name, -1) + 1
            found.append(f"{name}-{number}" if number else name)
        return found

    def images(self) -> list[Image]:
        """All pictures, in order."""
        return list(_all(self.parts, Image))


def anchor(heading: str) -> str:
    """`1. What's new` is `1-whats-new`."""
    return re.sub(r"[^\w\- ]", "", clean(heading).lower()).replace(" ", "-")


def _all(parts: Sequence[Part], kind: type[P]) -> Iterator[P]:
    """The parts of one kind in order, folded ones too."""
    for part in parts:
        if isinstance(part, kind):
            yield part
        elif isinstance(part, Folded):
            yield from _all(part.parts, kind)


def spans(line: Line) -> tuple[Span, ...]:
    """The pieces of a line."""
    return (line,) if isinstance(line, str) else line
