"""What all figures share: colours, sizes, text that no caption can break, and SVG whose bytes depend on its content alone."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # nosec B405

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.disk.limits import own_json, own_text
from bench.disk.whole import CannotWrite, write_atomically
from bench.pages.document import Picture, clean

WIDTH = 8.5  # inches: 816 px, the column of a Markdown page
INK, QUIET, PAPER = "#1a1a1a", "#6b6b6b", "#ffffff"
ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
)
"""Okabe and Ito's colours, told apart by eyes of every kind."""
CYCLE = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, INK)
MARKERS = "osD^vPX"
"""Colour never tells alone: each curve has a marker of its own as well."""
CHARACTER = 0.62  # width of a wide-running letter in ems: DejaVu's small letters have 0.61 at most but for m and w
SMALL, NORMAL = 8.5, 9.5  # points

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud, and the reader's fonts have every script
    "svg.hashsalt": "captionbench",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": NORMAL,
    "axes.titlesize": NORMAL,
    "axes.labelsize": NORMAL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar in a caption is a dollar
    "text.usetex": False,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "image.interpolation": "none",  # frames are stored with their own pixels
}


@contextmanager
def style() -> Iterator[None]:
    """The house's settings on top of matplotlib's own defaults: a user's matplotlibrc changes no figure."""
    with mpl.rc_context():
        mpl.rcdefaults()
        parameters: Any = mpl.rcParams  # its keys are a type of their own, another one in each version
        parameters.update(_STYLE)
        yield


def sheet(height: float) -> Figure:
    """An empty figure of `height` inches, with no global state behind it. Call it inside `style`."""
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasSVG(figure)
    return figure


def place(figure: Figure, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
    """Axes at a place in inches, `top` counted from the upper edge."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high), **options)


def write(figure: Figure, x: float, y: float, text: str, **options: Any) -> None:
    """Text at a place in inches from the upper left; `y` is its upper edge."""
    wide, high = figure.get_size_inches()
    options = {"va": "top", "ha": "left", **options}
    figure.text(x / wide, 1 - y / high, plain(text), **options)


def number_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as numbers: matplotlib writes powers in a notation that is plain text in this house."""
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def finish(figure: Figure, title: str, alt: str) -> Picture:
    """The picture of a figure: no date, no version, no random ids in it, and places to a hundredth of a point."""
    out = io.StringIO()
    with warnings.catch_warnings():
        # Letters that the measuring font lacks are drawn by the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Title": plain(title)})
    return Picture(_lighter(out.getvalue()), plain(alt))


_FAMILY = re.compile(r"font-family: [^;\"]*;? ?")
_CSS = '<style type="text/css">'
_REPEATED = re.compile(
    r' *<metadata>.*?</metadata>\n| transform="rotate\(-?0 [^)]*\)"', re.DOTALL
)  # the title; nothing
_PLACES = re.compile(r'\b(?:d|x|y|transform)="(?:[MLHVCQZ0-9-]|translate|rotate)[^"]*"')
_LONG = re.compile(r"-?\d+\.\d{3,}")


def _lighter(svg: str) -> str:
    """matplotlib's picture in two thirds of its bytes: the fonts are named once, and places are not finer than is seen."""
    svg = _FAMILY.sub("", _REPEATED.sub("", svg)).replace(
        _CSS, f"{_CSS}text{{font-family: 'DejaVu Sans', Verdana, sans-serif}} ", 1
    )
    return _PLACES.sub(
        lambda places: _LONG.sub(lambda one: f"{float(one[0]):.2f}".rstrip("0").rstrip("."), places[0]), svg
    )


SVG, LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_ADDRESS = re.compile(r"url\(#|^#")


def stack(pictures: Sequence[Picture], title: str) -> Picture:
    """Pictures below one another as one. What a picture calls by a name keeps to itself: names get the picture's number."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", LINK)
    root, top = ElementTree.Element(f"{{{SVG}}}svg", {"version": "1.1"}), 0.0
    ElementTree.SubElement(root, f"{{{SVG}}}title").text = plain(title)
    for number, picture in enumerate(pictures):
        part = ElementTree.fromstring(picture.svg)  # nosec B314  # drawn here, nobody else's
        for element in part.iter():
            for name, value in element.attrib.items():
                if name == "id":
                    element.set(name, f"part{number}-{value}")
                else:
                    element.set(name, _ADDRESS.sub(rf"\g<0>part{number}-", value))
        wide, high = (float(part.get(side, "0").removesuffix("pt")) for side in ("width", "height"))
        part.set("y", f"{top:g}")
        for side, size in (("width", wide), ("height", high)):
            part.set(side, f"{size:g}")
        root.append(part)
        top += high
    whole = WIDTH * 72
    for name, text in (("width", f"{whole:g}pt"), ("height", f"{top:g}pt"), ("viewBox", f"0 0 {whole:g} {top:g}")):
        root.set(name, text)
    svg = ElementTree.tostring(root, encoding="unicode")
    return Picture(
        f'<?xml version="1.0" encoding="utf-8"?>\n{svg}\n', plain(" ".join(picture.alt for picture in pictures))
    )


_NO_XML = re.compile("[\ufffe\uffff]")


def plain(text: str) -> str:
    """`text` on one line, as `clean` leaves it and without the two other characters that XML cannot hold."""
    return " ".join(clean(_NO_XML.sub("", text)).split())


def cells(text: str) -> int:
    """Columns that a text takes: two for a wide letter (Chinese, Japanese, Korean), none for an accent that joins one."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def wrap(text: str, inches: float) -> list[str]:
    """`text` in small lines that fit `inches`; at least one, and no word too long for a line."""
    room = max(int(inches * 72 / (SMALL * CHARACTER)), 4)
    lines = [""]
    for word in plain(text).split():
        joined = f"{lines[-1]} {word}".strip()
        if cells(joined) <= room:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if cells(lines[-1] + letter) > room:
                lines.append("")
            lines[-1] += letter
    return lines


def short(text: str, most: int) -> str:
    """`text` on one line of at most `most` characters."""
    line = plain(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`, for alt texts."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def kept(folder: Path, draw: Callable[..., Picture], *shown: Any) -> Picture:
    """`draw(*shown)`, from `folder` where the same was drawn by the same code. What lies there can be thrown away."""
    made_of = repr((draw.__name__, shown, version("matplotlib"), _code()))
    path = folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # not drawn yet, or damaged
        stored = own_json(own_text(path))
        return Picture(stored["svg"], stored["alt"])
    picture = draw(*shown)
    with contextlib.suppress(CannotWrite):
        write_atomically(path, json.dumps({"svg": picture.svg, "alt": picture.alt}))
    return picture


@functools.cache
def _code() -> str:
    """The digest of the modules that draw."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
