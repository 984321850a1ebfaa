"""Clips through decoding and encoding side by side: processes decode, threads encode, and never many clips are under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.features.footage import Footage
from bench.features.processes import ProcessEndedError, Processes
from bench.features.sound import log_mel, read_sound
from bench.features.specs import Preprocessing
from bench.features.video import Sampling, SilentVideoError, UnreadableVideoError, read_views

Values = NDArray[Any] | list[NDArray[Any]]  # several preparations of the same frames are a list
AHEAD = 2  # clips that are decoded and wait, besides those in work: enough that no side waits for the other


@dataclass(frozen=True)
class Reader:
    """What is read of a clip: frames as `sampling` and `preprocessing` say, or, without a sampling, its sound.

    `also` asks for the same frames in a second preparation. `silence` lets a clip without sound count as silence.
    """

    sampling: Sampling | None
    preprocessing: Preprocessing
    silence: bool = False
    also: Preprocessing | None = None

    def __call__(self, footage: Footage) -> Values:
        """Frames uint8, or examples of sound float32. Raises UnreadableVideoError, the file's name in its sentence."""
        try:
            if self.sampling is not None:
                views = [self.preprocessing, *([self.also] if self.also else [])]
                found = read_views(footage.path, self.sampling, views, footage.span)
                return found if self.also else found[0]
            return self._sound(footage)
        except UnreadableVideoError as error:
            raise type(error)(f"{footage.path.name} {error}") from None

    def _sound(self, footage: Footage) -> NDArray[np.float32]:
        front = self.preprocessing.sound
        assert front is not None
        try:
            return log_mel(read_sound(footage.path, front, footage.span), front)
        except SilentVideoError:
            if self.silence:
                return log_mel([], front)
            raise


@dataclass(frozen=True)
class _Reading:
    """A reader whose error is an answer, so that it comes back from another process like what was read."""

    reader: Reader

    def __call__(self, footage: Footage) -> Values | UnreadableVideoError:
        try:
            return self.reader(footage)
        except UnreadableVideoError as error:
            return error
        except MemoryError:
            return UnreadableVideoError(f"{footage.path.name} needs more memory than there is")


class Decoders(Processes[Footage, Values | UnreadableVideoError]):
    """So many processes that decode, started at once, so that they are ready when an encoder is. With none, this one does.

    A damaged video can end the process that decodes it: that clip is then named and the others go on.
    """

    def __init__(self, reader: Reader, count: int) -> None:
        super().__init__(_Reading(reader), count)
        self.reader = reader

    def _ask(self, footage: Footage) -> Values | UnreadableVideoError:
        try:
            return super()._ask(footage)
        except ProcessEndedError as ended:
            return UnreadableVideoError(
                f"{footage.path.name} ended the process that decoded it (status {ended.status})"
            )


def flow(
    clips: Mapping[str, Footage], decoders: Decoders, encode: Callable[[Values], Any], lanes: int
) -> Iterator[tuple[str, Any]]:
    """Each clip with what `encode` makes of it, or with the UnreadableVideoError that says why there is nothing.

    In whatever order they are ready; no clip's values depend on another's. The decoders decode and `lanes` threads encode; with
    no decoders one clip after another is done here.
    """
    if decoders.count == 0:
        for clip, footage in clips.items():
            try:
                values = decoders.reader(footage)
            except UnreadableVideoError as error:
                yield clip, error
            else:
                yield clip, encode(values)
        return
    waiting = iter(clips.items())
    under_way: dict[Future[Any], tuple[str, bool]] = {}
    with ThreadPoolExecutor(lanes, "encode") as encoders:
        while True:
            while len(under_way) < decoders.count + lanes + AHEAD and (item := next(waiting, None)):
                under_way[decoders.submit(item[1])] = (item[0], False)
            if not under_way:
                return
            ended, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in ended:
                clip, encoded = under_way.pop(future)
                found = future.result()
                if encoded or isinstance(found, UnreadableVideoError):
                    yield clip, found
                else:
                    under_way[encoders.submit(encode, found)] = (clip, True)
