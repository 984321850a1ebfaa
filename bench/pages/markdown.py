"""The Markdown face of a page, which foreign text cannot break."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from urllib.parse import quote

from tabulate import tabulate

from bench.pages.document import (
    Alarm,
    Bullets,
    Cell,
    Code,
    Contents,
    Document,
    Folded,
    Heading,
    Image,
    Jump,
    Line,
    Link,
    Paragraph,
    Part,
    Quote,
    Span,
    Table,
    clean,
    spans,
)

SPECIAL = re.compile(r"([\\|`*\[\]~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


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


def to_markdown(document: Document) -> str:
    """The document as Markdown. Its text is escaped; its pictures are named by their paths."""
    return "\n\n".join([f"# {escape(document.title)}", *map(_part, document.body)])


def _part(part: Part) -> str:
    match part:
        case Heading():
            return f"{'#' * part.level} {escape(part.text)}"
        case Paragraph():
            return _line(part.line)
        case Bullets():
            return "\n".join(f"- {_line(line)}" for line in part.lines)
        case Contents():
            return "\n".join(f"- {_line((jump,))}" for jump in part.jumps)
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
        case Jump():
            return f"[{escape(span.words)}](#{span.anchor})"
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
