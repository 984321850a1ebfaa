"""Checkpoints of a real cell: they caption as the cell did, and what does not belong to them is refused with both values."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_world import World
from torch import Tensor

import bench
from bench import BenchError
from bench.cell import checkpoint as checkpoints
from bench.cell.checkpoint import CHECKPOINT, load
from bench.cell.fit import Trainer, run_cell
from bench.cell.inputs import gather
from bench.cell.job import Job, train
from bench.conformance.workplace import write_corpus
from bench.declare.card import Setting
from bench.declare.registry import dataset, method_digest
from bench.method import SPECIAL, Method, Vocabulary
from bench.plan.cells import ENGINE, Cell, cells
from bench.plan.request import parse
from bench.records.curves import CURVES
from bench.records.store import PREDICTIONS, RECORD, read_predictions, read_record
from bench.run.prepare import prepare

METHODS = Path(__file__).resolve().parents[2] / "methods"
Change = Callable[[dict[str, Tensor], dict[str, str]], None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The small world with a real method in its own folder: its code can be changed here."""
    with pytest.MonkeyPatch.context() as patch:
        world = World(tmp_path_factory.mktemp("world"), patch)
        for name in ("mplstm", "salstm"):
            shutil.copytree(METHODS / name, world.methods / name, ignore=shutil.ignore_patterns("__pycache__"))
        yield world


@pytest.fixture(scope="module")
def cell(world: World) -> Cell:
    """A finished cell of a tiny corpus."""
    definition = write_corpus(world.home.root, ["frames"])
    prepare(dataset(str(definition)), world.home)
    words = ["methods=mplstm", f"dataset={definition}", "model.width=8", "model.embedding=6", "train.epochs=1"]
    (found,) = cells(parse(words), world.home)
    run_cell(found.config, str(world.home.root))
    return found


@pytest.fixture
def checkpoint(world: World, cell: Cell) -> Path:
    return cell.folder(world.home) / CHECKPOINT


@pytest.fixture
def changed(checkpoint: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """The checkpoint once more, with its weights and metadata changed."""

    def write(change: Change) -> Path:
        with safe_open(checkpoint, framework="pt") as file:
            state, metadata = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118
        change(state, metadata)
        save_file(state, tmp_path / CHECKPOINT, metadata=metadata)
        return tmp_path / CHECKPOINT

    return write


def declare(**values: object) -> Change:
    """Other values in the declaration."""
    return lambda state, metadata: metadata.update(config=json.dumps({**json.loads(metadata["config"]), **values}))


def refusal(path: Path, **asked: object) -> str:
    with pytest.raises(BenchError) as caught:
        load(path, **asked)  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    return sentence


def test_a_loaded_method_captions_as_its_cell_did(world: World, cell: Cell, checkpoint: Path) -> None:
    inputs = gather(cell.config, world.home, lambda captions: None)
    found = load(checkpoint, method="mplstm:xe", vocabulary=inputs.vocabulary)
    said = {one.clip: one.text for one in found.method.decode(inputs.target, found.search)}
    assert said == read_predictions(checkpoint.with_name(PREDICTIONS), inputs.target.ids)
    assert found.config == cell.config
    assert found.streams == dict(inputs.target.streams)
    vocabulary = read_record(checkpoint.with_name("record.json")).vocabulary
    assert vocabulary is not None and found.vocabulary.digest == vocabulary.sha256
    assert load(str(checkpoint), method="mplstm").vocabulary == found.vocabulary


def test_bench_load_is_this_and_import_bench_stays_light() -> None:
    assert bench.load is load
    with pytest.raises(AttributeError, match="'bench' has no attribute 'lode'"):
        bench.lode  # noqa: B018
    code = (
        "import sys, bench\n"
        "assert not {'torch', 'numpy', 'pydantic', 'safetensors'} & sys.modules.keys(), 'import bench is heavy'\n"
        "bench.load\n"
        "assert 'torch' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_another_method_or_variant(checkpoint: Path) -> None:
    assert "is a checkpoint of mplstm:xe, not of salstm" in refusal(checkpoint, method="salstm")
    assert "is a checkpoint of mplstm:xe, not of mplstm:rl" in refusal(checkpoint, method="mplstm:rl")


def test_another_vocabulary(checkpoint: Path) -> None:
    mine = load(checkpoint).vocabulary
    more = Vocabulary((*mine.words, "zebra"))
    turned = Vocabulary((*SPECIAL, *reversed(mine.words[4:])))
    for other in (more, turned):
        sentence = refusal(checkpoint, vocabulary=other)
        assert f"{len(mine)} words (digest {mine.digest[:12]})" in sentence
        assert f"{len(other)} (digest {other.digest[:12]})" in sentence


def test_another_version_of_the_method(world: World, checkpoint: Path) -> None:
    code = world.methods / "mplstm" / "__init__.py"
    before, then = code.read_text(encoding="utf-8"), method_digest(code.parent)
    try:
        code.write_text(before + "\n# a comment is no other version\n", encoding="utf-8")
        load(checkpoint)
        code.write_text(before + "\nLAYERS = 3\n", encoding="utf-8")
        sentence = refusal(checkpoint)
        assert f"another code of mplstm ({then[:12]})" in sentence
        assert f"({method_digest(code.parent)[:12]})" in sentence
        assert "train it again with bench run" in sentence
    finally:
        code.write_text(before, encoding="utf-8")


def test_a_cell_that_waited_while_captions_or_code_changed_is_not_trained_under_its_old_key(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Cell({**cell.config, "seed": 7})
    code, captions = world.methods / "mplstm" / "__init__.py", world.home.root / "captions.jsonl"

    def told() -> str:
        ended = train(Job.of(waiting, world.home), capture=False)
        assert ended.state == "failed" and not (waiting.folder(world.home) / RECORD).exists()
        assert ended.message.endswith("; run the same command again")
        return ended.message

    for path, more, what in (
        (code, "\nLAYERS = 3\n", "the code of mplstm"),
        (captions, "\n", "the captions or the split"),
    ):
        before = path.read_text(encoding="utf-8")
        path.write_text(before + more, encoding="utf-8")
        assert told().startswith(what)
        path.write_text(before, encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr("bench.cell.inputs.ENGINE", ENGINE + 1)
        assert told().startswith(f"the engine changed since this cell was planned ({ENGINE + 1} instead of {ENGINE})")
    assert train(Job.of(waiting, world.home), capture=False).state == "unscored"


def test_a_record_names_the_code_that_its_training_began_with(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, train_on = ["a" * 40], Trainer.train

    def while_somebody_commits(trainer: Trainer, until: int | None = None) -> Method | None:
        commit[0] = "b" * 40
        return train_on(trainer, until)

    monkeypatch.setattr("bench.cell.provenance.git_state", lambda _: (commit[0], False))
    monkeypatch.setattr(Trainer, "train", while_somebody_commits)
    own = Cell({**cell.config, "seed": 8})
    run_cell(own.config, str(world.home.root))
    made = read_record(own.folder(world.home) / RECORD).provenance
    assert made is not None and made.git == "a" * 40 and made.started <= made.finished


def test_a_method_that_reports_nothing_has_a_record_and_curves_without_rows(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that looks for the nearest training clip."""
    build = checkpoints.build

    def without_training(*given: Any) -> Method:
        method = build(*given)
        monkeypatch.setattr(type(method), "fit", lambda *_: None)
        return method

    monkeypatch.setattr(checkpoints, "build", without_training)
    own = Cell({**cell.config, "seed": 9})
    assert train(Job.of(own, world.home), capture=False).state == "unscored"
    assert (own.folder(world.home) / CURVES).read_text() == "phase,epoch,captions,seconds,name,value\n"


def test_another_engine(changed: Callable[[Change], Path]) -> None:
    assert f"another engine (1) than this version's ({ENGINE})" in refusal(changed(declare(engine=1)))


def test_a_method_that_is_not_here(changed: Callable[[Change], Path]) -> None:
    with pytest.raises(BenchError, match=r'unknown method "mplsm"; allowed: .*did you mean "mplstm"'):
        load(changed(declare(method="mplsm")))


def test_weights_of_other_shapes_and_names(changed: Callable[[Change], Path]) -> None:
    def wide(state: dict[str, Tensor], metadata: dict[str, str]) -> None:
        config = json.loads(metadata["config"])
        config["settings"]["width"] = 9
        metadata["config"] = json.dumps(config)

    sentence = refusal(changed(wide))
    assert "do not fit mplstm:xe as it is built now" in sentence
    assert "(32, 8) instead of (36, 9)" in sentence

    def renamed(state: dict[str, Tensor], metadata: dict[str, str]) -> None:
        state["strange.weight"] = state.pop(sorted(state)[0])

    sentence = refusal(changed(renamed))
    assert "only the checkpoint has strange.weight; only the method has " in sentence

    def many(state: dict[str, Tensor], metadata: dict[str, str]) -> None:
        state |= {f"more.{number}": torch.zeros(1) for number in range(7)}

    assert "only the checkpoint has more.0, more.1, more.2, more.3, more.4 and 2 more" in refusal(changed(many))


def test_a_file_that_is_absent_or_damaged(checkpoint: Path, tmp_path: Path) -> None:
    assert "there is no checkpoint" in refusal(tmp_path / "nothing.safetensors")
    assert "there is no checkpoint" in refusal(tmp_path)
    whole = checkpoint.read_bytes()
    for size in (0, 5, 400, len(whole) - 1):
        cut = tmp_path / f"{size}.safetensors"
        cut.write_bytes(whole[:size])
        assert "is no whole checkpoint" in refusal(cut)
    text = tmp_path / "text.safetensors"
    text.write_text("not at all" * 9)
    assert "is no whole checkpoint" in refusal(text)
    if os.geteuid() != 0:
        text.chmod(0)
        assert "is no whole checkpoint" in refusal(text)


@pytest.mark.parametrize("part", ["config", "vocabulary", "streams"])
def test_metadata_that_lacks_a_part_or_cannot_be_read(changed: Callable[[Change], Path], part: str) -> None:
    assert f"its metadata lacks {part}" in refusal(changed(lambda state, metadata: metadata.pop(part) and None))
    for text in ("{", "[1]", "null", '{"a": 1}'):
        path = changed(lambda state, metadata, text=text: metadata.update({part: text}))  # type: ignore[misc]
        assert "cannot be read" in refusal(path)


def test_weights_without_metadata(checkpoint: Path, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / CHECKPOINT)
    assert "its metadata lacks config, vocabulary, streams" in refusal(tmp_path / CHECKPOINT)


def test_a_method_is_built_for_the_streams_of_its_training(changed: Callable[[Change], Path], checkpoint: Path) -> None:
    """What a data set offers now does not matter: the metadata tells the shapes."""
    before = load(checkpoint).streams["frames"]
    told = {"frames": {"name": "frames", "shape": [6, 13], "timed": True, "fingerprint": before.fingerprint}}
    sentence = refusal(changed(lambda state, metadata: metadata.update(streams=json.dumps(told))))
    assert "(12,) instead of (13,)" in sentence


def test_a_setting_may_be_larger_than_its_weights_where_its_card_says_so(
    changed: Callable[[Change], Path], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count of steps is none of numbers; any other that is larger than the file is damage, and nothing is built of it."""
    card = checkpoints.card_of("mplstm")
    steps = Setting.model_validate({"type": "int", "min": 1, "default": 10**10, "help": "steps"})
    more = card.model_copy(update={"settings": {**card.settings, "steps": steps}})
    settings = load(checkpoint).config["settings"]
    monkeypatch.setattr(checkpoints, "card_of", lambda _: more)
    assert load(changed(declare(settings={**settings, "steps": 10**10}))).config["settings"]["steps"] == 10**10
    for name in ("steps", "width"):
        assert "describe no method" in refusal(changed(declare(settings={**settings, name: 10**11})))


def test_nothing_that_is_given_away_names_a_place_of_this_machine(world: World, cell: Cell, checkpoint: Path) -> None:
    for path in checkpoint.parent.iterdir():
        if path.is_file():
            assert str(world.root).encode() not in path.read_bytes(), path.name
    here = load(checkpoint).config["dataset_path"]
    assert here == cell.config["dataset_path"], "on this machine the data set is found again"
    alone = world.root / "given" / CHECKPOINT
    alone.parent.mkdir()
    shutil.copy(checkpoint, alone)
    assert "dataset_path" not in load(alone).config


@pytest.mark.parametrize(
    "damaged",
    [b"", b"junk", b"PK\x03\x04 cut off", pickle.dumps({"method": {}}), "no harness"],
    ids=["empty", "junk", "zip", "pickle", "part"],
)
def test_a_damaged_resume_state_is_set_aside_and_training_begins_anew(
    world: World, cell: Cell, damaged: bytes | str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cell.folder(world.home)
    before = read_record(folder / "record.json").weights_sha256
    (folder / "record.json").unlink()
    if isinstance(damaged, str):
        torch.save({"method": {}, "harness": {"captions": 5}}, folder / "work" / "resume.pt")
        damaged = (folder / "work" / "resume.pt").read_bytes()
    else:
        (folder / "work" / "resume.pt").write_bytes(damaged)
    run_cell(cell.config, str(world.home.root))
    record = read_record(folder / "record.json")
    assert record.weights_sha256 == before
    assert record.ledger is not None and record.ledger.captions == record.ledger.budget
    assert (folder / "work" / "resume.damaged").read_bytes() == damaged
    assert "is damaged" in capsys.readouterr().out
    assert not (folder / "work" / "resume.pt").exists()
