"""From the sound of a video to what networks of sound read: resampled, cut, in pieces, by the definition of the bands."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')

from films import film, song

from bench.features import sound as module
from bench.features.sound import log_mel, read_sound
from bench.features.specs import LogMel, spec_of
from bench.features.video import SilentVideoError
from bench.home import CHECKOUT

FRONT = LogMel()


def heard(path: Path, *span: Any) -> np.ndarray:
    return np.concatenate(list(read_sound(path, FRONT, *span)))


def test_sound_is_resampled_and_averaged_over_channels(tmp_path: Path) -> None:
    sound = heard(song(tmp_path / "x.wav"))
    assert len(sound) == pytest.approx(2 * FRONT.rate, abs=40)
    assert np.abs(sound[2000:-2000]).max() == pytest.approx(0.5, abs=0.01), "as loud as each channel"
    mixed = np.concatenate(list(read_sound(tmp_path / "x.wav", LogMel(mono="swresample"))))
    np.testing.assert_allclose(mixed, sound * np.sqrt(2), atol=1e-5)
    part = heard(tmp_path / "x.wav", (0.5, 1.25))
    assert len(part) == 0.75 * FRONT.rate
    with pytest.raises(SilentVideoError, match="has no sound track"):
        heard(film(tmp_path / "x.mkv", 3))
    with pytest.raises(SilentVideoError, match="has no sound from 8 to 9 s"):
        heard(tmp_path / "x.wav", (8, 9))


@pytest.mark.parametrize(("channels", "rate"), [(1, 44_100), (2, 22_050)])
def test_a_track_that_changes_midway_is_heard_to_its_end(tmp_path: Path, channels: int, rate: int) -> None:
    parts = []
    for name, own in (("a", {}), ("b", {"channels": channels, "rate": rate}), ("a", {})):
        parts.append(song(tmp_path / f"{name}.aac", 0.5, codec="aac", **own).read_bytes())
    (tmp_path / "x.aac").write_bytes(b"".join(parts))
    sound = heard(tmp_path / "x.aac")
    assert len(sound) == pytest.approx(1.5 * FRONT.rate, rel=0.15)
    alone = [heard(tmp_path / "a.aac"), heard(tmp_path / "b.aac")]
    assert len(sound) == pytest.approx(2 * len(alone[0]) + len(alone[1]), rel=0.1)
    loud = [np.abs(part).max() for part in np.array_split(sound, 3)]
    assert loud == pytest.approx([0.5] * 3, abs=0.1)


def test_parts_of_a_long_video_decode_its_sound_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts in their order go on where the last one ended, with gaps or without; one that lies before begins anew."""
    path = song(tmp_path / "long.wav", 65)
    whole = heard(path)
    begun: list[Path] = []
    pieces = module._pieces
    monkeypatch.setattr(module, "_pieces", lambda file, front: (begun.append(file), pieces(file, front))[1])
    monkeypatch.setattr(module, "PIECE", 4.0)
    module._track.cache_clear()
    for start in (0, 3, 6, 9, 20, 21.5, 40, 62):
        part = whole[round(start * FRONT.rate) : round((start + 3) * FRONT.rate)]
        np.testing.assert_array_equal(heard(path, (start, start + 3)), part)
    assert begun == [path]
    np.testing.assert_array_equal(heard(path, (1, 2)), whole[FRONT.rate : 2 * FRONT.rate])
    np.testing.assert_array_equal(heard(path), whole)
    assert begun == [path] * 2, "the last part and the whole begin in the same piece"
    with pytest.raises(SilentVideoError, match="has no sound from 80 to 90 s"):
        heard(path, (80, 90))
    (other := tmp_path / "other.wav").write_bytes(path.read_bytes())
    assert len(heard(other, (0, 1))) == FRONT.rate and begun[-1] == other


def test_a_process_may_end_within_a_sound(tmp_path: Path) -> None:
    """What was not read to its end is closed when Python has already forgotten its modules."""
    reads = (
        "import sys; from pathlib import Path; from bench.features import sound; sys.held = sound\n"
        "from bench.features.specs import LogMel\n"
        "print(sum(map(len, sound.read_sound(Path(sys.argv[1]), LogMel(), (0, 2)))))"
    )
    path = song(tmp_path / "long.wav", 65)
    ended = subprocess.run(
        [sys.executable, "-c", reads, path], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == (f"{2 * FRONT.rate}\n", "", 0)


def test_log_mel_bands_by_the_definition() -> None:
    """Against a loop: 25 ms under a periodic Hann window, |DFT| of 512, triangles straight in mel, log(x + 0.01)."""
    rng = np.random.default_rng(0)
    sound = rng.normal(size=FRONT.rate).astype(np.float32) * 0.1
    examples = log_mel([sound], FRONT)
    assert examples.shape == (1, 1, FRONT.steps, FRONT.bands)
    mel = lambda hertz: 1127.0 * np.log(1 + hertz / 700.0)  # noqa: E731
    edges = np.linspace(mel(125.0), mel(7500.0), FRONT.bands + 2)
    for step, band in ((0, 0), (7, 20), (95, 63)):
        piece = sound[160 * step : 160 * step + 400].astype(np.float64)
        piece = piece * np.array([0.5 - 0.5 * np.cos(2 * np.pi * n / 400) for n in range(400)])
        total = 0.0
        for number in range(1, 257):
            angle = -2j * np.pi * number / 512 * np.arange(400)
            at = mel(number * FRONT.rate / 512)
            up = (at - edges[band]) / (edges[band + 1] - edges[band])
            down = (edges[band + 2] - at) / (edges[band + 2] - edges[band + 1])
            total += max(0.0, min(up, down)) * abs((piece * np.exp(angle)).sum())
        assert examples[0, 0, step, band] == pytest.approx(np.log(total + 0.01), abs=1e-5)


def test_a_tone_lights_its_band_and_short_sounds_are_filled_up() -> None:
    times = np.arange(3 * FRONT.rate) / FRONT.rate
    examples = log_mel([np.sin(2 * np.pi * 1000 * times).astype(np.float32)], FRONT)
    assert len(examples) == 3
    centres = 700 * np.expm1(
        np.linspace(1127 * np.log1p(125 / 700), 1127 * np.log1p(7500 / 700), FRONT.bands + 2)[1:-1] / 1127
    )
    assert centres[examples[1, 0].mean(axis=0).argmax()] == pytest.approx(1000, rel=0.05)
    assert log_mel([], FRONT).shape == (1, 1, FRONT.steps, FRONT.bands)
    assert log_mel([], FRONT) == pytest.approx(np.log(0.01))


def test_pieces_change_nothing() -> None:
    """Examples that overlap, as YAMNet reads them, and a rest that fills none."""
    front = spec_of("yamnet").preprocessing.sound
    assert front is not None
    sound = np.random.default_rng(1).normal(size=40_123).astype(np.float32)
    whole = log_mel([sound], front)
    assert whole.shape == (4, 1, 96, 64), "of 2.5 s the first begins at 0, the others 0.48 s later each"
    np.testing.assert_array_equal(whole[1, 0, :48], whole[0, 0, 48:])
    for cuts in ([1], [399, 401], list(range(0, 40_000, 777))):
        np.testing.assert_array_equal(log_mel(np.split(sound, cuts), front), whole)


def test_of_an_hour_of_sound_only_the_bands_are_held() -> None:
    """Its samples in float64 are 230 MB, its spectrum 1.5 GB."""

    def pieces() -> Iterator[np.ndarray]:
        for _ in range(60):
            yield np.zeros(60 * FRONT.rate, np.float32)

    tracemalloc.start()
    try:
        examples = log_mel(pieces(), FRONT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(examples) == 3749
    assert peak < 3 * examples.nbytes + 200e6 < 500e6
