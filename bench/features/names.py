"""From the names in a feature file to the clip ids of a corpus.

MSVD alone goes by three namings: YouTube ids with start and end, `vid1` to `vid1970`, and the same counted from 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath

from bench import BenchError

EXTENSIONS = (".mp4", ".avi", ".webm", ".mkv", ".mov", ".npy", ".npz")
SHIFTS = {"zero_based": 1, "one_based": -1}  # the source counts from 0 where the corpus counts from 1, and the reverse

Rename = Callable[[str], tuple[str, ...]]


def natural(name: str) -> tuple[object, ...]:
    """Sort key by id: digits count as numbers, so video9 comes before video10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def stem(name: str) -> str:
    """The name without its folder and without the extension of a video or array file."""
    last = PurePosixPath(name)
    return last.stem if last.suffix.lower() in EXTENSIONS else last.name


def by_name(corpus: Collection[str]) -> Rename:
    """As it is, else without extension; a bare number also with the word that all clips of the corpus begin with."""
    words = {clip.rstrip("0123456789") for clip in corpus}
    prefix = words.pop() if len(words) == 1 else ""

    def rename(name: str) -> tuple[str, ...]:
        base = stem(name)
        return (name, base, prefix + base) if base.isdigit() and prefix else (name, base)

    return rename


def by_shift(rule: str, corpus: Collection[str]) -> Rename:
    """The last number of the name moved by one."""
    plain = by_name(corpus)

    def rename(name: str) -> tuple[str, ...]:
        found = re.fullmatch(r"(.*?)(\d+)", stem(name))
        return plain(f"{found[1]}{int(found[2]) + SHIFTS[rule]}") if found else ()

    return rename


def by_table(pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> Rename:
    """By a table of two columns, one of them the names of the source, whichever it is."""
    known = {stem(name) for name in names}
    table = {stem(left): stem(right) for left, right in pairs}
    if len(known & set(table.values())) > len(known & table.keys()):
        table = {right: left for left, right in table.items()}
    return lambda name: (table[stem(name)],) if stem(name) in table else ()


def read_ids(path: Path) -> list[tuple[str, ...]]:
    """Lines of one id (the rows of a matrix) or of two names of one clip; blank-, tab- or comma-separated."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"the list of clip ids {path} cannot be read: {error}") from error
    rows = [tuple(re.split(r"[\s,]+", line.strip())) for line in lines if line.strip()]
    widths = sorted({len(row) for row in rows})
    if widths not in ([1], [2]):
        raise BenchError(f"{path} must have one id in each line, or two names of one clip; it has {widths or 'none'}")
    return rows


def match(names: Sequence[str], rename: Rename, corpus: Collection[str]) -> dict[str, list[int]]:
    """Clip id -> numbers of the source's clips that bear it. More than one is a fault that the caller names."""
    wanted = set(corpus)
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        clip = next((clip for clip in rename(name) if clip in wanted), None)
        if clip is not None:
            places.setdefault(clip, []).append(number)
    return places


def hint(names: Sequence[str], corpus: Collection[str]) -> str:
    """What is probably wrong with names that do not cover the corpus."""
    for rule, start in (("zero_based", 0), ("one_based", 1)):
        if len(match(names, by_shift(rule, corpus), corpus)) == len(set(corpus)):
            return f"the source seems to count from {start}: say ids: {rule}"
    if not match(names, by_name(corpus), corpus):
        ours, theirs = ", ".join(list(corpus)[:2]), ", ".join(names[:2])
        return f"its names are like {theirs}, those of the corpus like {ours}: say ids: FILE with both in each line"
    return "add them to the source, or restrict the data set with subset: {from_stream: STREAM}"
