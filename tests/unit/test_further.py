"""Metrics beside the ranked ones: built in, and brought by packages; kept beside records, shown on pages, never ranked."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from record_factory import put_scored

from bench import BenchError
from bench.cli.main import main
from bench.evaluation.diversity import distinct1, distinct2, vocabulary
from bench.evaluation.further import Captioned, Measured, find, measure, places
from bench.features.backends import need_open_clip
from bench.features.video import choose_frames
from bench.home import Home
from bench.records.further import FURTHER, add_further, read_further
from bench.reports import leaderboard
from bench.shapes import render_clip
from bench.shapes.__main__ import film

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
GIVEN = Captioned(
    {"a": "a dog runs", "b": "a dog runs", "c": "a cat"},
    {"a": ["a dog"], "b": ["a dog"], "c": ["a cat"]},
    lambda texts: [text.split() for text in texts],
)


def test_distinct_n_grams_and_words_counted_by_hand() -> None:
    assert distinct1(GIVEN).value == pytest.approx(100 * 4 / 8)  # a, dog, runs, cat of 8 words
    assert distinct2(GIVEN).value == pytest.approx(100 * 3 / 5)  # a dog, dog runs, a cat of 5 pairs
    assert vocabulary(GIVEN).value == 4
    assert len({metric(GIVEN).signature for metric in (distinct1, distinct2, vocabulary)}) == 3
    empty = Captioned({"a": ""}, {}, GIVEN.tokenize)
    assert [metric(empty).value for metric in (distinct1, distinct2, vocabulary)] == [0, 0, 0]


def test_drawn_captions_are_scored_as_coco_scores_them() -> None:
    from pycocoevalcap.cider.cider import Cider

    references = {"a": ["a dog runs fast", "the dog runs"], "b": ["a cat sleeps here"], "c": ["two men cook some rice"]}
    sets = [
        {"c": "two men cook", "a": "a dog runs", "b": ""},
        {"c": "a dog", "a": "the dog runs fast", "b": "a cat sleeps here"},
    ]
    asked: list[int] = []

    def draw(count: int) -> list[dict[str, str]]:
        asked.append(count)
        return sets

    given = replace(GIVEN, references=references, draw=draw)
    found = measure("drawn:2", given)
    theirs = [Cider().compute_score(references, {clip: [one[clip]] for clip in references})[0] for one in sets]
    assert found.value == pytest.approx(100 * sum(theirs) / 2) and 0 < theirs[0] < theirs[1]
    assert "|drawn:2|" in found.signature and measure("drawn", given).signature != found.signature
    assert asked == [2, 5]
    for wrong in ("drawn:0", "drawn:x", "drawn:101", "drawn:-1"):
        with pytest.raises(BenchError, match="how many captions are drawn for each clip, 1 to 100"):
            measure(wrong, given)
    with pytest.raises(BenchError, match="no trained method behind them"):
        measure("drawn", GIVEN)
    with pytest.raises(BenchError, match="2 clips have none on this machine"):
        measure("drawn", replace(given, references={"a": ["a dog"]}))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of the documentation, as pip would have installed it."""
    found = dict(re.findall(r"<!-- plugin: (\S+) -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S))
    folder = tmp_path / "site"
    told = folder / "more_metrics-0.1.0.dist-info"
    told.mkdir(parents=True)
    (folder / "more_metrics.py").write_text(found["more_metrics.py"])
    points = found["pyproject.toml"].partition('[project.entry-points."bench.metrics"]\n')[2].replace('"', "")
    (told / "entry_points.txt").write_text(f"[bench.metrics]\n{points}broken = no_such_module:metric\n")
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: more-metrics\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("more_metrics", None)


def test_the_package_of_the_documentation_is_found_and_counts(package: Path) -> None:
    assert places()["words"] == ("more_metrics:words", "more-metrics")
    found = measure("words", GIVEN)
    assert (found.value, found.clips["c"]) == (pytest.approx(8 / 3), 2)


def test_what_a_package_does_wrong_is_a_sentence(package: Path) -> None:
    with pytest.raises(BenchError, match=r'unknown metric "wrds".*did you mean "words"'):
        find("wrds")
    with pytest.raises(
        BenchError, match="broken of the package more-metrics cannot be used: its import raises ModuleNotFound"
    ):
        find("broken")
    if "bert_score" not in sys.modules:
        with pytest.raises(
            BenchError, match="metric bertscore raises ModuleNotFoundError: No module named 'bert_score'"
        ):
            measure("bertscore", GIVEN)
    with pytest.raises(BenchError, match="compares with references, which are not on this machine"):
        measure("spice", Captioned(GIVEN.captions, {}, GIVEN.tokenize))
    module = sys.modules["more_metrics"]
    for wrong in (3.0, Measured(float("nan"), "x"), Measured(1.0, " ")):
        module.words = lambda given, wrong=wrong: wrong  # type: ignore[attr-defined]
        with pytest.raises(BenchError, match="it must give a Measured with a finite value and a signature"):
            measure("words", GIVEN)


def test_scores_are_kept_beside_the_record_and_shown_but_not_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    for method, quality in (("salstm", 30.0), ("mplstm", 12.0)):
        put_scored(home.results, [quality + number for number in range(6)], ["a dog", "a cat runs"] * 3, method=method)
    leaderboard.write(home)
    page = home.leaderboards / "toy.md"
    before = page.read_text(encoding="utf-8")
    assert main(["metrics", "salstm", "dataset=toy", "metrics=words,distinct1"]) == 0
    assert "2.50" in capsys.readouterr().out
    after = page.read_text(encoding="utf-8")
    assert "### Further metrics of table 1" in after and "2.50 (1)" in after and "26.67 (1)" in after
    assert before.partition("### Cost and records")[0] == after.partition("### Further metrics")[0]
    (folder,) = [path.parent for path in home.results.rglob(FURTHER)]
    assert read_further(folder).keys() == {"words", "distinct1"}
    add_further(folder, {"more": {"value": 1.0, "signature": "more"}})
    assert read_further(folder)["words"]["value"] == 2.5
    (folder / "predictions.jsonl").write_text('{"clip": "other", "caption": "x"}\n')
    assert read_further(folder) == {}
    (folder / FURTHER).write_text("[]")
    assert read_further(folder) == {}


def test_the_command_names_what_there_is(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    said = capsys.readouterr().out
    assert "distinct2" in said and "more-metrics" in said
    assert main(["metrics", "json=true"]) == 0
    assert {"metric": "words", "package": "more-metrics", "place": "more_metrics:words"} in json.loads(
        capsys.readouterr().out
    )
    assert main(["metrics", "dataset=shapes", "metrics=wrds"]) == 2
    assert main(["metrics", "dataset=shapes"]) == 2 and main(["metrics", "distinct1"]) == 2
    assert "say what is to be counted, metrics=NAME,..; there are " in capsys.readouterr().err
    assert main(["metrics", "dataset=nowhere", "metrics=words"]) == 2
    assert 'unknown data set "nowhere"' in capsys.readouterr().err
    assert main(["metrics", "metrics=words"]) == 2
    assert "name a data set" in capsys.readouterr().err


def test_clipscore_is_its_equation_on_frames_and_captions_with_random_weights(tmp_path: Path) -> None:
    """The real architecture with random weights, which say nothing of captions: against the networks called by hand."""
    pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')
    open_clip = _open_clip()
    paths = {clip: tmp_path / f"{clip}.mkv" for clip in ("shape0001", "shape0002")}
    for path in paths.values():
        film(path)
    given = Captioned(
        {"shape0001": "a red square", "shape0002": "x"},
        {},
        GIVEN.tokenize,
        lambda: {c: (p, None) for c, p in paths.items()},
    )
    name = "clipscore:ViT-S-32-alt:random"
    found = measure(name, given)
    assert "model:ViT-S-32-alt|weights:random" in found.signature
    torch.manual_seed(0)
    network, _, prepare = open_clip.create_model_and_transforms("ViT-S-32-alt")
    network.eval()
    tokens = open_clip.get_tokenizer("ViT-S-32-alt")(["A photo depicts a red square"])
    frames = [render_clip("shape0001")[n] for n in choose_frames(20, 8)]
    with torch.inference_mode():
        text = torch.nn.functional.normalize(network.encode_text(tokens), dim=-1)
        seen = network.encode_image(torch.stack([prepare(Image.fromarray(one)) for one in frames]))
        cosines = (torch.nn.functional.normalize(seen, dim=-1) @ text.T)[:, 0]
    assert found.clips["shape0001"] == pytest.approx(250 * float(cosines.clamp(min=0).mean()), abs=1.0)
    assert found.value == pytest.approx(sum(found.clips.values()) / 2)
    with pytest.raises(BenchError, match=r"clipscore looks at the videos, and 1 clip of 1 have none here \(a\)"):
        measure(name, Captioned({"a": "x"}, {}, GIVEN.tokenize))
    with pytest.raises(BenchError, match='unknown encoder "clip:ViT-S"'):
        measure("clipscore:ViT-S", given)
    with pytest.raises(BenchError, match=r"gone\.safetensors cannot be read"):
        measure("clipscore:ViT-S-32-alt:gone.safetensors", given)
    with pytest.raises(BenchError, match="ViT-S-32-alt has no weights to download"):
        measure("clipscore:ViT-S-32-alt", given)


def _open_clip() -> Any:
    need_open_clip("clipscore")
    return pytest.importorskip("open_clip", reason='needs pip install "captionbench[extract]"')
