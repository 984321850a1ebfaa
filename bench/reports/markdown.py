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
from bench.records.store import write_atomically

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
PICTURE = ".svg"
SPECIAL = re.compile(r"([\\|`*\[\]~])")
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

    `check` asks of a picture only that it is there: its bytes are those of one version of the drawing library, and its
    numbers stand in the records and on the page.
    """
    changed = []
    for path, text in texts.items():
        if not path.exists() or (read_page(path) != text and not (check and path.suffix == PICTURE)):
            changed.append(path)
            if not check:
                write_atomically(path, text)
    return changed


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
