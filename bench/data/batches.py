"""Clip-major batches of one split: what `fit` and `decode` see of a corpus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from bench.method import BOS, EOS, Batch, Reference, StreamInfo, Vocabulary

Groups = Sequence[tuple[str, tuple[Reference, ...]]]
"""What a batch is made of: clips, each with some of its captions."""
COPIED = 64  # clips that are copied to a GPU at a time: so many are held in memory beside it
ALIGNED = 16  # bytes: where a tensor of any type may begin


class StreamSource:
    """One stream of the clips of a split: `info`, and `read(clips)` -> (values [C, ...], true lengths [C]).

    `slow` says that reading takes time worth hiding: from a disk, not from memory. `held` are values [N, ...] that lie on a
    GPU; `read` then gives the rows of the clips in them, [C].
    """

    def __init__(
        self,
        info: StreamInfo,
        read: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]],
        slow: bool = False,
        held: Tensor | None = None,
    ) -> None:
        self.info = info
        self.read = read
        self.slow = slow
        self.held = held

    def on(self, device: torch.device, ids: Sequence[str]) -> StreamSource:
        """The same stream with the values of the clips `ids` held on `device`, in the type in which they are stored."""
        held: Tensor | None = None
        lengths: list[np.ndarray] = []
        for start in range(0, len(ids), COPIED):
            values, own = self.read(ids[start : start + COPIED])
            some = torch.from_numpy(np.ascontiguousarray(values))
            if held is None:
                held = torch.empty((len(ids), *some.shape[1:]), dtype=some.dtype, device=device)
            held[start : start + len(some)] = some
            lengths.append(np.asarray(own))
        length_of = np.concatenate(lengths)
        row = {clip: place for place, clip in enumerate(ids)}

        def read(clips: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            rows = np.array([row[clip] for clip in clips])
            return rows, length_of[rows]

        return StreamSource(self.info, read, held=held)


class CorpusClips:
    """`bench.method.Clips` over a list of ids, their references and stream sources.

    `references` is empty for a split whose captions are withheld. `spend` is told of every caption handed out by
    `epoch`, so that the budget is counted where captions are read and not by the method that reads them. `wait` is told the
    seconds that each batch of an `epoch` was waited for. `pinned` batches of an `epoch` go to a GPU without the host's waiting.
    """

    def __init__(
        self,
        ids: Sequence[str],
        references: Mapping[str, tuple[Reference, ...]],
        sources: Mapping[str, StreamSource],
        vocabulary: Vocabulary,
        seed: int = 0,
        spend: Callable[[int], None] | None = None,
        wait: Callable[[float], None] | None = None,
        pinned: bool = False,
    ) -> None:
        self.ids = tuple(ids)
        self.vocabulary = vocabulary
        self.streams: Mapping[str, StreamInfo] = {name: source.info for name, source in sources.items()}
        self._sources = dict(sources)
        self._references = {clip: tuple(references.get(clip, ())) for clip in self.ids}
        self._seed = seed
        self._spend = spend or (lambda captions: None)
        self._wait = wait or (lambda seconds: None)
        self._pinned = pinned

    @property
    def n_captions(self) -> int:
        return sum(len(captions) for captions in self._references.values())

    def references(self, clip: str) -> tuple[Reference, ...]:
        return self._references[clip]

    def epoch(self, order: int, captions: int, captions_per_clip: int, start: int = 0) -> Iterator[Batch]:
        """All captions once. A clip's captions are dealt into groups of `captions_per_clip`; shuffled groups fill batches.

        The order depends on the seed and `order` alone, so a resumed run sees the batches it would have seen.
        """
        began = time.perf_counter()
        for batch in self._batches(self._plan(order, captions, captions_per_clip)[start:]):
            self._spend(len(batch.caption_ids))
            self._wait(time.perf_counter() - began)
            yield self._gathered(batch)
            began = time.perf_counter()

    def in_order(self, clips: int) -> Iterator[Batch]:
        for start in range(0, len(self.ids), clips):
            yield self._gathered(self._batch([(clip, ()) for clip in self.ids[start : start + clips]]))

    def reading(self, streams: Sequence[str]) -> CorpusClips:
        return self._like(self.ids, {name: self._sources[name] for name in streams})

    def only(self, ids: Sequence[str]) -> CorpusClips:
        """These clips alone, in this order."""
        return self._like(ids, self._sources)

    def on(self, device: torch.device) -> CorpusClips:
        """The same clips with their features held on `device`: batches are gathered there instead of being copied."""
        return self._like(self.ids, {name: source.on(device, self.ids) for name, source in self._sources.items()})

    def _like(self, ids: Sequence[str], sources: Mapping[str, StreamSource]) -> CorpusClips:
        """Other clips or streams of the same corpus."""
        return CorpusClips(
            ids, self._references, sources, self.vocabulary, self._seed, self._spend, self._wait, self._pinned
        )

    def padded(self, steps: int, filler: float) -> CorpusClips:
        """The same clips with their last `steps` time steps as padding that holds `filler`; one step at least stays real."""

        def short(source: StreamSource) -> StreamSource:
            def read(clips: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
                values, lengths = source.read(clips)
                values, lengths = values.copy(), np.maximum(np.asarray(lengths) - steps, 1)
                for row, length in enumerate(lengths):
                    values[row, length:] = filler
                return values, lengths

            return StreamSource(source.info, read) if source.info.timed else source

        return self._like(self.ids, {name: short(source) for name, source in self._sources.items()})

    def _plan(self, order: int, captions: int, captions_per_clip: int) -> Sequence[Groups]:
        random = np.random.default_rng([self._seed, order])
        groups = []
        captions_per_clip = min(captions_per_clip, captions)
        for clip in self.ids:
            own = self._references[clip]
            shuffled = [own[place] for place in random.permutation(len(own))]
            groups += [
                (clip, tuple(shuffled[at : at + captions_per_clip]))
                for at in range(0, len(shuffled), captions_per_clip)
            ]
        batches: list[list[tuple[str, tuple[Reference, ...]]]] = []
        room = 0
        for place in random.permutation(len(groups)):
            size = len(groups[place][1])
            if room < size:
                batches.append([])
                room = captions
            batches[-1].append(groups[place])
            room -= size
        return batches

    def _batches(self, plan: Iterable[Groups]) -> Iterator[Batch]:
        """The batches of a plan in its order. A thread reads the next one while this one is used, where that takes time or a GPU
        works on this one."""
        if not self._pinned and not any(source.slow for source in self._sources.values()):
            yield from map(self._batch, plan)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="next-batch") as reader:
            coming: Future[Batch] | None = None
            for groups in plan:
                following = reader.submit(self._ahead, groups)
                if coming is not None:
                    yield coming.result()
                coming = following
            if coming is not None:
                yield coming.result()

    def _ahead(self, groups: Groups) -> Batch:
        batch = self._batch(groups)
        return _in_one_piece(batch) if self._pinned else batch

    def _gathered(self, batch: Batch) -> Batch:
        """With the features that lie on a GPU, by the thread that trains there: it starts all that the GPU does."""
        for name, source in self._sources.items():
            if source.held is not None:
                batch = batch.to(source.held.device)
                batch.streams[name] = _numbers(source.held.index_select(0, batch.streams[name]))
        return batch

    def _batch(self, groups: Groups) -> Batch:
        clips = tuple(dict.fromkeys(clip for clip, _ in groups))
        row = {clip: place for place, clip in enumerate(clips)}
        captions = sorted((ref for _, refs in groups for ref in refs), key=lambda ref: -len(ref.words))
        longest = max((len(ref.words) for ref in captions), default=0)
        words = np.zeros((len(captions), longest + 2), dtype=np.int64)
        for place, ref in enumerate(captions):
            words[place, 0] = BOS
            words[place, 1 : len(ref.words) + 1] = ref.words
            words[place, len(ref.words) + 1] = EOS
        streams, masks = {}, {}
        for name, source in self._sources.items():
            values, lengths = source.read(clips)
            read = torch.from_numpy(np.ascontiguousarray(values))
            streams[name] = _numbers(read) if source.held is None else read
            if source.info.timed:
                masks[name] = torch.arange(source.info.shape[0]) < torch.from_numpy(lengths.astype(np.int64)).unsqueeze(
                    1
                )
        return Batch(
            clips,
            streams,
            masks,
            tuple(ref.id for ref in captions),
            torch.tensor([row[ref.clip] for ref in captions], dtype=torch.long),
            torch.from_numpy(words),
            torch.tensor([len(ref.words) + 1 for ref in captions], dtype=torch.long),
        )


def _numbers(read: Tensor) -> Tensor:
    """float32; pixels stay as they are, for they would be four times as large."""
    return read if read.dtype == torch.uint8 else read.float()


def _in_one_piece(batch: Batch) -> Batch:
    """The same batch in one piece of memory that a GPU reads by itself while the host goes on: one copy brings all of it."""
    parts = (*batch.streams.values(), *batch.masks.values(), batch.clip_of_B, batch.words_BW, batch.lengths_B)
    starts = list(accumulate((-(-part.nbytes // ALIGNED) * ALIGNED for part in parts), initial=0))
    piece = pinned_memory(starts[-1])
    laid = []
    for start, part in zip(starts, parts, strict=False):
        laid.append(piece[start : start + part.nbytes].view(part.dtype).view(part.shape).copy_(part))
    *values, clip_of_B, words_BW, lengths_B = laid
    streams = dict(zip(batch.streams, values, strict=False))
    masks = dict(zip(batch.masks, values[len(streams) :], strict=True))
    return Batch(batch.clip_ids, streams, masks, batch.caption_ids, clip_of_B, words_BW, lengths_B, piece)


def pinned_memory(size: int) -> Tensor:
    """So many bytes that a GPU reads by itself."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)
