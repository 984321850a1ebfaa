"""What lies in a cache file: the arrays, one clip's digest, and the types that can be stored.

| array | shape | |
|---|---|---|
| `features` | [N, *shape] | one chunk per clip, Zstd(3), Fletcher-32 |
| `ids` | [N] | UTF-8, fixed length |
| `lengths` | [N] int32 | true length on the time axis |
| `sha256` | [N, 32] uint8 | of length and values |
| `done` | [N] uint8 | 1 once the clip is written; 2 where the cache was finished without it |

The attribute `header` declares the stream as JSON; `fingerprint` is there once the file is finished. `content` is there
where the fingerprint is that of the whole stream, of which the file may hold a part: it tells what the file holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that reading needs)
import numpy as np

from bench.disk.limits import check_dataset, own_json
from bench.features.sidecar import sidecar_path, write_sidecar

DTYPES = ("float16", "float32", "uint8")
WRITTEN, LEFT_OUT = 1, 2
ARRAYS = ("features", "ids", "lengths", "sha256", "done")


def clip_digest(values: np.ndarray, length: int) -> str:
    """SHA-256 of one clip as it is stored: its true length (8 bytes) and its padded values, both little-endian."""
    digest = hashlib.sha256(int(length).to_bytes(8, "little"))
    digest.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def unfit(values: np.ndarray, dtype: str) -> str | None:
    """Why `values` cannot be stored as `dtype`, in a few words; None if they can."""
    if np.dtype(dtype).kind != "f":
        return None if np.can_cast(values.dtype, dtype) else f"values are {values.dtype}, not {dtype}"
    if values.dtype.kind not in "fiub":
        return f"values are {values.dtype}, not numbers"
    wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
    if wrong:
        return f"{wrong} of {values.size} values are NaN or infinite"
    largest = float(np.abs(values).max(initial=0))
    if largest > float(np.finfo(dtype).max):
        return f"a value of {largest:.4g} is too large for {dtype}, say dtype: float32"
    return None


def last_byte(array: h5py.Dataset) -> int:
    """Where in the file the last chunk of `array` ends, in bytes. Raises OSError where the table of chunks is damaged."""
    ends = [0]
    array.id.chunk_iter(lambda chunk: ends.append(chunk.byte_offset + chunk.size))
    return max(ends)


def recorded_end(descriptor: int) -> int:
    """Where a file that HDF5 made here ends by its superblock (version 0), in bytes: what lies beyond counts as free."""
    return int.from_bytes(os.pread(descriptor, 8, 40), "little")


@dataclass
class Contents:
    """All of a cache file but the values: read whole, since it is small."""

    header_text: str
    header: dict[str, Any]
    ids: tuple[str, ...]
    data: h5py.Dataset
    lengths: np.ndarray
    digests: np.ndarray
    done: np.ndarray
    fingerprint: str | None
    content: str | None

    @classmethod
    def of(cls, file: h5py.File) -> Contents:
        """Raises KeyError, ValueError or OSError where `file` is not a cache or is damaged."""
        arrays = {name: file[name] for name in ARRAYS}
        strange = [name for name, item in arrays.items() if not isinstance(item, h5py.Dataset)]
        if strange:  # a flipped bit can turn an array into something else
            raise ValueError(f"no array under {', '.join(strange)}")
        for name in ARRAYS[1:]:  # of the features only a clip is read at a time
            check_dataset(arrays[name])
        text = bytes(file.attrs["header"]).decode()
        finished = _text(file, "fingerprint")
        ids = tuple(np.char.decode(arrays["ids"][...], "utf-8").tolist())
        parts = arrays["lengths"][...], arrays["sha256"][...], arrays["done"][...]
        return cls(text, own_json(text), ids, arrays["features"], *parts, finished, _text(file, "content") or finished)

    def pairs(self) -> list[tuple[str, str]]:
        """(id, digest) of each clip that has values."""
        rows = np.flatnonzero(self.done == WRITTEN)
        return [(self.ids[row], self.digests[row].tobytes().hex()) for row in rows]


def _text(file: h5py.File, attribute: str) -> str | None:
    value = file.attrs.get(attribute)
    return None if value is None else bytes(value).decode()


def complete(path: Path) -> None:
    """Write the sidecar of a finished cache that has none: its writer was killed in between. A damaged one stays as it is."""
    if path.is_file() and not sidecar_path(path).exists():
        with contextlib.suppress(OSError, KeyError, ValueError):
            write_sidecar(path, describe(path))


def describe(path: Path | str) -> dict[str, Any]:
    """The sidecar's content as the finished cache at `path` has it. Raises OSError, KeyError or ValueError."""
    path = Path(path)
    with h5py.File(path, "r", locking=False) as file:
        found = Contents.of(file)
    if found.fingerprint is None:
        raise ValueError("the cache is not finished")
    header = {name: value for name, value in found.header.items() if name != "attributes"}
    attributes = {"source": {}, "encoder": {}, **found.header["attributes"]}
    counted = {
        "clips": int((found.done == WRITTEN).sum()),
        "fingerprint": found.fingerprint,
        "bytes": path.stat().st_size,
    }
    content = {"content": found.content} if found.content != found.fingerprint else {}
    return {**attributes, **header, **counted, **content}
