"""Figures of cells that were really trained, from their records, their checkpoints and the clips they saw."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from drawn import Drawn, border_colours
from front import bench

from bench.cell.checkpoint import CHECKPOINT
from bench.cell.replay import last_states, load
from bench.cli.main import main
from bench.conformance.workplace import write_corpus
from bench.declare.registry import dataset
from bench.features.cache import CacheWriter
from bench.figures import FIGURES
from bench.figures.canvas import RED, YELLOW
from bench.figures.drawing import Drawing, Finished
from bench.home import Home
from bench.nn.decoding import teacher_forcing
from bench.pages.document import Document, Image
from bench.pages.markdown import to_markdown
from bench.plan.cells import cells
from bench.plan.request import parse
from bench.records.store import all_records, cell_folder
from bench.reproduction.tracing import TRACES
from bench.run.prepare import prepare
from bench.run.runner import run
from bench.shapes import render_clip
from bench.shapes.streams import measure, region_boxes

TRAIN, VAL, TEST = 12, 3, 6
OPTIONS = {"seed": 3, "size": [TRAIN, VAL, TEST]}
DATASET = {
    "name": "tinyshapes",
    "captions": [{"format": "shapes"}],
    "splits": "official",
    "streams": {
        name: {} for name in ("frames", "spatial", "motion", "regions", "audio", "actions", "objects", "pixels")
    },
    "options": OPTIONS,
    "model": {"width": 24, "embedding": 24, "attention": 16},
    "train": {"epochs": 3, "captions": 24, "learning_rate": 0.02},
}
RUNS = (
    ["methods=salstm,recnet:local,vre:full,hail:ha_il,glrg:dxe,etenet:step1"],
    ["methods=etenet:step2", "train.epochs=2"],
    ["methods=recnet:local", "recnet.lambda=0.5"],
)
# Hardly trained, a model ends its captions at once; ranked by the mean of their words longer ones win.
SEARCH = ["search.length_rule=mean", "search.max_words=8", "search.beam=2"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    place = tmp_path_factory.mktemp("figures")
    (place / "dataset.yaml").write_text(yaml.safe_dump(DATASET), encoding="utf-8")
    common = [f"dataset={place / 'dataset.yaml'}", "executor=inline", "mlflow=off", *SEARCH]
    home = Home(place)
    prepare(dataset(str(place / "dataset.yaml")), home)
    for words in RUNS:
        spec = parse([*words, *common])
        assert run([cell for cell in cells(spec, home) if reads_all(cell.config)], home, spec) == 0
    return home


def reads_all(config: dict[str, Any]) -> bool:
    """Whether a cell is no twin that was left with the frames alone."""
    wanted = {"vre": "spatial", "hail": "regions", "glrg": "actions"}.get(config["method"], "frames")
    return wanted in config["streams"]


def named(home: Home) -> dict[str, Finished]:
    """Every cell by `method:variant` and, for RecNet, the weight of its second loss."""
    found = {}
    for record in all_records(home.results):
        weight = f" {record.config['settings']['reconstruction_weight']:g}" if record.method == "recnet" else ""
        name = f"{record.method}:{record.variant}{weight}"
        found[name] = Finished(name, record.seed, record, cell_folder(home.results, record))
    return found


class Page:
    """A section of a page, with the pictures of its figures by name."""

    def __init__(self, home: Home, data: Path) -> None:
        self.home, self.data = home, data
        self.pictures: dict[str, str] = {}

    def drawing(self, cells: Sequence[Finished], arguments: dict[str, Any], **more: Any) -> Drawing:
        given = ("paper/fig1", "tinyshapes", "test", None, tuple(cells), (), arguments, self.data, "pictures")
        return Drawing(*given, **more)

    def draw(self, figure: str, cells: Sequence[Finished], trace: bool = True, **arguments: Any) -> list[str]:
        """What the figure says, without its pictures."""
        drawing = self.drawing(cells, arguments)
        if trace and figure in TRACES:
            TRACES[figure](drawing, self.home)
        document = Document("A figure", tuple(FIGURES[figure](drawing)))
        for image in document.images():
            name = image.path.removeprefix("pictures/")
            assert name not in self.pictures
            self.pictures[name] = image.picture.svg
        return [to_markdown(Document("", (part,))) for part in document.parts if not isinstance(part, Image)]

    def drawn(self, name: str) -> Drawn:
        return Drawn(self.pictures[f"{name}.svg"])


@pytest.fixture
def page(home: Home, tmp_path: Path) -> Page:
    return Page(home, tmp_path / "data")


def facts(page: Page, figure: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((page.data / f"{figure}.json").read_text())
    return found


def predictions(cell: Finished) -> dict[str, str]:
    lines = (cell.folder / "predictions.jsonl").read_text().splitlines()
    return {line["clip"]: line["caption"] for line in map(json.loads, lines)}


def test_captions_drawn_by_every_method_are_scored_beside_its_record(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_HOME", str(home.root))
    words = ["metrics", f"dataset={home.root / 'dataset.yaml'}", "metrics=drawn:3", "json=true"]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert len(json.loads(first)) == len(named(home))
    assert all("|drawn:3|" in one["scores"]["drawn:3"]["signature"] for one in json.loads(first))
    assert main(words) == 0
    assert capsys.readouterr().out == first
    cell = named(home)["salstm:xe"]
    sets = load(cell.folder, home).draw(2)
    assert sets[0] != sets[1] and all(one.keys() == predictions(cell).keys() for one in sets)
    assert not any("<" in text for one in sets for text in one.values())
    (cell.folder / CHECKPOINT).rename(cell.folder / "away")
    try:
        assert main(words) == 0
        left = capsys.readouterr()
        assert main([*words, cell.record.key]) == 2
    finally:
        (cell.folder / "away").rename(cell.folder / CHECKPOINT)
    assert [one["key"] for one in json.loads(left.out)] == [
        one["key"] for one in json.loads(first) if one["key"] != cell.record.key
    ]
    assert f"1 record left out ({cell.record.key}): " in " ".join(left.err.split())
    assert "the command that made the cell trains it anew" in " ".join(capsys.readouterr().err.split())


CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "lambda_curves": (["salstm:xe", "recnet:local 0.1", "recnet:local 0.5"], {}),
    "training_curves": (["salstm:xe", "recnet:local 0.1"], {}),
    "reward_curves": (["vre:full"], {}),
    "bars": (["salstm:xe", "vre:full"], {"metrics": ["cider", "bleu4"]}),
    "grid": (["hail:ha_il"], {}),
    "step_memory": (["etenet:step1", "etenet:step2"], {"sizes": [4, 8, 16], "piece": 4}),
    "hidden_states": (["salstm:xe", "recnet:local 0.1"], {"count": 10}),
    "qualitative": (["salstm:xe", "recnet:local 0.1"], {"clips": 2}),
    "key_frames": (["vre:full"], {"clips": 2}),
    "spatial_masks": (["vre:full"], {"clips": TEST}),  # hardly trained, it says nothing of some
    "region_attention": (["salstm:xe", "hail:ha_il"], {"clips": 2, "frames": 4}),
    "frame_weights": (["etenet:step1"], {}),
    "top_words": (["glrg:dxe"], {"clips": 1, "top": 5}),
    "word_frequency": (["salstm:xe"], {"words": 7}),
}


def test_every_figure_is_tried() -> None:
    assert set(CASES) == set(FIGURES) and set(TRACES) < set(FIGURES)


@pytest.mark.parametrize("figure", CASES)
def test_figures_are_the_same_bytes_twice_with_traces_made_anew(figure: str, home: Home, tmp_path: Path) -> None:
    cells, arguments = CASES[figure]
    found = named(home)
    pages = [Page(home, tmp_path / name) for name in ("one", "two")]
    lines = [page.draw(figure, [found[name] for name in cells], **arguments) for page in pages]
    assert lines[0] == lines[1] and pages[0].pictures == pages[1].pictures
    assert pages[0].pictures, lines[0]
    files = [{path.name: path.read_bytes() for path in page.data.glob("*")} for page in pages]
    assert files[0] == files[1]
    assert not any(str(home.root).encode() in content for content in files[0].values())
    assert not any(str(home.root) in text for text in [*lines[0], *pages[0].pictures.values()])


def test_lambda_curve_has_a_point_for_each_weight(page: Page) -> None:
    cells = named(page.home)
    page.draw("lambda_curves", [cells[name] for name in CASES["lambda_curves"][0]])
    drawn = page.drawn("lambda_curves_bleu4")
    assert [drawn.marks(name) for name in drawn.ids("curve-")] == [2]
    assert {"recnet:local", "salstm:xe"} <= set(drawn.texts)


def test_training_curves_hold_every_epoch_and_the_switch(page: Page) -> None:
    cell = named(page.home)["recnet:local 0.1"]
    page.draw("training_curves", [cell])
    drawn = page.drawn("training_curves0")
    rows = (cell.folder / "curves.csv").read_text().splitlines()
    for phase, name in enumerate(("base", "reconstruct")):
        epochs = sum(row.startswith(f"{name},") and ",cross_entropy," in row for row in rows)
        assert drawn.marks(f"cross_entropy-{phase}") == epochs > 0
    assert drawn.ids("switch") == ["switch-1"]


def test_hidden_states_are_those_at_the_end_mark(page: Page) -> None:
    """A state read again alone, word by word, is the one of the batch; and there is a point for every caption."""
    cell = named(page.home)["recnet:local 0.1"]
    trained = load(cell.folder, page.home)
    clips = trained.inputs.train.only(trained.inputs.train.ids[:4])
    captions = [clips.references(clip)[number].words for number, clip in enumerate(clips.ids)]
    (batch,) = clips.in_order(4)
    states = last_states(trained.captioner, batch, captions)
    for row, clip in enumerate(clips.ids):
        (alone,) = clips.only([clip]).in_order(1)
        assert np.allclose(last_states(trained.captioner, alone, [captions[row]])[0], states[row], atol=1e-5)
        (read,) = clips.only([clip]).epoch(0, 99, 99)
        spoken = [tuple(words[1:length]) for words, length in zip(read.words_BW.tolist(), read.lengths_B, strict=True)]
        hidden_BWH = teacher_forcing(trained.captioner, read).hidden_BWH.detach().numpy()
        assert np.allclose(hidden_BWH[spoken.index(captions[row]), len(captions[row])], states[row], atol=1e-5)
    assert not np.allclose(states[0], states[1])
    page.draw("hidden_states", [cell], count=10)
    drawn = page.drawn("hidden_states")
    assert (drawn.marks("training-0"), drawn.marks("inference-0")) == (10, 10)
    assert facts(page, "hidden_states")["facts"]["perplexity"] == pytest.approx(19 / 3, abs=1e-3)


def test_strips_quote_what_was_predicted(page: Page) -> None:
    cells = [named(page.home)[name] for name in CASES["qualitative"][0]]
    page.draw("qualitative", cells, clips=2)
    clips = facts(page, "qualitative")["clips"]
    assert len(clips) == len(page.pictures) == 2
    for number, shown in enumerate(clips):
        texts = page.drawn(f"qualitative{number}").texts
        for cell in cells:
            said = predictions(cell)[shown["clip"]]
            assert cell.name in texts and (said.split() or ["(says"])[0] in " ".join(texts)
            assert shown["by_cell"][cell.name]["caption"] == said
        assert len(page.drawn(f"qualitative{number}").images()) == 6
        frame = page.drawn(f"qualitative{number}").images()[0].astype(int)
        assert np.abs(frame - render_clip(shown["clip"], OPTIONS)[0]).max() <= 4, (
            "the clip's own pixels, five bits deep"
        )


def test_key_frames_are_the_models(page: Page) -> None:
    cell = named(page.home)["vre:full"]
    lines = page.draw("key_frames", [cell], clips=2)
    trained = load(cell.folder, page.home)
    captions = {caption.clip: caption for caption in trained.decode(trained.inputs.target)}
    found = facts(page, "key_frames")
    assert found["facts"]["keys"] == [captions[clip].traces["key_frame"] for clip in trained.inputs.target.ids]
    assert {clip: caption.text for clip, caption in captions.items()} == predictions(cell), (
        "the same captions as when it was run"
    )
    for number, shown in enumerate(found["clips"]):
        key = captions[shown["clip"]].traces["key_frame"]
        drawn = page.drawn(f"key_frames{number}")
        wanted = {"border-10": YELLOW, f"border-{key}": RED}
        assert border_colours(drawn) == wanted
        assert {"step 1", "step 2", "reference"} <= set(drawn.texts)
        assert len(drawn.ids("weight-")) == 20
    assert any("The key frame left the middle in" in line for line in lines)


def test_spatial_masks_have_a_panel_for_each_word(page: Page) -> None:
    page.draw("spatial_masks", [named(page.home)["vre:full"]], clips=TEST)
    clips = [clip for clip in facts(page, "spatial_masks")["clips"] if clip["by_cell"]["vre:full"]["words"]]
    assert clips
    for number, shown in enumerate(facts(page, "spatial_masks")["clips"]):
        told = shown["by_cell"]["vre:full"]
        if told["words"]:
            assert len(told["spatial_attention"]) == len(told["words"]) and len(told["spatial_attention"][0]) == 16
            assert len(page.drawn(f"spatial_masks{number}").images()) == 1 + min(len(told["words"]), 13)


def test_region_attention_is_shown_where_the_regions_are(page: Page) -> None:
    cells = [named(page.home)[name] for name in ("salstm:xe", "hail:ha_il")]
    page.draw("region_attention", cells, clips=1, frames=4)
    (shown,) = facts(page, "region_attention")["clips"]
    weights = np.array(shown["by_cell"]["hail:ha_il"]["region_attention"])
    assert weights.shape == (20, 8) and np.allclose(weights.sum(1), 1, atol=1e-3)
    drawn = page.drawn("region_attention0")
    assert len(drawn.images()) == 4 and {"salstm:xe", "hail:ha_il", "reference"} <= set(drawn.texts)
    boxes = region_boxes(render_clip(shown["clip"], OPTIONS))
    assert shown["boxes"][0] == boxes[shown["places"][0]].tolist()


def test_boxes_of_regions_hold_the_colours_that_their_features_tell() -> None:
    """The mean colour is the 101st to 103rd feature: the sum over the patch."""
    pixels = render_clip("shape0001", OPTIONS)
    told = measure(pixels)["regions"][..., 100:103]
    inside = 0
    for frame, boxes in enumerate(region_boxes(pixels)):
        for region, (left, top, right, bottom) in enumerate(boxes):
            if left >= 0 and top >= 0 and right <= 64 and bottom <= 64:
                inside += 1
                assert (pixels[frame, top:bottom, left:right].sum((0, 1), dtype=int) == told[frame, region]).all()
    assert inside > 20


def test_top_words_are_words_of_the_captions_in_falling_order(page: Page) -> None:
    page.draw("top_words", [named(page.home)["glrg:dxe"]], clips=1, top=5)
    scores = facts(page, "top_words")["clips"][0]["by_cell"]["glrg:dxe"]["scores"]
    assert set(scores) == {"words", "actions", "objects"}
    for entries in scores.values():
        values = [value for _, value in entries]
        assert len(values) == 5 and values == sorted(values, reverse=True)
    assert all(label.isalpha() for label, _ in scores["words"]) and scores["objects"][0][0].startswith("object ")
    assert {label for label, _ in scores["words"]} <= set(page.drawn("top_words0").texts)


def test_word_frequencies_count_the_training_captions(page: Page) -> None:
    page.draw("word_frequency", [named(page.home)["salstm:xe"]], words=3)
    trained = load(named(page.home)["salstm:xe"].folder, page.home)
    train = trained.inputs.train
    every = [token for clip in train.ids for reference in train.references(clip) for token in reference.tokens]
    found = facts(page, "word_frequency")["facts"]
    assert sum(found["tokens"]) == len(every) and len(found["tokens"]) == len(set(every))
    for word, count in found["common"]:
        assert count == sum(any(word in ref.tokens for ref in train.references(clip)) for clip in train.ids)
    assert len(page.drawn("word_frequency").ids("word-")) == 3


def test_memory_of_a_step_grows_with_the_batch_and_not_with_its_pieces(page: Page) -> None:
    """The batch at once holds the more the larger it is; added-up pieces hold what one piece holds; pixels cost more."""
    names, arguments = CASES["step_memory"]
    page.draw("step_memory", [named(page.home)[name] for name in names], **arguments)
    cells = facts(page, "step_memory")["facts"]["cells"]
    for held in cells.values():
        whole, pieces = held["whole"], held["pieces"]
        assert whole == sorted(whole) and whole[-1] > 2 * whole[0]
        assert set(pieces) == {whole[0]}
    assert cells["etenet:step2"]["whole"][0] > cells["etenet:step1"]["whole"][0]
    drawn = page.drawn("step_memory")
    assert [drawn.marks(name) for name in drawn.ids("whole-")] == [3, 3]


def test_frame_weights_are_a_row_for_each_word(page: Page) -> None:
    page.draw("frame_weights", [named(page.home)["etenet:step1"]])
    for number, shown in enumerate(facts(page, "frame_weights")["clips"]):
        told = shown["by_cell"]["etenet:step1"]
        if told["words"]:
            assert np.allclose(np.array(told["attention"]).sum(1), 1, atol=1e-2)
            assert set(told["words"]) <= set(page.drawn(f"frame_weights{number}").texts)


def test_without_checkpoint_the_page_says_what_makes_it(page: Page, tmp_path: Path) -> None:
    cell = named(page.home)["vre:full"]
    moved = tmp_path / "other" / cell.record.key
    shutil.copytree(cell.folder, moved, ignore=shutil.ignore_patterns("checkpoint*", "work"))
    lines = page.draw("key_frames", [replace(cell, folder=moved)])
    assert not page.pictures
    assert any("checkpoint.safetensors is not there" in line and "move" in line for line in lines)
    assert facts(page, "key_frames")["lacking"]
    page.draw("key_frames", [cell])
    assert page.pictures and not facts(page, "key_frames")["lacking"], "made as soon as it can be"
    page.pictures.clear()
    page.draw("key_frames", [replace(cell, folder=moved)])
    assert page.pictures, "and kept when the checkpoint goes"


def test_traces_of_other_cells_are_not_drawn(page: Page) -> None:
    cells = named(page.home)
    page.draw("frame_weights", [cells["etenet:step1"]])
    page.pictures.clear()
    (line,) = page.draw("frame_weights", [replace(cells["salstm:xe"], name="etenet:step1")], trace=False)
    assert "other cells" in line and "bench reproduce paper/fig1" in line and not page.pictures
    (line,) = page.draw("frame_weights", [cells["etenet:step1"]], trace=False, clips=1)
    assert "other cells or clips" in line and not page.pictures, "nor what was asked otherwise"
    (line,) = Page(page.home, page.data / "empty").draw("key_frames", [cells["vre:full"]], trace=False)
    assert "no traces" in line


@pytest.mark.parametrize("figure", ["spatial_masks", "region_attention", "key_frames", "frame_weights", "top_words"])
def test_a_cell_that_has_nothing_to_tell_is_no_error(figure: str, page: Page) -> None:
    cell = named(page.home)["glrg:dxe" if figure != "top_words" else "salstm:xe"]
    lines = page.draw(figure, [cell])
    assert len(lines) == 1 and lines[0].endswith(".") and not page.pictures


def test_no_cells_is_no_error(page: Page) -> None:
    for figure in FIGURES:
        assert page.draw(figure, []), figure
    assert not page.pictures


def test_frames_of_released_clips_are_shown_on_request_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "real")
    home.root.mkdir()
    write_corpus(home.root, ["frames"])
    small = ["model.width=8", "model.embedding=8", "model.attention=8", "train.epochs=1"]
    words = ["run", "methods=salstm", "dataset=dataset.yaml", "executor=inline", "mlflow=off", *small]
    done = bench(home.root, *words)
    assert done.returncode == 0, done.stderr[-800:]
    (cell,) = named(home).values()

    def strip(**arguments: Any) -> Drawn:
        page = Page(home, tmp_path / "data")
        assert page.draw("qualitative", [cell], clips=1, frames=2, **arguments)
        return page.drawn("qualitative0")

    assert "frames of released clips are not published" in " ".join(strip().texts)
    assert "stream=pixels puts them into the cache" in " ".join(strip(real_frames=True).texts)
    clips = sorted(predictions(cell))
    pixels = np.random.default_rng(0).integers(0, 256, (len(clips), 5, 3, 160, 320)).astype(np.uint8)
    with CacheWriter(home.cache / "tiny" / "pixels.h5", "pixels", (5, 3, 160, 320), True, "uint8", clips) as writer:
        for clip, values in zip(clips, pixels, strict=True):
            writer.write(clip, values[:4])
    assert not strip().images(), "cached, and still not asked for"
    page = Page(home, tmp_path / "again")
    page.draw("qualitative", [cell], clips=1, frames=2, real_frames=True)
    (shown,) = facts(page, "qualitative")["clips"]
    assert shown["places"] == [0, 3], "the first and the last of its four frames"
    frame = pixels[clips.index(shown["clip"]), 3].transpose(1, 2, 0).astype(float)
    halved = frame[:159, :318].reshape(53, 3, 106, 3, 3).mean((1, 3))  # 320 pixels make 106: a third is below 128
    assert np.abs(page.drawn("qualitative0").images()[1] - halved).max() <= 4.6
