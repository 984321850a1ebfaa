"""Text for a terminal: plain tables, wrapped sentences, foreign text on one line."""

from __future__ import annotations

import itertools
import shutil
import sys
import textwrap
from collections.abc import Sequence

WIDTH = 110
NARROWEST = 14  # characters of a column that makes room for others


def columns(
    head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = (), most: int | None = None
) -> str:
    """A plain table, columns padded to their widest entry; those in `right` are set flush right.

    A table wider than `most` characters gets it narrowest where it is widest: long entries go on in the lines below.
    """
    table = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[number]) for row in table) for number in range(len(head))]
    while most is not None and sum(widths) + 2 * len(widths) - 2 > most and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in table:
        cells = [
            textwrap.wrap(cell, width) if len(cell) > width else [cell] for cell, width in zip(row, widths, strict=True)
        ]
        for line in itertools.zip_longest(*cells, fillvalue=""):
            placed = zip(line, widths, head, strict=True)
            lines.append(
                "  ".join(
                    cell.rjust(width) if name in right else cell.ljust(width) for cell, width, name in placed
                ).rstrip()
            )
    return "\n".join(lines)


def room() -> int | None:
    """Characters in a line of the terminal; None where nobody looks at one: lines stay whole for other programs."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(text: str) -> str:
    """`text` in lines of at most `WIDTH` characters; words and paths stay whole."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
