"""Feature files as they are found in the wild, behind one small reader: clips by number, each with the name it bears.

| layout | what lies in the file |
|---|---|
| `per_clip` | HDF5, one dataset per clip, named by the clip |
| `matrix` | HDF5, one array [N, ...] and beside it a list of N ids |
| `rows` | HDF5, one array [N, ...] without ids: row = clip by ascending id |
| `folder` | one `.npy`, `.npz`, `.pt` or HDF5 file per clip, named by the clip |
| `pt` | a dictionary of tensors by torch.save: clip -> tensor, or one tensor [N, ...] and beside it a list of N ids |
| `csv` | text, a line for every frame: its name, then numbers (S2VT's authors) |
| `tsv` | text, a line for every frame, its boxes in base64 (bottom-up attention's authors) |

`auto` tells them apart by the arrays' names, shapes and types, and says what it saw.
"""

from __future__ import annotations

import base64
import binascii
import math
import pickle  # nosec B403  # for the names of its errors
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import hdf5plugin  # noqa: F401  (features are often stored with its filters)
import numpy as np

from bench import BenchError
from bench.disk.arrays import array_shape, read_array
from bench.disk.limits import DIGITS, LONGEST_LINE, check_dataset, check_heaps, check_name, check_size
from bench.errors import named, sizes

HDF5_BEGINS, NPY_BEGINS = b"\x89HDF\r\n\x1a\n", b"\x93NUMPY\x01\x00"  # how files begin
LAYOUTS = ("auto", "per_clip", "matrix", "rows", "folder", "pt", "csv", "tsv")
HDF5 = (".h5", ".hdf5")
TENSORS = (".pt", ".pth")
PICKLES = (".pkl", ".pickle", ".p")
SUFFIXES = (".npy", ".npz", *HDF5, *TENSORS)  # of files in a folder
FEATURE_NAMES = ("feats", "features", "feat", "data", "feature")
ID_NAMES = ("clip", "clips", "ids", "id", "vid", "vids", "video", "videos", "video_id", "video_ids", "names")
LENGTH_NAMES = ("lens", "lengths", "len", "length", "num_frames")
PART = 256  # names that are read at once
CHUNK_MEMORY = 64 << 20  # a chunk of many clips is unpacked once, not once per clip


class Source(Protocol):
    """Clips by number 0..N-1; `names[i]` is what the source calls clip i, None where it gives no names."""

    layout: str
    description: str
    names: Sequence[str | None]

    def shape(self, number: int) -> tuple[int, ...]:
        """Shape of one clip, read without its values where the format allows."""

    def read(self, number: int) -> tuple[np.ndarray, int | None]:
        """Values of one clip, and its true length on axis 0 where the source tells it. Raises OSError, ValueError."""

    def close(self) -> None: ...


class PerClip:
    """HDF5 with one dataset per clip."""

    layout = "per_clip"

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._file = file
        self.names: Sequence[str | None] = list(_arrays(file))
        what = f", the first {_told(file[self.names[0]])}" if self.names else ""
        self.description = f"{path.name}: one dataset per clip, {len(self.names)} clips{what}"

    def shape(self, number: int) -> tuple[int, ...]:
        array = self._file[self.names[number]]
        if array.shape is None:
            raise ValueError("it is empty")
        return tuple(array.shape)

    def read(self, number: int) -> tuple[np.ndarray, int | None]:
        array = self._file[self.names[number]]
        check_dataset(array)
        return array[()], None

    def close(self) -> None:
        self._file.close()


class Matrix:
    """HDF5 with one array of all clips; with a list of ids (`matrix`) or without (`rows`)."""

    def __init__(self, path: Path, file: h5py.File, array: str, id_array: str | None) -> None:
        self._file, self._data = file, file[array]
        check_dataset(self._data, rows=1)
        n = len(self._data)
        self.layout = "rows" if id_array is None else "matrix"
        self.names: Sequence[str | None] = [None] * n if id_array is None else _texts(file[id_array])
        arrays = {name: item for name, item in _arrays(file).items() if item.dtype.kind in "fiu"}
        lengths = next((name for name in LENGTH_NAMES if name in arrays and arrays[name].shape == (n,)), None)
        self._lengths = None
        remark = ""
        if lengths is not None and self._data.ndim > 2:
            check_dataset(file[lengths])
            self._lengths = np.nan_to_num(file[lengths][...], nan=0, posinf=0, neginf=0)  # no length, which is refused
            remark = f", true lengths in {lengths}"
        elif lengths is not None:
            remark = f", {lengths} not used (no time axis)"
        whose = f"ids in {id_array}" if id_array else "no ids, rows taken by ascending clip id"
        seen = f"{array} {self._data.dtype} {list(self._data.shape)}"
        self.description = f"{path.name}: one array {seen}, {whose}{remark}"

    def shape(self, number: int) -> tuple[int, ...]:
        return tuple(self._data.shape[1:])

    def read(self, number: int) -> tuple[np.ndarray, int | None]:
        return self._data[number], None if self._lengths is None else int(self._lengths[number])

    def close(self) -> None:
        self._file.close()


class Folder:
    """A folder, at any depth, of `.npy` files, or of `.npz`, `.pt` or HDF5 files with one array each."""

    layout = "folder"

    def __init__(self, path: Path) -> None:
        self._files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and not file.is_fifo())
        self.names: Sequence[str | None] = [file.stem for file in self._files]
        kinds = sorted({file.suffix for file in self._files})
        self.description = f"{path.name}: folder of {len(self._files)} {' and '.join(kinds)} files"

    def shape(self, number: int) -> tuple[int, ...]:
        file = self._files[number]
        if file.suffix in TENSORS:
            return _only_tensor(file).shape
        if file.suffix not in HDF5:
            return array_shape(file, _named_array)
        with _only_array(file) as array:
            return tuple(array.shape)

    def read(self, number: int) -> tuple[np.ndarray, int | None]:
        file = self._files[number]
        if file.suffix in TENSORS:
            return _only_tensor(file), None
        if file.suffix not in HDF5:
            return read_array(file, _named_array), None
        with _only_array(file) as array:
            return np.asarray(array[()]), None

    def close(self) -> None:
        """Nothing stays open."""


def _named_array(names: list[str]) -> str:
    """Which of the arrays of a file holds the features."""
    name = next((name for name in FEATURE_NAMES if name in names), names[0] if len(names) == 1 else None)
    if name is None:
        raise ValueError(f"arrays {named(names) or 'none'}, none of them named {', '.join(FEATURE_NAMES)}")
    return name


@contextmanager
def _only_array(path: Path) -> Iterator[h5py.Dataset]:
    with h5py.File(path, "r", locking=False) as file:
        arrays = _arrays(file)
        array = arrays[_named_array(list(arrays))]
        check_dataset(array)
        yield array


def _arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """The arrays at the top of a file; a link into another file is none of its own."""
    own = (name for name in file if not isinstance(file.get(name, getlink=True), h5py.ExternalLink))
    return {name: item for name in own if isinstance(item := file.get(name), h5py.Dataset)}


def _told(item: h5py.Dataset) -> str:
    """An array in words: its type and shape."""
    return f"{item.dtype} {'empty' if item.shape is None else list(item.shape)}"


class Tensors:
    """A dictionary of tensors that torch.save wrote. Only tensors are read of it, never code."""

    layout = "pt"

    def __init__(self, path: Path) -> None:
        found = _load_tensors(path)
        if not isinstance(found, Mapping) or not found:
            raise BenchError(
                f"{path} holds {_kind(found)}, and not a dictionary of tensors: save torch.save({{clip: tensor}})"
            )
        array = next((name for name in FEATURE_NAMES if _is_tensor(found.get(name))), None)
        ids = next((name for name in ID_NAMES if isinstance(found.get(name), (list, tuple))), None)
        odd = [f"{name} {_kind(value)}" for name, value in found.items() if not _is_tensor(value)]
        if array is not None and ids is not None and found[array].shape[:1] == (len(found[ids]),):
            self._values: Any = found[array]
            self.names: Sequence[str | None] = [str(name) for name in found[ids]]
            what = f"one tensor {array} {list(self._values.shape)}, ids in {ids}"
        elif not odd:
            self.names, self._values = [str(name) for name in found], list(found.values())
            what = f"one tensor per clip, {len(found)} clips, the first {list(self._values[0].shape)}"
        else:
            raise BenchError(
                f"{path} holds besides tensors {named(odd)}: save a dictionary of one tensor per clip, or one tensor under "
                f"features and the list of its ids under ids"
            )
        self.description = f"{path.name}: {what}"

    def shape(self, number: int) -> tuple[int, ...]:
        return tuple(self._values[number].shape)

    def read(self, number: int) -> tuple[np.ndarray, int | None]:
        return _array(self._values[number]), None

    def close(self) -> None:
        """Nothing stays open."""


def _load_tensors(path: Path) -> Any:
    """What torch.save wrote, of tensors, numbers and texts; nothing else is made, and no code runs. Raises BenchError."""
    import torch  # seconds, which only this layout needs

    try:
        return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        wants = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise BenchError(
            f"{path} holds more than tensors{f', {wants[1]} among it' if wants else ''}, and opening that can run code, so it "
            f"was not opened: if you trust its author, load it yourself and save the tensors alone, "
            f"torch.save({{clip: tensor}}, FILE)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise BenchError(f"{path} is damaged or no file of torch.save: copy or download it again") from error


def _only_tensor(path: Path) -> np.ndarray:
    try:
        found = _load_tensors(path)
    except BenchError as error:
        raise ValueError(str(error)) from error
    if isinstance(found, Mapping):
        names = [name for name in FEATURE_NAMES if name in found] or list(found)
        found = found[names[0]] if names and (names[0] in FEATURE_NAMES or len(names) == 1) else found
    if not _is_tensor(found):
        raise ValueError(f"{_kind(found)}, and not one tensor")
    return _array(found)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach")


def _array(tensor: Any) -> np.ndarray:
    """The values of a tensor. Raises ValueError for one that holds them otherwise, or none at all."""
    plain = tensor.detach()
    try:
        return np.asarray((plain.float() if plain.is_floating_point() else plain).numpy())
    except (RuntimeError, TypeError):  # sparse, without values (meta), quantized
        raise ValueError(f"a tensor of {plain.layout} on {plain.device}: save it dense and on the processor") from None


def _kind(value: Any) -> str:
    empty = isinstance(value, (Mapping, list, tuple)) and not value
    return f"an empty {type(value).__name__}" if empty else f"a {type(value).__name__}"


def _refuse_pickle(path: Path) -> None:
    """Raise BenchError for a pickle: opening it would run whatever its author put there."""
    with path.open("rb") as file:
        start = file.read(2)
    if path.suffix in PICKLES or (start[:1] == b"\x80" and path.suffix not in TENSORS):
        raise BenchError(
            f"{path} is a pickle, which can run any code when it is opened, so bench opens none: if you trust its author, turn "
            f"it into tensors yourself, import pickle, torch; found = pickle.load(open({path.name!r}, 'rb')); "
            f"torch.save({{str(k): torch.as_tensor(v) for k, v in found.items()}}, '{path.stem}.pt'), then import that"
        )


def open_source(path: Path, layout: str, id_array: str | None, known: Callable[[Sequence[str]], int]) -> Source:
    """Open one source.

    `id_array` names the list of ids where the file has several; without it, the list is taken of which the corpus
    knows the most: `known(ids)` counts them. Raises BenchError where the file is absent, damaged, or of no such layout.
    """
    if layout not in LAYOUTS:
        raise BenchError(f"{path}: layout is {layout!r}, but must be one of {', '.join(LAYOUTS)}")
    if path.is_dir():
        if layout not in ("auto", "folder"):
            raise BenchError(f"{path} is a folder, not an HDF5 file as layout {layout} needs: say layout: folder")
        folder = Folder(path)
        if not folder.names:
            raise BenchError(
                f"{path} holds no file {' or '.join(SUFFIXES)}: name the folder of the features in the definition"
            )
        return folder
    if not path.is_file():
        raise BenchError(f"there is no feature file {path}")
    if layout == "folder":
        raise BenchError(f"{path} is a file, not a folder of files {', '.join(SUFFIXES)}: say layout: auto")
    _refuse_pickle(path)
    if layout == "pt" or (layout == "auto" and path.suffix in TENSORS):
        return Tensors(path)
    text = layout if layout in ("csv", "tsv") else layout_of(path) if layout == "auto" else None
    if text is not None:
        try:
            return Lines(path, text, known)
        except (OSError, ValueError) as error:
            raise BenchError(f"{path} has not the layout {text} ({error}): copy or download it again") from error
    try:
        file = h5py.File(path, "r", locking=False, rdcc_nbytes=CHUNK_MEMORY)
    except OSError as error:
        raise BenchError(_no_hdf5(path)) from error
    try:
        return _recognise(path, file, layout, id_array, known)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise BenchError(f"{path} is damaged ({error}): copy or download it again") from error


def _no_hdf5(path: Path) -> str:
    with path.open("rb") as file:
        begins = file.read(len(HDF5_BEGINS))
    if begins == HDF5_BEGINS:
        return f"{path} is a truncated or damaged HDF5 file: copy or download it again"
    kind = (
        "an archive (.npz or .zip)"
        if begins[:2] == b"PK"
        else "one array of numpy"
        if begins == NPY_BEGINS
        else "no HDF5 file"
    )
    return (
        f"{path} is {kind}: features of many clips are read from HDF5, .pt, .csv or .tsv files, or from a folder with a "
        f"file {' or '.join(SUFFIXES)} for each clip"
    )


def _recognise(
    path: Path, file: h5py.File, layout: str, id_array: str | None, known: Callable[[Sequence[str]], int]
) -> Source:
    items = _arrays(file)
    array = _feature_array(items)
    lists = [] if array is None else _id_lists(items, len(items[array]))
    if id_array is not None and id_array not in lists:
        raise _unknown(path, items, f"has no list of ids named {id_array!r} as long as its features")
    if array is not None and lists and layout in ("auto", "matrix"):
        chosen = id_array or max(lists, key=lambda name: known(_texts(items[name])))
        return Matrix(path, file, array, chosen)
    others = items.keys() - {array, *LENGTH_NAMES}
    if array is not None and (layout == "rows" or (layout == "auto" and not others and array in FEATURE_NAMES)):
        return Matrix(path, file, array, None)
    numbers = all(item.dtype.kind in "fu" or item.ndim > 1 for item in items.values())
    if items and (layout == "per_clip" or (layout == "auto" and numbers and len(items) == len(file))):
        return PerClip(path, file)
    raise _unknown(path, items, "has none of the layouts known" if layout == "auto" else f"has not the layout {layout}")


def _feature_array(items: dict[str, h5py.Dataset]) -> str | None:
    """The one array of all clips: by its name, else the only one that has two axes or more."""
    wide = [name for name, item in items.items() if item.ndim >= 2 and item.dtype.kind in "fiu"]
    named = [name for name in FEATURE_NAMES if name in wide]
    if named:
        return named[0]
    return wide[0] if len(wide) == 1 else None


def _id_lists(items: dict[str, h5py.Dataset], n: int) -> list[str]:
    """Arrays of n texts, or of n whole numbers under a name of ids."""
    return [
        name
        for name, item in items.items()
        if item.shape == (n,) and (item.dtype.kind in "SO" or (item.dtype.kind in "iu" and name.lower() in ID_NAMES))
    ]


def _texts(item: h5py.Dataset) -> list[str]:
    """The names in a list of ids; in parts, since texts of any length can be told to lie at one place."""
    check_dataset(item, rows=PART)
    check_heaps(item)
    found: list[str] = []
    for start in range(0, len(item), PART):
        part = item[start : start + PART].tolist()
        found += [check_name(value.decode() if isinstance(value, bytes) else str(value)) for value in part]
    return found


def _unknown(path: Path, items: dict[str, h5py.Dataset], what: str) -> BenchError:
    seen = [f"{name} {_told(item)}" for name, item in items.items()]
    holds = named(seen, 6) or "no arrays at its top level"
    return BenchError(f"{path} {what}; it holds {holds}; layout is one of {', '.join(LAYOUTS)}")


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
                while line := file.readline(LONGEST_LINE + 1):
                    if len(line) > LONGEST_LINE:
                        raise ValueError(f"line {len(heads) + 1} is longer than {LONGEST_LINE:,} bytes")
                    if line.strip():
                        fields = line[:LONGEST].split(mark, count)
                        if len(fields) <= count or (self.layout == "tsv" and not fields[3].isdigit()):
                            raise ValueError(f"line {len(heads) + 1} begins {line[:40]!r}")
                        if self.layout == "tsv":
                            _check_boxes(fields[3], len(line))
                        heads.append([check_name(field.decode()) for field in fields[:count]])
                        places.append(place)
                    place += len(line)
        except ValueError as error:
            raise BenchError(f"{self._path} has not the layout {self.layout}: {error}") from error
        if not heads:
            raise BenchError(f"{self._path} is empty")
        return heads, places

    def _check_size(self, shape: Sequence[int]) -> None:
        check_size(4 * math.prod(shape), self._path.stat().st_size, f"a clip of {sizes(shape)}")

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
        self._check_size(self.shape(number))
        found = [self._vector(place) for _, place, _ in self._lines[str(self.names[number])]]
        if any(rows.shape[-1] != self._width for rows in found):
            raise ValueError("its lines are of different lengths")
        if self.layout == "tsv":  # frames with fewer boxes have zeros after them
            found = [np.pad(rows, ((0, self._boxes - len(rows)), (0, 0))) for rows in found]
        return np.stack(found), len(found)

    def close(self) -> None:
        """Nothing stays open."""


def _check_boxes(count: bytes, line: int) -> None:
    """Refuse a number of boxes that a line of so many bytes cannot hold."""
    if len(count) > DIGITS or int(count) > line:
        raise ValueError(f"a line of {line:,} bytes declares {count[:DIGITS].decode()} boxes")


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
