"""Text for a terminal: plain tables, sentences wrapped at word ends. Into a pipe or a file lines stay whole."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

NARROWEST = 8  # characters of a column that makes room for others
MARGIN = re.compile(
    r" *(?:[A-Z]  )?(?:\[\d+\] )?"
)  # before the first word of a line: spaces, a letter of a legend, a number


def room(out: TextIO | None = None) -> int | None:
    """Characters in a line of the terminal behind `out` (the output, unless given); None where there is none."""
    out = out or sys.stdout
    return shutil.get_terminal_size().columns if out.isatty() else None


def columns(
    head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = (), most: int | None = None
) -> str:
    """A plain table, columns padded to their widest entry; those in `right` are set flush right.

    A table wider than `most` characters (the terminal, unless given) leaves out what is empty and gets narrowest where it is
    widest: long entries go on in the lines below.
    """
    most = most or room()
    table = [list(head), *([str(cell) for cell in row] for row in rows)]
    if most is not None and rows and sum(_widths(table)) + 2 * len(head) - 2 > most:
        full = [number for number in range(len(head)) if any(row[number] for row in table[1:])]
        table = [[row[number] for number in full] for row in table]
    widths = _widths(table) if most is None else _narrowed(table, most)
    flush = [name in right for name in table[0]]
    lines = []
    for row in table:
        cells = [
            _Narrow(width).wrap(cell) if len(cell) > width else [cell] for cell, width in zip(row, widths, strict=True)
        ]
        for line in itertools.zip_longest(*cells, fillvalue=""):
            placed = zip(line, widths, flush, strict=True)
            lines.append(
                "  ".join(cell.rjust(width) if last else cell.ljust(width) for cell, width, last in placed).rstrip()
            )
    return "\n".join(lines)


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def _narrowed(table: Sequence[Sequence[str]], most: int) -> list[int]:
    """The widths of columns in `most` characters: the widest gives way, words stay whole as long as that is possible."""
    widths = _widths(table)
    words = [max(len(part) for cell in column for part in _parts(cell) or [""]) for column in zip(*table, strict=True)]
    for least in (words, [NARROWEST] * len(words)):
        while sum(widths) + 2 * len(widths) - 2 > most:
            wide = [number for number, width in enumerate(widths) if width > least[number]]
            if not wide:
                break
            widths[max(wide, key=lambda number: widths[number])] -= 1
    return widths


class _Narrow(textwrap.TextWrapper):
    """Cuts an entry of a table between words; a long one without spaces, such as a signature, also behind its signs."""

    def _split(self, text: str) -> list[str]:
        return _parts(text)


def _parts(text: str) -> list[str]:
    """What stays in one line: words, pieces of long ones, and the spaces between them."""
    return [part for part in re.split(r"(\s+)|(?<=[|/_+])(?=\w)", text) if part]


def wrapped(text: str, out: TextIO | None = None, hang: int = 0) -> str:
    """`text` with no line wider than the terminal behind `out`; words and paths stay whole.

    A line that goes on does so below its first word, or `hang` characters to the right of its margin.
    """
    most = room(out)
    return text if most is None else "\n".join(_folded(line, most, hang) for line in text.split("\n"))


def command(text: str) -> str:
    """A command for a shell, cut into lines that can be copied from a terminal."""
    most = room()
    if most is None or len(text) <= most:
        return text
    lines = textwrap.wrap(text, most - 2, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(lines)


def _folded(line: str, most: int, hang: int) -> str:
    if len(line) <= most:
        return line
    margin = MARGIN.match(line)
    below = " " * (hang + (margin.end() if margin else 0))
    return textwrap.fill(
        line, most, subsequent_indent=below, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
