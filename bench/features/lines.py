"""Feature files of text: a line for every frame, as S2VT's authors and bottom-up attention's published them.

| layout | a line |
|---|---|
| `csv` | `<clip>_frame_<n>,v1,v2,..`: one vector |
| `tsv` | image id, width, height, number of boxes, boxes and features as base64 of float32, between tabs |
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench import BenchError

_FRAME = re.compile(r"(.+?)[_/](?:frame_?)?(\d+)(?:\.\w+)?")
HEADS = {"csv": 1, "tsv": 4}  # fields before the values
LONGEST = 200  # bytes of a line that the index reads: its fields before the values


class Lines:
    """A text file as clips by number: each clip's lines in the order of their frame numbers.

    Only the places of the lines are held in memory.
    """

    def __init__(self, path: Path, layout: str, known: Callable[[Sequence[str]], int]) -> None:
        self.layout = layout
        self._path = path
        heads, places = self._index()
        whole = list(dict.fromkeys(head[0] for head in heads))
        parted = [_FRAME.fullmatch(head[0]) for head in heads]
        # `a_10_20` is frame 20 of the clip `a_10` or a clip of its own: as the corpus knows more of them.
        split = all(parted) and known(list(dict.fromkeys(found[1] for found in parted if found))) >= known(whole)
        lines: dict[str, list[tuple[int, int, int]]] = {}
        for head, found, place in zip(heads, parted, places, strict=True):
            clip, frame = (found[1], int(found[2])) if split and found else (head[0], 0)
            lines.setdefault(clip, []).append((frame, place, int(head[3]) if layout == "tsv" else 1))
        self._lines = {clip: sorted(own) for clip, own in lines.items()}
        self.names: Sequence[str | None] = list(self._lines)
        self._boxes = max(count for own in self._lines.values() for _, _, count in own)
        self._width = self._vector(places[0]).shape[-1]
        what = f"boxes, at most {self._boxes} of a frame, of width {self._width}" if layout == "tsv" else "vectors"
        self.description = f"{path.name}: {len(heads)} lines of {what}, {len(self.names)} clips" + (
            "" if layout == "tsv" else f" of width {self._width}"
        )

    def _index(self) -> tuple[list[list[str]], list[int]]:
        """The first fields of each line, and where it begins."""
        mark, count = (b"," if self.layout == "csv" else b"\t"), HEADS[self.layout]
        heads: list[list[str]] = []
        places: list[int] = []
        place = 0
        try:
            with self._path.open("rb") as file:
                for line in file:
                    if line.strip():
                        fields = line[:LONGEST].split(mark, count)
                        if len(fields) <= count or (self.layout == "tsv" and not fields[3].isdigit()):
                            raise ValueError(f"line {len(heads) + 1} begins {line[:40]!r}")
                        heads.append([field.decode() for field in fields[:count]])
                        places.append(place)
                    place += len(line)
        except ValueError as error:
            raise BenchError(f"{self._path} has not the layout {self.layout}: {error}") from error
        if not heads:
            raise BenchError(f"{self._path} is empty")
        return heads, places

    def _vector(self, place: int) -> np.ndarray:
        """The values of the line at `place`: [D], or [boxes, D] of a tsv. Raises ValueError."""
        with self._path.open("rb") as file:
            file.seek(place)
            line = file.readline().rstrip(b"\r\n")
        if self.layout == "csv":
            return np.array(line.split(b",")[1:], dtype=np.float32)
        fields = line.split(b"\t")
        if len(fields) != 6:
            raise ValueError(f"a line has {len(fields)} fields, not 6")
        try:
            values = np.frombuffer(base64.b64decode(fields[5], validate=True), np.float32)
        except binascii.Error as error:
            raise ValueError(f"features of {fields[0].decode()} are no base64: {error}") from error
        return values.reshape(int(fields[3]), -1)

    def shape(self, number: int) -> tuple[int, ...]:
        frames = len(self._lines[str(self.names[number])])
        return (frames, self._boxes, self._width) if self.layout == "tsv" else (frames, self._width)

    def read(self, number: int) -> tuple[np.ndarray, int | None]:
        found = [self._vector(place) for _, place, _ in self._lines[str(self.names[number])]]
        if self.layout == "tsv":  # frames with fewer boxes have zeros after them
            found = [np.pad(rows, ((0, self._boxes - len(rows)), (0, 0))) for rows in found]
        if len({rows.shape for rows in found}) > 1:
            raise ValueError("its lines are of different lengths")
        return np.stack(found), len(found)

    def close(self) -> None:
        """Nothing stays open."""


def layout_of(path: Path) -> str | None:
    """`csv` or `tsv` where the first line of a file looks like one, else None."""
    with path.open("rb") as file:
        start = file.read(LONGEST)
    line = start.split(b"\n")[0]
    fields = line.split(b"\t")
    if len(fields) >= 5 and fields[3].isdigit():
        return "tsv"
    try:
        return "csv" if [float(value) for value in line.split(b",")[1:-1]] else None
    except ValueError:
        return None
