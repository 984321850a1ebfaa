"""Markdown that foreign text cannot break, and generated pages that keep what people wrote around them."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from tabulate import tabulate

from bench import BenchError
from bench.disk.whole import write_atomically
from bench.pages.document import (
    Alarm,
    Bullets,
    Cell,
    Code,
    Document,
    Folded,
    Heading,
    Image,
    Line,
    Link,
    Paragraph,
    Part,
    Quote,
    Span,
    Table,
    spans,
)

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
PICTURE, TWIN = ".svg", ".html"
SPECIAL = re.compile(r"([\\|`*\[\]~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
DRAWN = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
JOINER = "\u200d"  # holds emoji together; the other format characters can reverse or hide the text around them


def clean(text: str) -> str:
    """`text` on one line, without control characters and without those that turn the direction of text."""
    line = " ".join(text.split())
    return "".join(mark for mark in line if mark == JOINER or unicodedata.category(mark) not in ("Cc", "Cf", "Cs"))


def escape(text: str) -> str:
    """`text` as Markdown that shows exactly it: no table cell, tag, link, emphasis or code begins or ends in it."""
    return SPECIAL.sub(r"\\\1", html.escape(clean(text), quote=False))


def code(text: str) -> str:
    """`text` as a code span outside of tables."""
    return "`" + clean(text).replace("`", "'").replace("<!--", "<! --") + "`"


def link(words: str, path: str) -> str:
    """A link to a file, `path` relative to the page."""
    return f"[{escape(words)}]({quote(path)})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """A Markdown table of cells that are Markdown already; the columns named in `right` are aligned right.

    Numbers stay as they are written: tabulate would turn 52.30 into 52.3.
    """
    align = ["right" if name in right else "left" for name in head]
    return tabulate(rows, headers=head, tablefmt="pipe", disable_numparse=True, colalign=align)


def render(document: Document) -> str:
    """The document as Markdown. Its text is escaped; its pictures are named by their paths."""
    return "\n\n".join([f"# {escape(document.title)}", *map(_part, document.parts)])


def _part(part: Part) -> str:
    match part:
        case Heading():
            return f"{'#' * part.level} {escape(part.text)}"
        case Paragraph():
            return _line(part.line)
        case Bullets():
            return "\n".join(f"- {_line(line)}" for line in part.lines)
        case Image():
            return f"![{escape(part.picture.alt)}]({quote(part.path)})"
        case Folded():
            inside = "\n\n".join(map(_part, part.parts))
            return f"<details>\n<summary>{escape(part.summary)}</summary>\n\n{inside}\n\n</details>"
        case Table():
            rows = [
                [_line(cell.line if isinstance(cell, Cell) else cell, cells=True) for cell in row] for row in part.rows
            ]
            head = [column.name for column in part.columns]
            return table(
                [escape(name) for name in head], rows, [escape(one.name) for one in part.columns if one.number]
            )


def _line(line: Line, cells: bool = False) -> str:
    return "".join(_span(span, cells) for span in spans(line))


def _span(span: Span, cells: bool) -> str:
    """One piece of a line; in `cells` a code span would not keep its pipes, so it is plain text there."""
    match span:
        case Link():
            return link(span.words, f"{span.path}.md" if span.page else span.path)
        case Code():
            return escape(span.text) if cells else code(span.text)
        case Quote() | Alarm():
            return escape(span.text)
        case _:
            return _escaped_inside(span)


def _escaped_inside(text: str) -> str:
    """`escape` keeps no space at the ends of a text; those between two pieces of a line belong there."""
    before = " " if text[:1].isspace() else ""
    after = " " if text[-1:].isspace() and text.strip() else ""
    return f"{before}{escape(text)}{after}"


def between_markers(path: Path, body: str) -> str:
    """The page at `path` with `body` between its markers; a new page where there is none.

    Raises BenchError for a page without exactly one pair of markers: what is whose could not be told.
    """
    block = f"{BEGIN}\n{body.strip()}\n{END}"
    if not path.exists():
        return block + "\n"
    text = read_page(path)
    start, end = text.find(BEGIN), text.find(END)
    if not has_markers(text):
        raise BenchError(
            f"{path} needs one line {BEGIN} and after it one line {END}, between which the tables are written: "
            "put them in, or remove the page, and run bench leaderboard again."
        )
    return text[:start] + block + text[end + len(END) :]


def bring_up_to_date(texts: Mapping[Path, str], check: bool) -> list[Path]:
    """Write the pages and pictures that are not as `texts` say; returns them. With `check` nothing is written.

    `check` asks of a picture, in a file of its own or within an HTML page, only that it is there: its bytes are those of one
    version of the drawing library, and its numbers stand in the records and on the page.
    """
    changed = []
    for path, text in texts.items():
        if not path.exists() or _apart(path, read_page(path), text, check):
            changed.append(path)
            if not check:
                write_atomically(path, text)
    return changed


def _apart(path: Path, there: str, text: str, check: bool) -> bool:
    if there == text:
        return False
    if check and path.suffix == PICTURE:
        return False
    return not (check and path.suffix == TWIN and DRAWN.sub("", there) == DRAWN.sub("", text))


def has_markers(text: str) -> bool:
    """Whether `text` holds one pair of markers, in order."""
    return text.count(BEGIN) == text.count(END) == 1 and text.find(BEGIN) < text.find(END)


def read_page(path: Path) -> str:
    """The page as it is, line ends included. Raises BenchError."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 text (byte {error.start:,})"
        raise BenchError(
            f"cannot read the page {path}: {why}. Mend it or move it away, and run bench leaderboard again."
        ) from error
