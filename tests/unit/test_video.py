"""Decoding what people have: any rate, any size, turned, cut out of longer videos, damaged; and sound."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')

from films import film, greys, song

from bench.features.decoders import Decoders, Reader, flow
from bench.features.footage import Footage
from bench.features.specs import Preprocessing
from bench.features.video import (
    BANDS,
    RATE,
    STEPS,
    Sampling,
    SilentVideoError,
    UnreadableVideoError,
    log_mel,
    read_frames,
    read_sound,
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


# -- sound --------------------------------------------------------------------------------------------------------------


def test_sound_is_resampled_and_averaged_over_channels(tmp_path: Path) -> None:
    sound = read_sound(song(tmp_path / "x.wav"), RATE)
    assert len(sound) == pytest.approx(2 * RATE, abs=40)
    assert np.abs(sound[2000:-2000]).max() == pytest.approx(0.5, abs=0.01), "as loud as each channel"
    part = read_sound(tmp_path / "x.wav", RATE, (0.5, 1.25))
    assert len(part) == 0.75 * RATE
    with pytest.raises(SilentVideoError, match="has no sound track"):
        read_sound(film(tmp_path / "x.mkv", 3), RATE)
    with pytest.raises(SilentVideoError, match="has no sound from 8 to 9 s"):
        read_sound(tmp_path / "x.wav", RATE, (8, 9))


def test_log_mel_bands_by_the_definition() -> None:
    """Against a loop: 25 ms under a periodic Hann window, |DFT| of 512, triangles straight in mel, log(x + 0.01)."""
    rng = np.random.default_rng(0)
    sound = rng.normal(size=RATE).astype(np.float32) * 0.1
    examples = log_mel(sound)
    assert examples.shape == (1, 1, STEPS, BANDS)
    mel = lambda hertz: 1127.0 * np.log(1 + hertz / 700.0)  # noqa: E731
    edges = np.linspace(mel(125.0), mel(7500.0), BANDS + 2)
    for step, band in ((0, 0), (7, 20), (95, 63)):
        piece = sound[160 * step : 160 * step + 400].astype(np.float64)
        piece = piece * np.array([0.5 - 0.5 * np.cos(2 * np.pi * n / 400) for n in range(400)])
        total = 0.0
        for number in range(1, 257):
            angle = -2j * np.pi * number / 512 * np.arange(400)
            at = mel(number * RATE / 512)
            up = (at - edges[band]) / (edges[band + 1] - edges[band])
            down = (edges[band + 2] - at) / (edges[band + 2] - edges[band + 1])
            total += max(0.0, min(up, down)) * abs((piece * np.exp(angle)).sum())
        assert examples[0, 0, step, band] == pytest.approx(np.log(total + 0.01), abs=1e-5)


def test_a_tone_lights_its_band_and_short_sounds_are_filled_up() -> None:
    times = np.arange(3 * RATE) / RATE
    examples = log_mel(np.sin(2 * np.pi * 1000 * times).astype(np.float32))
    assert len(examples) == 3
    centres = 700 * np.expm1(
        np.linspace(1127 * np.log1p(125 / 700), 1127 * np.log1p(7500 / 700), BANDS + 2)[1:-1] / 1127
    )
    assert centres[examples[1, 0].mean(axis=0).argmax()] == pytest.approx(1000, rel=0.05)
    assert log_mel(np.zeros(0, np.float32)).shape == (1, 1, STEPS, BANDS)
    assert log_mel(np.zeros(0, np.float32)) == pytest.approx(np.log(0.01))


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
