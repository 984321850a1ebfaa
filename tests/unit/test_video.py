"""Decoding what people have: any rate, any size, turned, cut out of longer videos, damaged; and sound."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')

from films import film, greys

from bench.features.decoders import Decoders, Reader, flow
from bench.features.footage import Footage
from bench.features.specs import Preprocessing
from bench.features.video import (
    Sampling,
    UnreadableVideoError,
    read_frames,
)

SQUARE = Preprocessing((16, 16), None, "BILINEAR", mean=0.0, deviation=1.0)
IDENTITY = bytes.fromhex("00010000" + "00" * 12 + "00010000" + "00" * 12 + "40000000")
QUARTER = bytes.fromhex("00000000" + "00010000" + "00" * 4 + "ffff0000" + "00" * 16 + "40000000")


def seen(path: Path, sampling: int | Sampling, span: tuple[float, float] | None = None) -> Any:
    return greys(read_frames(path, sampling, SQUARE, span))


# -- which frames -------------------------------------------------------------------------------------------------------


def test_a_fixed_rate_goes_by_seconds_not_by_frames(tmp_path: Path) -> None:
    """Ten frames within a tenth of a second, then one a second: at 1 per second the first ten count once."""
    ticks = [*range(10), 100, 200, 300]
    path = film(tmp_path / "x.mkv", 13, ticks=ticks)
    assert seen(path, Sampling(20, fps=1)) == [0, 10, 11, 12]
    assert seen(path, Sampling(20, fps=2)) == [0, 9, 10, 10, 11, 11, 12]
    assert seen(path, Sampling(3, fps=2)) == [0, 10, 12], "no more than asked for: further apart"
    assert seen(path, 4) == [0, 4, 8, 12], "equally spaced ones go by number"


def test_middles_and_windows(tmp_path: Path) -> None:
    path = film(tmp_path / "x.mkv", 12)
    assert seen(path, Sampling(1, centred=True)) == [6]
    assert seen(path, Sampling(3, centred=True)) == [2, 6, 10]
    runs = read_frames(path, Sampling(3, window=4), SQUARE)
    assert runs.shape == (3, 4, 3, 16, 16)
    assert greys(runs) == [[0, 0, 0, 1], [4, 5, 6, 7], [9, 10, 11, 11]], "the edge frames are repeated"


@pytest.mark.parametrize("name", ["x.mkv", "x.mp4", "x.avi"])
def test_a_part_of_a_video_is_the_frames_shown_in_its_seconds(tmp_path: Path, name: str) -> None:
    """25 frames a second and a key frame every 12: the part begins between two of them."""
    path = film(tmp_path / name, 30, codec="libx264", g="12", bf="0", qp="0")
    assert seen(path, 5, (0.6, 1.0)) == [15, 17, 19, 22, 24]
    assert seen(path, 2, (0.0, 0.2)) == [0, 4]
    assert seen(path, 2, (0.8, 99.0)) == [20, 29], "past the end it ends with the video"
    assert seen(path, Sampling(9, fps=5), (0.4, 1.2)) == [10, 15, 20, 25]


def test_parts_that_are_not_there_are_sentences(tmp_path: Path) -> None:
    path = film(tmp_path / "x.mkv", 10)
    with pytest.raises(UnreadableVideoError, match=r"is to be cut from 5 to 3 s, but must start before it ends"):
        read_frames(path, 4, SQUARE, (5, 3))
    with pytest.raises(UnreadableVideoError, match=r"has no frame from 7 to 9 s"):
        read_frames(path, 4, SQUARE, (7, 9))


def test_messages_of_decoders_are_off_whoever_turned_them_on(tmp_path: Path) -> None:
    """torchvision 0.22 does: a decoder's thread with a message then waits for Python's lock, and who frees it for the thread."""
    import av

    path = film(tmp_path / "x.mkv", 10)
    av.logging.set_level(av.logging.ERROR)
    read_frames(path, 4, SQUARE)
    assert av.logging.get_level() is None


# -- odd videos ---------------------------------------------------------------------------------------------------------


def test_a_video_of_a_telephone_is_turned(tmp_path: Path) -> None:
    path = film(tmp_path / "x.mp4", 3, codec="mpeg4", qscale="1")
    plain = read_frames(path, 1, SQUARE)[0, 0]
    assert plain[8, 3] + 40 < plain[8, 12], "the right half is brighter"
    raw = path.read_bytes()
    at = raw.index(b"tkhd") + 4 + 4 + 36  # after version and flags; the matrix of the track, not of the film
    assert raw[at : at + 36] == IDENTITY
    path.write_bytes(raw[:at] + QUARTER + raw[at + 36 :])
    turned = read_frames(path, 1, Preprocessing(32, None, "BILINEAR", 0.0, 1.0))[0, 0]
    assert turned.shape == (43, 32), "what was wide is high: 64 x 48 at 32 across"
    assert abs(int(turned[36, 16]) - int(turned[6, 16])) > 40, "halves lie one over the other"
    assert abs(int(turned[20, 4]) - int(turned[20, 28])) < 5
    assert turned[36, 16] > turned[6, 16], "turned clockwise, right becomes below"


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("odd.mkv", {"width": 63, "height": 47}),
        ("raw.264", {"codec": "libx264", "format": "h264", "qp": "0"}),
        ("größe 猫.mkv", {}),
        ("one.avi", {"frames": 1}),
        ("large.mkv", {"codec": "mpeg4", "width": 3840, "height": 2160, "frames": 2, "qscale": "2"}),
    ],
    ids=["odd size", "no duration", "name", "one frame", "4K"],
)
def test_odd_videos_are_read(tmp_path: Path, name: str, make: dict[str, Any]) -> None:
    arguments = {"frames": 8, **make}
    path = film(tmp_path / name, **arguments)
    last = arguments["frames"] - 1
    assert seen(path, 3) == [0, round(last / 2), last]
    assert read_frames(path, 1, SQUARE).shape == (1, 3, 16, 16)


def test_a_header_of_no_frames_a_second(tmp_path: Path) -> None:
    """Frames are told apart by number; seconds there are none."""
    path = film(tmp_path / "x.avi", 8)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"strh")
    raw[at + 32 : at + 36] = bytes(4)  # dwRate
    path.write_bytes(raw)
    assert seen(path, 3) == [0, 4, 7]


@pytest.mark.parametrize("name", ["x.avi", "x.mkv"])
def test_a_video_that_was_cut_off_in_copying_breaks_off(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name, 90, codec="mpeg4", width=160, height=128, qscale="1")
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 3])
    with pytest.raises(UnreadableVideoError, match=r"breaks off|cannot be decoded"):
        read_frames(path, 4, SQUARE)


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    path = film(tmp_path / "x.avi", 4)
    path.write_bytes(path.read_bytes().replace(b"FFV1", b"ZZZZ"))
    with pytest.raises(UnreadableVideoError, match=r"cannot decode|cannot be decoded"):
        read_frames(path, 4, SQUARE)


# -- side by side -------------------------------------------------------------------------------------------------------


class Deadly(Reader):
    """A reader that a file called `bomb` kills, as a damaged video kills FFmpeg."""

    def __call__(self, footage: Footage) -> Any:
        if footage.path.stem == "bomb":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(footage)


def test_a_video_that_kills_its_decoder_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    clips = {name: Footage(film(tmp_path / f"{name}.mkv", 4)) for name in ("a", "bomb", "c", "d")}
    with Decoders(Deadly(Sampling(2), SQUARE), 1) as decoders:
        found = dict(flow(clips, decoders, greys, lanes=1))
    assert str(found.pop("bomb")) == "bomb.mkv ended the process that decoded it (status -9)"
    assert found == {clip: [0, 3] for clip in "acd"}
