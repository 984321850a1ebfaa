"""The HTML twin of a page: one file with its style, its script and its pictures inside, which opens without a network.

Tables can be sorted by every column, with the keyboard too; colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from html import escape as escape_html
from pathlib import Path
from urllib.parse import quote

from bench.pages.document import (
    Alarm,
    Bullets,
    Cell,
    Code,
    Column,
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

ASSETS = Path(__file__).parent / "assets"
TWIN = ".html"
INDEX, README = "index", "README"  # what a web server shows of a folder, and GitHub
COLOURS = {"#1a1a1a": "var(--ink)", "#6b6b6b": "var(--quiet)", "#ffffff": "var(--paper)"}
"""The canvas's ink, quiet ink and paper, which follow the reader's setting; the other colours are seen on both grounds."""

_IDS = re.compile(r'(\bid="|href="#|url\(#)')
_HEAD = re.compile(r"^.*?<svg ", re.DOTALL)
_SIZE = re.compile(r'\s(?:width|height)="[0-9.]+pt"')


def twin_of(name: str) -> str:
    """The name of a page's HTML twin: that of `README` is `index`."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{INDEX if last == README else last}"


def to_html(document: Document, name: str, heaviest: int) -> str:
    """The document as one HTML file. `name` is that of the page, from the folder of all pages on and without ending.

    Pictures that would make it heavier than about `heaviest` bytes are left to their files, with a link.
    """
    writer = _Writer(document.anchors, heaviest)
    body = writer.all(document.body)
    style, script = _asset("page.css"), _asset("page.js")
    source = f"{name.rpartition('/')[2]}.md"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(document.title)}</title>
<style>
{style}</style>
</head>
<body>
<header>{_way_back(name)}</header>
<main>
<h1>{text(document.title)}</h1>
{body}
</main>
<footer>Made by <code>bench leaderboard</code> from the records; the same in Markdown:
<a href="{quote(source)}">{text(source)}</a>. Click a column's head to sort by it.</footer>
<script>
{script}</script>
</body>
</html>
"""


def _way_back(name: str) -> str:
    """Links to the first page, and to that of the folder which a page lies in."""
    folder, *inner = name.split("/")
    ways = [] if name == README else [f'<a href="{"../" * len(inner)}{INDEX}{TWIN}">All leaderboards</a>']
    if inner and inner != [README]:
        ways.append(f'<a href="{"../" * (len(inner) - 1)}{INDEX}{TWIN}">{text(folder.capitalize())}</a>')
    return " › ".join(ways)


def text(foreign: str) -> str:
    """Foreign text as HTML that shows exactly it, within elements and in quoted attributes."""
    return escape_html(clean(foreign), quote=True)


@functools.cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


class _Writer:
    """Writes the parts of one page; counts its pictures, so that no two of them share an id, and what room they leave."""

    def __init__(self, anchors: Sequence[str], room: int) -> None:
        self.anchors = iter(anchors)
        self.pictures = 0
        self.room = room

    def all(self, parts: Sequence[Part]) -> str:
        """Tables and words first: what they weigh is not left to pictures."""
        written = ["" if isinstance(part, Image) else self.part(part) for part in parts]
        self.room -= sum(len(one.encode()) for one in written)
        return "\n".join(
            self.part(part) if isinstance(part, Image) else one for part, one in zip(parts, written, strict=True)
        )

    def part(self, part: Part) -> str:
        match part:
            case Heading():
                return f'<h{part.level} id="{text(next(self.anchors))}">{text(part.text)}</h{part.level}>'
            case Paragraph():
                return f"<p>{_line(part.line)}</p>"
            case Bullets():
                return "<ul>\n" + "\n".join(f"<li>{_line(line)}</li>" for line in part.lines) + "\n</ul>"
            case Contents():
                items = "\n".join(f"<li>{_line((jump,))}</li>" for jump in part.jumps)
                return f'<nav aria-label="Contents">\n<ul>\n{items}\n</ul>\n</nav>'
            case Folded():
                inside = "\n".join(self.part(one) for one in part.parts)
                return f"<details>\n<summary>{text(part.summary)}</summary>\n{inside}\n</details>"
            case Table():
                return _table(part)
            case Image():
                self.pictures += 1
                self.room -= len(part.picture.svg)
                if self.room < 0:
                    return f'<p><a href="{quote(part.path)}">Picture {self.pictures}</a>: {text(part.picture.alt)}</p>'
                return (
                    f'<figure class="wide" tabindex="0" role="group" aria-label="Picture {self.pictures}">\n'
                    f"{inline(part.picture.svg, part.picture.alt, f'p{self.pictures}-')}\n</figure>"
                )


def _table(table: Table) -> str:
    head = "".join(_head(column) for column in table.columns)
    rows = "\n".join(
        "<tr>" + "".join(_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(table.caption)}">\n<table>\n'
        f"<caption>{text(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def _head(column: Column) -> str:
    kind = ' class="n"' if column.number else ""
    up = ' data-up="1"' if column.name == "#" else ""  # the first place comes first
    help_ = f' title="{text(column.help)}"' if column.help else ""
    return f'<th scope="col"{kind}{up}{help_}>{text(column.name)}</th>'


def _cell(cell: Cell | Line, column: Column) -> str:
    line, order = (cell.line, cell.order) if isinstance(cell, Cell) else (cell, None)
    kind = ' class="n"' if column.number else ""
    sorted_by = f' data-v="{order:.9g}"' if order is not None else ""
    tag = 'th scope="row"' if column.name in ROW_HEADS else "td"
    return f"<{tag}{kind}{sorted_by}>{_line(line)}</{tag[:2]}>"


ROW_HEADS = ("method", "data set", "system", "target", "question", "comparison")
"""Columns that name their rows."""


def _line(line: Line) -> str:
    return "".join(_span(span) for span in spans(line))


def _span(span: Span) -> str:
    match span:
        case Link():
            return f'<a href="{quote(twin_of(span.path) + TWIN if span.page else span.path)}">{text(span.words)}</a>'
        case Jump():
            return f'<a href="#{text(span.anchor)}">{text(span.words)}</a>'
        case Code():
            return f"<code>{text(span.text)}</code>"
        case Quote():
            return f"<bdi>{text(span.text)}</bdi>"
        case Alarm():
            return f'<strong class="alarm">{text(span.text)}</strong>'
        case _:
            before = " " if span[:1].isspace() else ""
            after = " " if span[-1:].isspace() and span.strip() else ""
            return f"{before}{text(span)}{after}"


def inline(svg: str, alt: str, prefix: str) -> str:
    """A picture as an element of a page: `alt` for those who cannot see it, its ids its own, its ground that of the page."""
    element = _HEAD.sub("<svg ", svg, count=1)
    start, _, rest = element.partition(">")
    start = _SIZE.sub("", start).replace("<svg ", f'<svg role="img" aria-label="{text(alt)}" ', 1)
    element = _IDS.sub(rf"\g<1>{prefix}", f"{start}>{rest}".strip())
    for colour, variable in COLOURS.items():
        element = element.replace(colour, variable)
    return element
