"""The feature cache: one HDF5 file per stream, one compressed and checksummed chunk per clip.

Zstd without shuffling was the best trade of size and speed on ReLU-sparse features (2.2 times smaller, read at 870
MB/s). Fletcher-32 catches a flipped bit at every read; the SHA-256 of each clip also catches whole rows gone astray.

The file is written aside as `<stream>.h5.tmp`, where no reader looks, and renamed when every clip is in it. A writer
that was killed leaves the file aside behind; the next one goes on from it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from bench import BenchError
from bench.disk.limits import check_dataset
from bench.disk.whole import sync_folder
from bench.errors import named
from bench.features.contents import (
    ARRAYS,
    DTYPES,
    LEFT_OUT,
    WRITTEN,
    Contents,
    clip_digest,
    describe,
    last_byte,
    recorded_end,
    unfit,
)
from bench.features.sidecar import (
    SCHEMA,
    canonical,
    command,
    fingerprint,
    making,
    read_sidecar,
    remake,
    sidecar_path,
    write_sidecar,
)
from bench.features.unfinished import lock, reserve, unwritable

ROWS_PER_CHUNK = 1024  # of ids, digests, lengths and flags: small enough that a flush rewrites little
SLACK = 1 << 20  # bytes claimed for HDF5's own tables; they grow by far less between two flushes
HEADER_LIMIT = 60_000  # an HDF5 attribute holds 64 kB


class CacheWriter:
    """Writes one cache, clip by clip, in any order; used as a context manager.

    `path` is the final `.h5` path; `shape` is one clip's shape with the time axis padded; `ids` are all clips that the
    cache will hold. `attributes` may be nested and must be JSON-able: `encoder` says what made the features (weights
    digest, arguments, preprocessing), `source` where they were read from; all but `source` enter the fingerprint. A stream
    whose features are known before they are made, because a generator makes them, is `named` by the fingerprint that all its
    clips have or would have: the cache has that one whichever of the clips it holds.

    `done(clip)` and `missing` tell which clips an interrupted writer has left in the file aside; `leave_out` finishes the
    cache without some. `verb` is the command that its sentences name. Raises BenchError when another process writes the
    same cache, when the disk is full or not writable, when values do not fit, and at the end when clips are missing.
    """

    def __init__(
        self,
        path: Path | str,
        stream: str,
        shape: Sequence[int],
        timed: bool,
        dtype: str,
        ids: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
        *,
        named: str | None = None,
        flush_every: int = 16,
        verb: str = "import",
    ) -> None:
        self.path = Path(path)
        self._verb, self._named = verb, named
        self.aside = self.path.with_name(self.path.name + ".tmp")
        self.stream, self.shape, self.timed, self.dtype = stream, tuple(int(n) for n in shape), bool(timed), str(dtype)
        self.ids = tuple(ids)
        self.attributes = dict(attributes or {})
        self._flush_every = flush_every
        self._rows = {clip: row for row, clip in enumerate(self.ids)}
        self._pending: list[int] = []
        self._claimed = 0  # clips for which disk space is claimed
        self._file: h5py.File | None = None
        self._handle = -1  # HDF5's descriptor of it
        self._arrays: dict[str, h5py.Dataset] = {}
        self._validate()
        declaration = {"schema": SCHEMA, "stream": stream, "shape": self.shape, "timed": self.timed}
        self._header = canonical({**declaration, "dtype": self.dtype, "attributes": self.attributes}).encode()
        if len(self._header) > HEADER_LIMIT:
            raise BenchError(f"{self.path}: the description of the stream is longer than {HEADER_LIMIT} bytes")

    def _validate(self) -> None:
        if self.dtype not in DTYPES:
            raise BenchError(f"{self.path}: dtype is {self.dtype!r}, but must be one of {', '.join(DTYPES)}")
        if not self.shape or min(self.shape) < 1 or not self.ids:
            raise BenchError(f"{self.path}: a cache needs clips and a shape of positive numbers, not {self.shape}")
        twice = sorted(clip for clip, count in Counter(self.ids).items() if count > 1)
        if twice:
            raise BenchError(f"{self.path}: {len(twice)} clip ids occur twice ({named(twice)}); keep one of each")

    def __enter__(self) -> CacheWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = lock(self.aside, self._verb)
        except OSError as error:
            raise unwritable(self.aside, error, self._verb) from error
        try:
            if not self._resume():
                self._create()
        except (OSError, RuntimeError) as error:
            told = self._unwritable(error)
            self._close()
            raise told from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return  # discarded
        try:
            if kind is None:
                self._finish()
            else:
                with suppress(BenchError):  # the first error is the one to show
                    self._flush()
        finally:
            self._close()

    def discard(self) -> None:
        """Give up: remove the file aside, so that the next writer starts afresh."""
        self.aside.unlink(missing_ok=True)
        self._close()

    def _create(self) -> None:
        n = len(self.ids)
        ids = np.char.encode(np.array(self.ids, dtype=np.str_), "utf-8")
        os.ftruncate(self._descriptor, 0)
        reserve(self._descriptor, 0, n * (ids.itemsize + 64) + SLACK)
        # Our own lock guards the file; HDF5's would refuse the second descriptor of the same process.
        file = self._file = h5py.File(self.aside, "w", locking=False)
        self._handle = file.id.get_vfd_handle()
        file.attrs["header"] = np.bytes_(self._header)
        rows = (min(n, ROWS_PER_CHUNK),)
        # Fixed-length ids: texts of variable length lie outside the chunks, where no checksum covers them.
        # An array stays open until what was written into it is on the disk: HDF5 tells nobody what fails where one is closed.
        made = self._arrays
        made["ids"] = file.create_dataset("ids", data=ids, chunks=rows, fletcher32=True)
        made["sha256"] = file.create_dataset("sha256", (n, 32), "u1", chunks=(*rows, 32), fletcher32=True)
        made["lengths"] = file.create_dataset("lengths", (n,), "<i4", chunks=rows, fletcher32=True)
        made["done"] = file.create_dataset("done", (n,), "u1", chunks=rows, fletcher32=True)
        stored = np.dtype(self.dtype).newbyteorder("<")
        zstd = hdf5plugin.Zstd(clevel=3)
        each = (1, *self.shape)
        made["features"] = file.create_dataset(
            "features", (n, *self.shape), stored, chunks=each, fletcher32=True, **zstd
        )
        file.flush()
        self._contents = Contents.of(file)

    def _resume(self) -> bool:
        """Take over what a killed writer left: only clips whose values still have their digest count as done."""
        if os.fstat(self._descriptor).st_size == 0:
            return False
        try:
            self._file = h5py.File(self.aside, "r+", locking=False)
            found = self._contents = Contents.of(self._file)
            if found.header_text.encode() != self._header or found.ids != self.ids:
                raise ValueError("another cache was being written")
            self._handle = self._file.id.get_vfd_handle()
            self._arrays = {name: self._file[name] for name in ARRAYS}
            if max(map(last_byte, self._arrays.values())) > recorded_end(self._descriptor):
                raise ValueError("a flush that was cut short names chunks in space that counts as free")
            for row in np.flatnonzero(found.done):
                if clip_digest(found.data[row], found.lengths[row]) != found.digests[row].tobytes().hex():
                    found.done[row] = 0
        except (OSError, RuntimeError, KeyError, ValueError):  # killed within a flush, or made with other settings
            self._close_file()
            return False
        return True

    def _close_file(self) -> None:
        file, self._file = self._file, None
        self._arrays.clear()
        if file is not None:
            with suppress(OSError, RuntimeError):  # after a failed write HDF5 fails once more here
                file.close()

    def _unwritable(self, error: Exception) -> BenchError:
        """The sentence for a failed write, after which the file is only closed: HDF5, which cannot give up what it holds
        and would crash the process when the disk refuses it again, gets memory in the disk's place."""
        if self._file is not None and hasattr(os, "memfd_create"):  # absent on macOS
            with suppress(OSError):
                if os.path.samestat(
                    os.fstat(self._handle), os.fstat(self._descriptor)
                ):  # not closed, and not another's
                    memory = os.memfd_create("unwritten")
                    os.dup2(memory, self._handle)
                    os.close(memory)
        return unwritable(self.aside, error, self._verb)

    def _close(self) -> None:
        self._close_file()
        os.close(self._descriptor)

    def done(self, clip: str) -> bool:
        """Whether the clip's values are in the file already."""
        return bool(self._contents.done[self._rows[clip]])

    @property
    def missing(self) -> tuple[str, ...]:
        """The clips that are still to be written, in the order of `ids`."""
        written = set(self._pending)
        done = self._contents.done
        return tuple(clip for row, clip in enumerate(self.ids) if not done[row] and row not in written)

    def leave_out(self, clips: Iterable[str]) -> None:
        """Finish without these clips: a reader does not find them. A later writer has them among its missing ones."""
        assert self._file is not None
        self._flush()
        for clip in clips:
            self._contents.done[self._rows[clip]] = LEFT_OUT
        try:
            self._arrays["done"][...] = self._contents.done
        except (OSError, RuntimeError) as error:
            raise self._unwritable(error) from error

    def write(self, clip: str, values: np.ndarray) -> None:
        """Store one clip: of the declared shape, or shorter on axis 0 if timed, then zero-padded, its length kept."""
        if clip not in self._rows:
            raise BenchError(f"{self.path}: clip {clip} was not among the {len(self.ids)} ids named beforehand")
        values = np.asarray(values)
        fits = values.shape == self.shape
        if self.timed and values.ndim == len(self.shape):
            fits = values.shape[1:] == self.shape[1:] and 1 <= values.shape[0] <= self.shape[0]
        if not fits:
            shorter = " or shorter on axis 0" if self.timed else ""
            raise BenchError(f"{self.path}: clip {clip} has shape {values.shape}, not {self.shape}{shorter}")
        reason = unfit(values, self.dtype)
        if reason:
            raise BenchError(f"{self.path}: clip {clip} cannot be stored, {reason}")
        row, length = self._rows[clip], len(values)
        padded = np.zeros(self.shape, self._contents.data.dtype)
        padded[:length] = values
        try:
            self._claim(padded.nbytes)
            self._contents.data[row] = padded
        except (OSError, RuntimeError) as error:
            raise self._unwritable(error) from error
        self._contents.lengths[row] = length
        self._contents.digests[row] = np.frombuffer(bytes.fromhex(clip_digest(padded, length)), np.uint8)
        self._pending.append(row)
        if len(self._pending) >= self._flush_every:
            self._flush()

    def _claim(self, clip_bytes: int) -> None:
        """Claim the disk space of the next clips before HDF5 needs it.

        HDF5 that runs out of space while flushing leaves an unreadable file and crashes when it is closed; a claim
        that fails beforehand does no harm.
        """
        if self._claimed == 0:
            assert self._file is not None
            size = self._flush_every * (clip_bytes + clip_bytes // 64 + 4096)  # what does not compress grows a little
            reserve(self._descriptor, self._file.id.get_filesize(), size + SLACK)
            self._claimed = self._flush_every
        self._claimed -= 1

    def _flush(self) -> None:
        """Values first, flags second: no flag on disk stands for values that are not there."""
        assert self._file is not None
        if not self._pending:
            return
        found, span = self._contents, slice(min(self._pending), max(self._pending) + 1)
        try:
            self._file.flush()
            found.done[self._pending] = 1
            for name, array in (("lengths", found.lengths), ("sha256", found.digests), ("done", found.done)):
                self._arrays[name][span] = array[span]
            self._file.flush()
        except (OSError, RuntimeError) as error:
            raise self._unwritable(error) from error
        self._pending.clear()
        self._claimed = 0

    def _finish(self) -> None:
        """The last flush, the fingerprint, the name, and then the sidecar."""
        assert self._file is not None
        self._flush()
        if self.missing:
            raise BenchError(
                f"{self.path}: {len(self.missing)} of {len(self.ids)} clips were not written "
                f"({named(self.missing)}); {command(self._verb, self.path)} goes on with them"
            )
        content = fingerprint(self.stream, self.shape, self.timed, self.dtype, self.attributes, self._contents.pairs())
        mark = self._named or content
        try:
            reserve(self._descriptor, self._file.id.get_filesize(), SLACK)
            if content != mark:
                self._file.attrs["content"] = np.bytes_(content.encode())
            self._file.attrs["fingerprint"] = np.bytes_(mark.encode())
            self._file.flush()
            end = self._file.id.get_filesize()
            self._file.close()
            self._file = None
            self._arrays.clear()
            os.ftruncate(self._descriptor, end)  # give back what was claimed and not used
            os.fsync(self._descriptor)
            # An old sidecar must not describe the new file, not even for a moment.
            sidecar_path(self.path).unlink(missing_ok=True)
            self.aside.replace(self.path)
            write_sidecar(self.path, describe(self.path))
            sync_folder(self.path.parent)
        except (OSError, RuntimeError) as error:
            raise self._unwritable(error) from error


@dataclass
class _Opened:
    process: int
    file: h5py.File
    contents: Contents
    rows: dict[str, int]


class Cache:
    """Reads one cache. The file is opened at first use and once more in each forked or spawned process.

    Large caches are read clip by clip with `read`; small ones are taken into memory with `load`. Fancy indexing of
    HDF5 is never used: 64 clips took it 85 to 180 ms, a loop over them 1.5 to 66. Raises BenchError where the cache is
    absent, truncated or damaged, lacks a clip, disagrees with its sidecar, or was replaced while in use.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._opened: _Opened | None = None
        self._mark: str | None = None

    def _open(self) -> _Opened:
        if self._opened is not None and self._opened.process == os.getpid():
            return self._opened
        if not self.path.is_file():
            raise BenchError(f"there is no feature cache at {self.path}: {command('import', self.path)} makes it")
        try:
            # A finished file never changes, so that no lock is needed, also on read-only file systems.
            file = h5py.File(self.path, "r", locking=False)
            contents = Contents.of(file)
            check_dataset(contents.data, rows=1)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise BenchError(f"{self.path} is truncated, damaged or no cache ({error}): {remake(self.path)}") from error
        mark = contents.fingerprint
        if mark is None or not contents.done.all():
            raise BenchError(f"{self.path} is not finished: {remake(self.path)}")
        if self._mark not in (None, mark):
            raise BenchError(f"{self.path} was replaced while it was in use: start the command again")
        if sidecar_path(self.path).is_file() and read_sidecar(self.path)["fingerprint"] != mark:
            raise BenchError(f"{self.path} and its sidecar have different fingerprints: {remake(self.path)}")
        self._mark = mark
        rows = {clip: row for row, clip in enumerate(contents.ids) if contents.done[row] == WRITTEN}
        self._opened = _Opened(os.getpid(), file, contents, rows)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None, "_mark": self._mark}

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file of this process; the next use opens it again."""
        if self._opened is not None and self._opened.process == os.getpid():
            self._opened.file.close()
        self._opened = None

    @property
    def ids(self) -> tuple[str, ...]:
        """All clips, in the order of the file."""
        return tuple(self._open().rows)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Clips that the cache was finished without."""
        contents = self._open().contents
        return tuple(clip for clip, done in zip(contents.ids, contents.done, strict=True) if done == LEFT_OUT)

    @property
    def stream(self) -> str:
        return str(self._open().contents.header["stream"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one clip, the time axis padded."""
        return tuple(self._open().contents.header["shape"])

    @property
    def timed(self) -> bool:
        """Whether axis 0 of a clip is time."""
        return bool(self._open().contents.header["timed"])

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self._open().contents.header["dtype"])

    @property
    def fingerprint(self) -> str:
        return str(self._open().contents.fingerprint)

    @property
    def content(self) -> str:
        """What a fingerprint would be of the clips that are here: another one where the stream has more of them."""
        return str(self._open().contents.content)

    @property
    def encoder(self) -> str:
        """Name of the encoder that made the features, or for which the pixels were prepared; empty if not known."""
        return str(self.made_by.get("name", ""))

    @property
    def made_by(self) -> dict[str, Any]:
        """All that is recorded of the making of its features, `name` first of all; empty if nothing."""
        header = self._open().contents.header
        return making({**header["attributes"], "dtype": header["dtype"]})

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, clip: object) -> bool:
        return clip in self._open().rows

    def read(self, clip: str) -> tuple[np.ndarray, int]:
        """One clip's values, `shape` in the stored type, zero beyond its true length; and that length."""
        opened = self._open()
        row = self._row(opened, clip)
        return self._values(opened, clip, row), int(opened.contents.lengths[row])

    def load(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Values [N, *shape] of the clips `ids` in the stored type, and their true lengths [N] int64."""
        opened = self._open()
        rows = [self._row(opened, clip) for clip in ids]
        values = np.empty((len(rows), *self.shape), self.dtype)
        for place, (clip, row) in enumerate(zip(ids, rows, strict=True)):
            values[place] = self._values(opened, clip, row)
        return values, opened.contents.lengths[rows].astype(np.int64)

    def _row(self, opened: _Opened, clip: str) -> int:
        if clip not in opened.rows:
            lack = f"clip {clip} is not among the {len(opened.rows)} clips of {self.path}"
            raise BenchError(f"{lack}: {command('check', self.path)} names all that are missing")
        return opened.rows[clip]

    def _values(self, opened: _Opened, clip: str, row: int) -> np.ndarray:
        try:
            return opened.contents.data[row]
        except (OSError, RuntimeError) as error:
            damage = f"{self.path} is damaged at clip {clip} ({error})"
            raise BenchError(f"{damage}: {command('check', self.path)} names all damaged clips") from error
