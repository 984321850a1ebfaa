"""A page before it is Markdown or HTML: headings, paragraphs, tables, pictures. Both twins are made of one of these.

Text here is as it was read: it is escaped where it is written, by `bench.pages.markdown` and `bench.pages.html`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


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


Span = str | Link | Code | Quote | Alarm
Line = str | tuple[Span, ...]


@dataclass(frozen=True)
class Cell:
    """One field of a table, and the number that it is sorted by; without one it is sorted as text."""

    line: Line
    order: float | None = None


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
    rows: tuple[tuple[Cell | Line, ...], ...]


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


Part = Heading | Paragraph | Bullets | Table | Image | Folded


@dataclass(frozen=True)
class Document:
    """One page. `title` is its first heading."""

    title: str
    parts: tuple[Part, ...] = field(default=())

    def images(self) -> list[Image]:
        """All pictures, in order."""
        return list(_images(self.parts))


def _images(parts: Sequence[Part]) -> list[Image]:
    found: list[Image] = []
    for part in parts:
        if isinstance(part, Image):
            found.append(part)
        elif isinstance(part, Folded):
            found += _images(part.parts)
    return found


def spans(line: Line) -> tuple[Span, ...]:
    """The pieces of a line."""
    return (line,) if isinstance(line, str) else line


def plain(line: Line) -> str:
    """What a line says, without links and marks."""
    return "".join(
        span if isinstance(span, str) else span.words if isinstance(span, Link) else span.text for span in spans(line)
    )
