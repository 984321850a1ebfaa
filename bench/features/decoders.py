"""Clips through decoding and encoding side by side: processes decode, threads encode, and never many clips are under way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import BenchError
from bench.features.footage import Footage
from bench.features.specs import Preprocessing
from bench.features.video import (
    RATE,
    Sampling,
    SilentVideoError,
    UnreadableVideoError,
    log_mel,
    read_frames,
    read_sound,
)

Values = NDArray[Any]
AHEAD = 2  # clips that are decoded and wait, besides those in work: enough that no side waits for the other


@dataclass(frozen=True)
class Reader:
    """What is read of a clip: frames as `sampling` and `preprocessing` say, or, without a sampling, its sound.

    `silence` lets a clip without sound count as silence.
    """

    sampling: Sampling | None
    preprocessing: Preprocessing
    silence: bool = False

    def __call__(self, footage: Footage) -> Values:
        """Frames uint8, or examples of sound float32. Raises UnreadableVideoError, the file's name in its sentence."""
        try:
            if self.sampling is not None:
                return read_frames(footage.path, self.sampling, self.preprocessing, footage.span)
            return log_mel(self._sound(footage))
        except UnreadableVideoError as error:
            raise type(error)(f"{footage.path.name} {error}") from None

    def _sound(self, footage: Footage) -> NDArray[np.float32]:
        try:
            return read_sound(footage.path, RATE, footage.span)
        except SilentVideoError:
            if self.silence:
                return np.zeros(0, np.float32)
            raise


class Decoders:
    """So many processes that decode, started at once, so that they are ready when an encoder is. With none, this one does."""

    def __init__(self, reader: Reader, count: int) -> None:
        self.reader, self.count = reader, count
        self._all = [_Process(reader) for _ in range(count)]
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        for process in self._all:
            self._idle.put(process)
        self._pool = ThreadPoolExecutor(max(1, count), "decode")

    def submit(self, footage: Footage) -> Future[Values | UnreadableVideoError]:
        return self._pool.submit(self._decode, footage)

    def _decode(self, footage: Footage) -> Values | UnreadableVideoError:
        process = self._idle.get()
        try:
            return process.decode(footage)
        finally:
            self._idle.put(process)

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.end()
        self._pool.shutdown(cancel_futures=True)
        for process in self._all:
            process.end()  # those that were started anew in between


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


class _Process:
    """A decoder process; one that a video has ended is started anew."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ended = False
        self._start()

    def _start(self) -> None:
        # Neither forked, as locks of torch's threads do not survive that, nor spawned by multiprocessing, which imports the
        # caller's program once more: this one starts in a third of a second and needs no torch.
        ours, theirs = socket.socketpair()
        code = "import sys; from bench.features.decoders import serve; serve(int(sys.argv[1]))"
        places = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": places},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._pipe = Connection(ours.detach())
        with suppress(OSError):  # a process that ended at once is met when it is asked
            self._pipe.send(self._reader)

    def decode(self, footage: Footage) -> Values | UnreadableVideoError:
        try:
            self._pipe.send(footage)
            answer: Values | Exception = self._pipe.recv()
        except (EOFError, OSError):
            how = self._process.wait()
            if not self._ended:
                self._start()
            return UnreadableVideoError(f"{footage.path.name} ended the process that decoded it (status {how})")
        if isinstance(answer, Exception) and not isinstance(answer, UnreadableVideoError):
            raise answer
        return answer

    def end(self) -> None:
        self._ended = True
        self._process.terminate()
        self._process.wait()
        with suppress(OSError):
            self._pipe.close()


def serve(descriptor: int) -> None:
    """What a decoder process does until its owner is gone: answer each Footage that comes over the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, who ends us
    pipe = Connection(descriptor)
    with suppress(EOFError, OSError):
        reader: Reader = pipe.recv()
        while True:
            footage = pipe.recv()
            try:
                answer: Values | Exception = reader(footage)
            except (UnreadableVideoError, BenchError) as error:
                answer = error
            except MemoryError:
                answer = UnreadableVideoError(f"{footage.path.name} needs more memory than there is")
            pipe.send(answer)
