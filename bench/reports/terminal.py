"""Text for a terminal: plain tables, wrapped sentences, foreign text on one line."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 110


def columns(head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> str:
    """A plain table, columns padded to their widest entry; those in `right` are set flush right."""
    table = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[number]) for row in table) for number in range(len(head))]
    lines = [
        "  ".join(
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(row, widths, head, strict=True)
        ).rstrip()
        for row in table
    ]
    return "\n".join(lines)


def wrapped(text: str) -> str:
    """`text` in lines of at most `WIDTH` characters; words and paths stay whole."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
