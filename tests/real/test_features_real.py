"""Real feature files in three layouts: what the cache gives back is what lies in the source, within float16."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

from bench import BenchError
from bench.features.cache import Cache
from bench.features.check import check_cache
from bench.features.importers import import_stream, source_ids
from bench.features.sidecar import read_sidecar
from bench.home import Home
from tests.unit.small_world import definition_at

pytestmark = pytest.mark.real


def ids(first: int, last: int, prefix: str = "vid") -> list[str]:
    return [f"{prefix}{number}" for number in range(first, last + 1)]


def test_one_dataset_per_clip(real_data: Path, tmp_path: Path) -> None:
    file = real_data / "features/msrvtt_video0-999_vgg16ae_50x128.h5"
    clips = ids(0, 999, "video")
    path = import_stream(definition_at(real_data, source=str(file)), "frames", Home(tmp_path), clips)
    assert check_cache(path, clips) == []
    with Cache(path) as cache, h5py.File(file) as source:
        assert (cache.ids, cache.shape, cache.timed) == (tuple(clips), (50, 128), True)
        values, lengths = cache.load(clips)
        for clip, cached, length in zip(clips, values, lengths, strict=True):
            np.testing.assert_array_equal(cached, source[clip][()])
            assert not source[clip][length:].any()


def test_frames_are_chosen_equally_spaced(real_data: Path, tmp_path: Path) -> None:
    file = real_data / "features/msrvtt_video0-999_vgg16ae_50x128.h5"
    clips = ids(0, 49, "video")
    path = import_stream(definition_at(real_data, source=str(file), frames=28), "frames", Home(tmp_path), clips)
    said = read_sidecar(path)
    assert said["shape"] == [28, 128]
    assert said["source"]["without_captions"] == 950
    with Cache(path) as cache, h5py.File(file) as source:
        indices = np.round(np.linspace(0, 49, 28)).astype(int)
        for clip in clips:
            np.testing.assert_array_equal(cache.read(clip)[0], source[clip][()][indices])


def test_matrix_with_ids_takes_the_columns_asked_for(real_data: Path, tmp_path: Path) -> None:
    file = real_data / "features/glrg_msrvtt_val_1700.h5"
    clips = ids(6513, 7009, "video")
    definition = definition_at(real_data, source=str(file), columns=(300, 700))
    path = import_stream(definition, "frames", Home(tmp_path), clips)
    with Cache(path) as cache, h5py.File(file) as source:
        values, _ = cache.load(clips)
        assert (cache.shape, cache.timed) == ((400,), False)
        np.testing.assert_array_equal(values, source["feats"][:, 300:700])
        np.testing.assert_allclose(values.astype(np.float32).sum(1), 1, atol=0.02)  # softmax of the 400 actions


@pytest.mark.parametrize("naming", ["vid", "youtube", "youtube through the mapping"])
def test_matrix_with_two_lists_of_ids(real_data: Path, tmp_path: Path, naming: str) -> None:
    name = "features/glrg_msvd_val_test_1300.h5"
    pairs = [line.split() for line in (real_data / "msvd/youtube_mapping.txt").read_text().splitlines()]
    youtube = {vid: tube for tube, vid in pairs}
    vids = ids(1201, 1970)
    clips = [youtube[vid] for vid in vids] if naming == "youtube" else vids
    options = {"ids": "msvd/youtube_mapping.txt"} if "mapping" in naming else {}
    path = import_stream(definition_at(real_data, source=name, **options), "frames", Home(tmp_path), clips)
    with Cache(path) as cache, h5py.File(real_data / name) as source:
        np.testing.assert_array_equal(cache.load(clips)[0], source["feats"][...])


def test_authors_matrix_without_ids_is_the_one_with_ids_row_by_row(real_data: Path, tmp_path: Path) -> None:
    """Both files describe MSVD's validation clips: words and objects of the one are found again in the other."""
    clips = ids(1201, 1300)
    official = definition_at(real_data, source="features/glrg_official_msvd_val_gl_feats.h5")
    path = import_stream(official, "frames", Home(tmp_path / "official"), list(reversed(clips)))
    assert "no ids" in read_sidecar(path)["source"]["seen"]
    other = definition_at(real_data, source="features/glrg_msvd_val_test_1300.h5")
    second = import_stream(other, "frames", Home(tmp_path / "other"), clips)
    with (
        Cache(path) as rows,
        Cache(second) as named,
        h5py.File(real_data / official.streams["frames"].source) as source,
    ):
        values = rows.load(clips)[0].astype(np.float32)
        np.testing.assert_allclose(values, source["feats"][...], rtol=4.9e-4, atol=6e-8)
        np.testing.assert_allclose(values[:, :300], named.load(clips)[0][:, :300].astype(np.float32), atol=2e-3)


def test_authors_matrix_is_refused_where_rows_and_clips_differ(real_data: Path, tmp_path: Path) -> None:
    definition = definition_at(real_data, source="features/glrg_official_msvd_val_gl_feats.h5")
    with pytest.raises(BenchError, match=r"100 rows and the corpus has 1970 clips.*ids: FILE"):
        import_stream(definition, "frames", Home(tmp_path), ids(1, 1970))


def test_youtube_names_become_vid_through_the_mapping(real_data: Path, tmp_path: Path) -> None:
    definition = definition_at(real_data, source="features/msvd_53clips_vgg_28x4096.h5", ids="msvd/youtube_mapping.txt")
    clips = source_ids(definition, "frames", Home(tmp_path))
    assert len(clips) == 53
    assert all(clip.startswith("vid") for clip in clips)
    path = import_stream(definition, "frames", Home(tmp_path), clips)
    assert check_cache(path, clips) == []
    assert path.stat().st_size < 0.6 * 53 * 28 * 4096 * 2  # ReLU features are mostly zeros


def test_youtube_names_without_the_mapping_are_explained(real_data: Path, tmp_path: Path) -> None:
    definition = definition_at(real_data, source="features/msvd_40clips_mobilenetv2_28x1280.h5")
    with pytest.raises(BenchError, match=r"like 04Gt01vatkk_248_265, .* the corpus like vid1, vid2: say ids: FILE"):
        import_stream(definition, "frames", Home(tmp_path), ids(1, 40))
