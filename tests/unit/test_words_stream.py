"""The stream `words` from a trained glrg: what its network says of every clip, for other methods to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cell.checkpoint import CHECKPOINT, load
from bench.cell.fit import run_cell
from bench.cli.main import main
from bench.conformance.workplace import write_corpus
from bench.declare.registry import dataset
from bench.features.cache import Cache
from bench.home import Home, data_folder
from bench.plan.cells import cells
from bench.plan.request import parse
from bench.run.prepare import prepare


def test_words_of_a_trained_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    definition, home = write_corpus(tmp_path, ["frames"]), Home(tmp_path)
    prepare(dataset(str(definition)), home)
    small = [f"dataset={definition}", "model.width=8", "model.embedding=6", "train.epochs=1"]
    folders = {}
    for name in ("glrg:long", "mplstm"):
        (cell,) = cells(parse([f"methods={name}", *small]), home)
        run_cell(cell.config, str(home.root))
        folders[name] = cell.folder(home)
    words = ["features", "extract", f"dataset={definition}", "stream=words"]
    assert main([*words, f"checkpoint={folders['glrg:long']}"]) == 0
    network = load(folders["glrg:long"] / CHECKPOINT).method.module.word_network.eval()  # type: ignore[attr-defined]
    cache = home.cache / dataset(str(definition)).name
    with Cache(cache / "words.h5") as found, Cache(cache / "frames.h5") as frames:
        assert (found.ids, found.timed, found.shape) == (frames.ids, False, (300,))
        for clip in frames.ids:
            values, length = frames.read(clip)
            with torch.inference_mode():
                own = network(torch.from_numpy(values[:length]).float()[None], torch.ones(1, length, dtype=torch.bool))
            np.testing.assert_allclose(found.read(clip)[0], torch.sigmoid(own)[0].numpy(), atol=1e-3)
    capsys.readouterr()
    assert main([*words, f"checkpoint={folders['mplstm']}"]) == 2
    assert "holds mplstm, trained without a network of words: take one of glrg" in capsys.readouterr().err
    assert main(words) == 2
    assert "checkpoint= is missing" in capsys.readouterr().err


def test_words_of_all_clips_where_a_run_rendered_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    home, definition = Home(tmp_path), tmp_path / "small.yaml"
    whole = (data_folder("datasets") / "shapes" / "dataset.yaml").read_text(encoding="utf-8")
    definition.write_text(whole.replace("[1000, 100, 300]", "[6, 2, 4]"), encoding="utf-8")
    words = ["methods=glrg:long", f"dataset={definition}", "subset=3/1/1", "model.width=8", "train.epochs=1"]
    prepare(dataset(str(definition)), home, (3, 1, 1), {"frames"})
    (cell,) = cells(parse(words), home)
    run_cell(cell.config, str(home.root))
    assert (
        main(["features", "extract", f"dataset={definition}", "stream=words", f"checkpoint={cell.folder(home)}"]) == 0
    )
    for stream in ("frames", "words"):
        with Cache(home.cache / "shapes" / f"{stream}.h5") as cache:
            assert len(cache) == 12, stream
