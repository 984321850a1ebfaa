"""From a folder of videos to a stream in the cache.

Clip by clip, and resumable: what is written stays written, and the next call goes on with the clips that are missing. A clip
that cannot be extracted is named with its reason; the others are written all the same, and the cache is finished once all are,
or without the failed ones where that was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from bench import BenchError
from bench.declare.dataset import Clip
from bench.errors import named
from bench.features.backends import need_av
from bench.features.cache import Cache, CacheWriter
from bench.features.contents import Contents, unfit
from bench.features.decoders import Decoders, Reader, Values, flow
from bench.features.device import choose_device
from bench.features.encoders import load_encoder, state_digest
from bench.features.extraction import PIXELS, Extraction, Work, differences
from bench.features.footage import Footage, find_footage
from bench.features.importers import up_to_date
from bench.features.processes import cores
from bench.features.regions import load_detector
from bench.features.sidecar import cache_path, canonical, read_sidecar
from bench.features.video import UnreadableVideoError
from bench.home import Home

# Frames at once. On a processor the maps of 28 frames are memory that the system clears anew for every layer: mobilenetv2_100
# took 1.7 s of processor time for 28 frames at once, 0.7 s for four at a time.
BATCH = {"cpu": 4, "cuda": 32}
LANES = 4  # most threads that encode; each holds a batch in the network


class Extractor:
    """The streams of one clip after another; the encoder is loaded once.

    `shapes` has (shape of a clip, whether its first axis is time, stored type) for each stream that comes out: the one asked
    for, and `boxes` beside `regions`. Raises BenchError where the encoder or its weights cannot be had.
    """

    def __init__(self, extraction: Extraction, batch: int | None = None, device: str = "auto") -> None:
        self.extraction = extraction
        self.reader: Reader = extraction.reader
        self.device = choose_device(device)
        self.batch = batch or BATCH.get(self.device.type, BATCH["cuda"])
        self.encoder = self._load()
        self.shapes = self._shapes()

    def streams(self, footage: Footage) -> dict[str, NDArray[Any]]:
        """All streams of one clip, as they are cached but for the rounding to the stored type.

        Raises UnreadableVideoError where the clip cannot be decoded.
        """
        return self.encode(self.reader(footage))

    def encode(self, values: Values) -> dict[str, NDArray[Any]]:
        """What decoding read of a clip -> its streams.

        A batch never holds frames of two clips: decoding one costs far more than larger batches would save, and so its values
        cannot depend on its neighbours.
        """
        stream, kind = self.extraction.stream, self.extraction.kind
        views = values if isinstance(values, list) else [values]
        if self.encoder is None:
            return {stream: views[0]}
        cuts = range(self.batch, len(views[0]), self.batch)
        parts = [self._through(*part) for part in zip(*(np.array_split(view, cuts) for view in views), strict=True)]
        if stream == "regions":
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        found = [part[stream] for part in parts]
        if kind.gives == "maps":
            mean_CYX = sum(part.sum(axis=0, dtype=np.float64) for part in found) / len(views[0])
            return {stream: mean_CYX.reshape(len(mean_CYX), -1).T.astype(np.float32)}
        rows = np.concatenate(found)
        return {stream: rows if kind.timed else rows.mean(axis=0, dtype=np.float64).astype(np.float32)}

    def _through(self, *views: NDArray[Any]) -> dict[str, NDArray[Any]]:
        assert self.encoder is not None
        with torch.inference_mode():
            found = self.encoder(*(torch.from_numpy(view).to(self.device) for view in views))
            made = found if isinstance(found, dict) else {self.extraction.stream: found}
            return {name: value.float().cpu().numpy() for name, value in made.items()}

    def _load(self) -> torch.nn.Module | None:
        own = self.extraction
        if own.stream == PIXELS:
            return None
        encoder: torch.nn.Module
        if own.stream == "regions":
            encoder = load_detector(own.encoder, own.weights, own.boxes, own.files)
        else:
            encoder = load_encoder(own.encoder, own.weights, own.files, own.kind.gives)
        try:
            return encoder.to(self.device).requires_grad_(False)
        except (RuntimeError, AssertionError) as error:  # a torch without CUDA, a device that is not there
            reason = str(error).strip().splitlines()[0]
            raise BenchError(f"device {self.device} cannot be used ({reason}): leave device= out") from error

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], bool, str]]:
        own = self.extraction
        count = 0 if own.sampling is None else own.sampling.frames
        scale, dtype = own.encoder.preprocessing, own.dtype
        if own.stream == PIXELS:
            assert scale.size is not None
            return {PIXELS: ((count, 3, *scale.size), True, "uint8")}
        if own.stream == "regions":
            sizes = {"regions": int(self.encoder.width), "boxes": 6}  # type: ignore[union-attr, arg-type]
            return {name: ((count, own.boxes, width), True, dtype) for name, width in sizes.items()}
        assert scale.size is not None
        window = (own.encoder.window,) if own.encoder.window > 1 else ()
        channels, kind = (1, np.float32) if own.sampling is None else (3, np.uint8)
        ((_, made),) = self.encode(np.zeros((1, *window, channels, *scale.size), kind)).items()
        timed = own.kind.timed
        return {own.stream: ((count, *made.shape[1:]) if timed else made.shape, timed, dtype)}

    def about(self) -> dict[str, Any]:
        """What made the streams: part of their fingerprint."""
        options = self.extraction.options()
        return options if self.encoder is None else {**options, "digest": state_digest(self.encoder)}


Elsewhere = Callable[[Mapping[str, Footage]], Iterator[tuple[str, Any]]]
"""Each clip with its streams, or with the UnreadableVideoError that says why there are none, as `flow` gives them."""


class _UnfinishedError(Exception):
    """Some clips could not be read: the file aside is kept, the cache gets no name yet."""


def extract_stream(
    extraction: Extraction,
    clips: Mapping[str, Clip],
    aliases: Mapping[str, str],
    home: Home,
    tell: Callable[[int, int], None] = lambda left, failed: None,
    work: Work | None = None,
    elsewhere: Elsewhere | None = None,
) -> tuple[Path, dict[str, str]]:
    """Fill the cache of `extraction` for all `clips`; returns its path, and for clips that could not be read the reason.

    `aliases` are other names of clips. A cache that is up to date is left as it is. `tell(left, failed)` is called after each
    clip. With `elsewhere` the streams are made there, and only written here. Raises BenchError where the folder is absent,
    where a cache was made otherwise and is not to be replaced, where the encoder cannot be had, and where the disk is full.
    """
    work = work or Work()
    if elsewhere is not None:
        work = replace(work, workers=0, device="cpu")  # here the encoder only says what comes out
    target = cache_path(home, extraction.dataset, extraction.stream)
    options = extraction.options()
    # Not the facts of the files: a video that was mended must not undo what is written of the others.
    folder = [{"path": str(extraction.videos)}] if extraction.videos.is_dir() else None
    request = json.loads(canonical({"options": options, "files": folder}))
    if up_to_date(target, request, list(clips)) or (work.skip and _only_left_out(target, request, clips)):
        return target, {}
    if folder is None:
        raise BenchError(
            f"there is no folder of videos at {extraction.videos}: name it with videos=FOLDER, or set BENCH_DATA"
        )
    if not work.replace:
        _refuse_another(target, request["options"])
    about = {"request": request, "told": True, "decoder": f"PyAV {need_av().__version__}"}
    footage, failures = find_footage(extraction.videos, clips, aliases)
    with _lanes(extraction, work) as lanes, Decoders(extraction.reader, _workers(work)) as decoders:
        extractor = Extractor(extraction, work.batch, work.device)
        with suppress(_UnfinishedError), ExitStack() as stack:
            writers = {
                name: stack.enter_context(writer)
                for name, writer in _writers(extraction, extractor, list(clips), about, home).items()
            }
            _take_over(writers, request)
            missing = [clip for clip in clips if any(not writer.done(clip) for writer in writers.values())]
            failures = {clip: reason for clip, reason in failures.items() if clip in missing}
            todo = {clip: footage[clip] for clip in missing if clip in footage}
            made = elsewhere(todo) if elsewhere is not None else flow(todo, decoders, extractor.encode, lanes)
            for number, (clip, found) in enumerate(made, start=1):
                reason = str(found) if isinstance(found, UnreadableVideoError) else _written(writers, clip, found)
                if reason:
                    failures[clip] = reason
                tell(len(todo) - number, len(failures))
            if failures and not (work.skip and len(failures) < len(clips)):
                raise _UnfinishedError
            for writer in writers.values():
                writer.leave_out(failures)
    return target, {clip: failures[clip] for clip in clips if clip in failures}


def _writers(
    extraction: Extraction, extractor: Extractor, clips: list[str], about: Mapping[str, Any], home: Home
) -> dict[str, CacheWriter]:
    """A writer for each stream that comes out."""
    attributes = {"encoder": extractor.about(), "source": about}
    return {
        name: CacheWriter(
            cache_path(home, extraction.dataset, name),
            name,
            shape,
            timed,
            dtype,
            clips,
            attributes,
            flush_every=1,  # each clip is flushed: its decoding costs far more
            verb="extract",
        )
        for name, (shape, timed, dtype) in extractor.shapes.items()
    }


def _written(writers: Mapping[str, CacheWriter], clip: str, found: Mapping[str, NDArray[Any]]) -> str | None:
    """Write a clip; why it cannot be stored, if it cannot."""
    for name, writer in writers.items():
        reason = unfit(found[name], writer.dtype)
        if reason:
            return f"cannot be stored, {reason}"
    for name, writer in writers.items():
        if not writer.done(clip):
            writer.write(clip, found[name])
    return None


def _workers(work: Work) -> int:
    return cores() if work.workers is None else work.workers


@contextmanager
def _lanes(extraction: Extraction, work: Work) -> Iterator[int]:
    """How many threads encode. Each has as many of torch's as are left: frames are shared badly between threads."""
    count = cores()
    lanes = lanes_of(extraction, _workers(work), choose_device(work.device))
    before = torch.get_num_threads()
    if lanes > 1:
        torch.set_num_threads(max(1, count // lanes))
    try:
        yield lanes
    finally:
        torch.set_num_threads(before)


def lanes_of(extraction: Extraction, workers: int, device: torch.device) -> int:
    """How many threads encode beside so many processes that decode."""
    alone = workers == 0 or extraction.stream == PIXELS or device.type != "cpu"
    return 1 if alone else min(LANES, cores())


def _only_left_out(target: Path, request: Mapping[str, Any], clips: Mapping[str, Clip]) -> bool:
    """Whether the cache holds all clips but those that it was finished without."""
    if not target.is_file():
        return False
    with Cache(target) as cache:
        lacking = [clip for clip in clips if clip not in cache]
        return set(lacking) <= set(cache.left_out) and up_to_date(
            target, dict(request), [c for c in clips if c in cache]
        )


def _take_over(writers: Mapping[str, CacheWriter], request: Mapping[str, Any]) -> None:
    """Copy from a finished cache of the same making what the new one lacks: the data set grew, or clips were left out."""
    for writer in writers.values():
        try:
            said = read_sidecar(writer.path)
        except BenchError:
            continue  # there is none
        made = json.loads(canonical(writer.attributes["encoder"]))
        if said["source"].get("request") != request or said["encoder"] != made:
            continue
        with Cache(writer.path) as cache:
            for clip in writer.missing:
                try:
                    values, length = cache.read(clip)
                except BenchError:
                    continue  # not in it, or damaged: it is extracted
                writer.write(clip, values[:length] if writer.timed else values)


def _refuse_another(target: Path, options: Mapping[str, Any]) -> None:
    """Raise BenchError where a cache of this name, finished or not, was made otherwise: hours of work may lie in it."""
    for path in (target, target.with_name(target.name + ".tmp")):
        before = _made_by(path)
        if before is None:
            continue
        if differ := differences(before, options):
            raise BenchError(
                f"{path} holds features that were made otherwise ({differ}): ask for the same, or say replace=true to make "
                f"them anew"
            )


def _made_by(path: Path) -> Mapping[str, Any] | None:
    """What made a cache, finished or not; None where there is none that can be read, and where no clip is in it."""
    if not path.is_file():
        return None
    try:
        with h5py.File(path, "r", locking=False) as file:
            found = Contents.of(file)
            made: Mapping[str, Any] = found.header["attributes"].get("encoder", {})
            return made if found.pairs() else None
    except (OSError, RuntimeError, KeyError, ValueError):
        return None


def failure_sentence(dataset: str, failures: Mapping[str, str], clips: int, without: str = "") -> str:
    """The sentence for clips that could not be read; `without` is the stream that was finished without them."""
    shown = named([f"{clip}: {reason}" for clip, reason in failures.items()])
    start = f"{dataset}: {len(failures)} of {clips} clips could not be extracted ({shown})"
    if without and len(failures) < clips:
        return f"{start}; the cache was finished without them: restrict the data set with subset: {{from_stream: {without}}}"
    if any("has no sound" in reason for reason in failures.values()):
        start += "; silence=true counts clips without sound as silent"
    return (
        f"{start}; mend their videos and give the same command again, which goes on with them; or leave them out, with "
        f"skip=failed in the command or subset: {{ids: ..}} in the definition"
    )
