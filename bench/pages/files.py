"""Pages on disk: a Markdown page that keeps what people wrote around it, its HTML twin, the files of its pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bench import BenchError
from bench.disk.limits import own_bytes
from bench.disk.whole import clear_aside, write_atomically
from bench.pages.document import Document
from bench.pages.html import TWIN, to_html, twin_of
from bench.pages.markdown import to_markdown

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
PICTURE = ".svg"
PICTURES = "figures"
HEAVIEST = 1_400_000  # bytes of an HTML page; pictures that would make it heavier stay in their files
DRAWN = re.compile(r"<svg\b.*?</svg>", re.DOTALL)


def pictures_of(name: str) -> str:
    """Where the pictures of the page `name` lie, relative to the page."""
    return f"{PICTURES}/{name.rpartition('/')[2]}"


def write_pages(documents: Mapping[str, Document], folder: Path, check: bool) -> list[Path]:
    """Bring the pages `folder/<name>.md`, their twins and their pictures up to date; returns the files that changed.

    Pictures that a page no longer has are removed. With `check` nothing is written, and what would change is returned.
    Raises BenchError for a page that lost its markers.
    """
    texts: dict[Path, str] = {}
    for name, document in documents.items():
        texts |= files_of(name, document, folder)
    drawn = [(folder / name).parent / pictures_of(name) for name in documents]
    orphans = [path for place in drawn for path in sorted(place.rglob(f"*{PICTURE}")) if path not in texts]
    if not check:
        for path in orphans:
            path.unlink()
        for place in {path.parent for path in texts}:
            clear_aside(place)
    return [*bring_up_to_date(texts, check), *orphans]


def files_of(name: str, document: Document, folder: Path) -> dict[Path, str]:
    """The Markdown page `folder/<name>.md`, its pictures and its HTML twin, by path."""
    page = folder / f"{name}.md"
    files = {page: between_markers(page, to_markdown(document))}
    files |= {page.parent / image.path: image.picture.svg for image in document.images()}
    files[folder / f"{twin_of(name)}{TWIN}"] = to_html(document, name, HEAVIEST)
    return files


def between_markers(path: Path, body: str) -> str:
    """The page at `path` with `body` between its markers; a new page where there is none.

    Raises BenchError for a page without exactly one pair of markers: what is to be replaced could not be known.
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
        return own_bytes(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 text (byte {error.start:,})"
        raise BenchError(
            f"cannot read the page {path}: {why}. Mend it or move it away, and run bench leaderboard again."
        ) from error
