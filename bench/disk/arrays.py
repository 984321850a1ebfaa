"""Arrays of numbers in `.npy` and `.npz` files, of which nothing is believed before it is looked at: one changed byte, a header
that declares terabytes and a member that unpacks to them are a ValueError."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from bench.disk.limits import check_member, check_size

Choose = Callable[[list[str]], str]  # from the names in a `.npz`


def array_shape(path: Path, choose: Choose) -> tuple[int, ...]:
    """Shape of the array in a file, by its header alone. Raises OSError, ValueError."""
    with _sentences(path), _member(path, choose) as (file, size):
        return _header(file, size)[0]


def read_array(path: Path, choose: Choose) -> np.ndarray:
    """The array in a file. `choose` takes one of the names in a `.npz`. Raises OSError, ValueError."""
    with _sentences(path), _member(path, choose) as (file, size):
        start = file.tell()
        _header(file, size)
        file.seek(start)
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # to the end, where an archive's checksum is looked at
            raise ValueError("more follows its values")
        return array


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a `.npz` by name. Raises OSError, ValueError."""
    with _sentences(path), zipfile.ZipFile(path) as archive:
        names = _names(archive)
    return {name: read_array(path, partial(_only, name)) for name in names}


def _only(name: str, _: list[str]) -> str:
    return name


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    """Whatever numpy, zip, zlib and struct say of a damaged file, as a ValueError."""
    try:
        yield
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"no whole {path.suffix} file ({str(error) or type(error).__name__})") from error


@contextmanager
def _member(path: Path, choose: Choose) -> Iterator[tuple[IO[bytes], int]]:
    """The open array and its bytes: the file itself, or the chosen member of an archive."""
    if path.suffix != ".npz":
        with path.open("rb") as file:
            yield file, path.stat().st_size
        return
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{choose(_names(archive))}.npy")
        check_member(info)
        with archive.open(info) as member:
            yield member, info.file_size


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], Any]:
    """Shape and type of the array that begins here; its values must be the rest of the `size` bytes."""
    if not size:
        raise ValueError("the file is empty")
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    except (ValueError, MemoryError) as error:  # of a header that declares gigabytes for itself
        raise ValueError("no array of numbers, or a damaged one") from error
    if dtype.hasobject:
        raise ValueError("no array of numbers, but Python objects")
    there = size - file.tell()
    declared = math.prod(shape) * dtype.itemsize
    if declared != there or min(shape, default=0) < 0:
        check_size(declared, there, f"the header {list(shape)}")
        raise ValueError(f"the header declares {declared:,} bytes of values, and {there:,} follow")
    return shape, dtype
