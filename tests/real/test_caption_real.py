"""Real clips, real weights: a method trained on stored features says of a video file what it said of its stored features."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench
from bench import BenchError
from bench.cell.fit import run_cell
from bench.cli.main import main
from bench.declare.registry import dataset
from bench.features.backends import need_av, need_timm
from bench.home import Home
from bench.plan.cells import cells
from bench.plan.request import parse
from bench.records.store import PREDICTIONS, read_predictions
from bench.run.prepare import prepare

pytestmark = pytest.mark.real


def test_videos_are_captioned_as_their_stored_features_were(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        need_av(), need_timm("mobilenetv2_100")
    except BenchError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("BENCH_DATA", str(real_data))
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    monkeypatch.delenv("BENCH_CACHE", raising=False)
    home = Home(tmp_path)
    prepare(dataset("msrvtt_clips"), home, None, ["frames"])
    sizes = ["model.width=64", "model.embedding=64", "model.attention=64"]
    # A method that has seen little says the same of every clip: 15 epochs over 240 captions tell clips apart.
    (cell,) = cells(
        parse(["methods=salstm", "dataset=msrvtt_clips", "train.epochs=15", "train.learning_rate=2e-3", *sizes]), home
    )
    run_cell(cell.config, str(home.root))
    folder = cell.folder(home)
    ids = (Path(dataset("msrvtt_clips").path).parent / "lists" / "test.txt").read_text().split()
    said = read_predictions(folder / PREDICTIONS, ids)
    weights = real_data / "weights" / "mobilenetv2_100_imagenet.safetensors"
    trained = bench.load(folder)
    found = {
        clip: trained.caption(real_data / "videos" / "msrvtt" / f"{clip}.mp4", weights=weights).text for clip in ids[:3]
    }
    assert found == {clip: said[clip] for clip in ids[:3]}
    assert len(set(said.values())) > 1
    first = str(real_data / "videos" / "msrvtt" / f"{ids[0]}.mp4")
    assert main(["caption", first, f"checkpoint={folder}"]) == 2
    assert "name their file with weights=FILE" in capsys.readouterr().err
    (tmp_path / "half.mp4").write_bytes(Path(first).read_bytes()[:20_000])
    assert main(["caption", first, str(tmp_path / "half.mp4"), f"checkpoint={folder}", f"weights={weights}"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split(maxsplit=1)[1] == (said[ids[0]] or "(says nothing)")
    assert f"{tmp_path / 'half.mp4'} " in err
    assert "1 of 2 videos could not be captioned" in err
