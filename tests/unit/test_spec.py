"""From a request to cells: what goes into a configuration, when a key changes, which state a cell is in and why."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from small_world import DATASET, PLAIN, TOY, World

from bench import BenchError
from bench.declare.card import MethodCard
from bench.declare.dataset import DatasetDefinition
from bench.declare.registry import find_datasets, find_methods
from bench.declare.settings import GROUPS, Strict
from bench.plan.cells import ENGINE, Cell, cells, requested, settings_of, shared_groups
from bench.plan.request import RunSpec, parse
from bench.plan.states import Planned, plan
from bench.records.schema import cell_key

RECORDS = Path(__file__).resolve().parents[2] / "results"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.add_stream("frames")
    return world


def ask(world: World, *words: str, methods: str = "toy") -> list[Cell]:
    return cells(parse([f"methods={methods}", f"dataset={world.dataset}", *words]), world.home)


def one(world: World, *words: str, methods: str = "toy") -> Cell:
    (cell,) = ask(world, *words, methods=methods)
    return cell


def planned(world: World, *words: str) -> Planned:
    (found,) = plan(parse(["methods=toy", f"dataset={world.dataset}", *words]), world.home)
    return found


class TestCells:
    def test_order_variants_and_seeds(self, world: World) -> None:
        found = ask(world, "seeds=1,0", methods="toy:one,plain,toy:*")
        assert [cell.label for cell in found] == [
            "toy:one seed 1",
            "toy:one seed 0",
            "plain:xe seed 1",
            "plain:xe seed 0",
            "toy:two seed 1",
            "toy:two seed 0",
        ]
        assert len({cell.key for cell in found}) == 6

    def test_a_printed_number_belongs_to_its_papers_lists(self, world: World) -> None:
        world.write(
            "data/dataset.yaml", DATASET.replace("split_variants: {", "split_variants: {toy: {first: [1, 1, 1]}, ")
        )
        assert one(world, "protocol=paper").config["splits"] == "toy"
        assert one(world).config["splits"] == "default"
        assert one(world, "protocol=paper", "splits=other").config["splits"] == "other"

    def test_a_paper_may_print_a_method_on_several_features(self, world: World) -> None:
        world.add_method("toy", TOY.replace("{frames: [28, 6]}", "{frames: [[28, 6], [28, 9]]}"))
        for width in (6, 9):
            world.add_stream("frames", shape=(28, width))
            assert one(world, "protocol=paper").config["streams"]
        world.add_stream("frames", shape=(28, 7))
        with pytest.raises(BenchError, match=r"of shape 28 ?x ?6 or 28 ?x ?9"):
            one(world, "protocol=paper")

    def test_a_label_tells_cells_of_a_sweep_apart(self, world: World) -> None:
        assert one(world, "toy.lambda=0.5").label == "toy:two lambda=0.5 seed 0"
        assert one(world, "toy.weight=0.1").label == "toy:two seed 0", "the default is no change"

    def test_the_default_variant_and_unknown_ones(self, world: World) -> None:
        assert one(world).config["variant"] == "two"
        with pytest.raises(BenchError, match=r'method toy: unknown variant "tow"; allowed: one, two, \*; did you mean'):
            ask(world, methods="toy:tow")

    def test_settings_that_cannot_go_together_are_refused(self, world: World) -> None:
        rule = "impossible: [{settings: {weight: [0.4, 0.5], width: 9}, because: a wide one needs less weight}]\n"
        world.add_method("toy", TOY.replace("default: two", f"{rule}default: two"))
        assert one(world, "toy.weight=0.5").config["settings"]["weight"] == 0.5
        with pytest.raises(BenchError, match=r"toy:two cannot have weight=0.5, width=9: a wide one needs less weight"):
            ask(world, "toy.lambda=0.5", "model.width=9")

    def test_a_configuration_is_plain_json_and_says_everything(self, world: World) -> None:
        config = one(world, "seeds=3", "subset=1/1/1").config
        assert json.loads(json.dumps(config)) == config
        expected: dict[str, Any] = {
            "schema": 1,
            "method": "toy",
            "variant": "two",
            "title": "Toy-two (words from frames)",
            "dataset": "little",
            "dataset_path": str(world.dataset.resolve()),
            "splits": "default",
            "subset": [1, 1, 1],
            "split": "test",
            "protocol": "standard",
            "streams": {"frames": "f" * 64},
            "absent_streams": ["words"],
            "settings": {"weight": 0.1, "mode": "local", "depth": 2, "note": None, "width": 512},
            "phases": {"base": 0.25, "more": 0.75},
            "search": {"beam": 5, "max_words": 30, "length_rule": "none", "clips": 64},
            "text": {"tokenizer": "strip", "min_count": 2, "max_words": 30},
            "seed": 3,
            "engine": ENGINE,
            "threads": 1,
            "device": "auto",
        }
        assert {name: config[name] for name in expected} == expected
        assert config["train"]["epochs"] == 7

    def test_a_cell_lies_below_its_data_set_and_method(self, world: World) -> None:
        cell = one(world)
        assert cell.folder(world.home) == world.home.results / "little" / "toy" / cell.key
        assert len(cell.key) == 16

    def test_an_installed_stream_is_used_and_named(self, world: World) -> None:
        path = world.write(
            "data/dataset.yaml", world.dataset.read_text().replace("frames.h5}", "frames.h5}\n  words: {}")
        )
        world.add_stream("words", "a" * 64)
        whole, twin = ask(world)
        assert whole.config["streams"] == {"frames": "f" * 64, "words": "a" * 64}
        assert (whole.config["absent_streams"], whole.config["title"]) == ([], "Toy-two")
        assert (twin.config["absent_streams"], twin.config["title"]) == (["words"], "Toy-two (words from frames)")
        assert (whole.label, twin.label) == ("toy:two with words seed 0", "toy:two seed 0")
        assert one(world, "streams=frames").key == twin.key
        assert one(world, "streams=[frames,words]").key == whole.key
        with pytest.raises(BenchError, match=r"streams=words leaves out; add frames to it"):
            ask(world, "streams=words")
        with pytest.raises(BenchError, match=r'unknown stream "wods"; allowed: frames, words; did you mean'):
            ask(world, "streams=wods")
        assert path == world.dataset

    def test_a_variant_asks_only_for_the_streams_that_it_reads(self, world: World) -> None:
        world.add_method("toy", TOY.replace("title: Toy-one,", "title: Toy-one, reads: [frames],"))
        world.write("data/dataset.yaml", world.dataset.read_text().replace("frames.h5}", "frames.h5}\n  words: {}"))
        world.add_stream("words", "a" * 64)
        (narrow,) = ask(world, methods="toy:one")
        assert (narrow.config["streams"], narrow.config["absent_streams"]) == ({"frames": "f" * 64}, [])
        assert (narrow.config["title"], narrow.label) == ("Toy-one", "toy:one seed 0")
        assert [list(cell.config["streams"]) for cell in ask(world, methods="toy:two")] == [
            ["frames", "words"],
            ["frames"],
        ]


class TestPrecedence:
    """Command line, plan file, paper (protocol=paper), data set, card and engine, in this order."""

    def train(self, world: World, *words: str) -> Any:
        return one(world, *words).config["train"]

    def test_train(self, world: World) -> None:
        plan_file = str(world.write("plan.yaml", "train: {epochs: 3}"))
        assert self.train(world)["epochs"] == 7
        assert self.train(world)["captions"] == 64
        assert self.train(world, "protocol=paper")["epochs"] == 300
        assert self.train(world, "protocol=paper")["captions"] == 200
        assert self.train(world, plan_file, "protocol=paper")["epochs"] == 3
        assert self.train(world, plan_file, "train.epochs=1")["epochs"] == 1

    def test_a_row_may_have_a_printed_schedule_of_its_own(self, world: World) -> None:
        row = "{title: Toy-two, settings: {}, printed: {epochs: 500, phases: {base: 0.6, more: 0.4}}"
        world.add_method("toy", TOY.replace("{title: Toy-two, settings: {}", row))
        assert one(world).config["phases"] == {"base": 0.25, "more": 0.75}
        assert self.train(world)["epochs"] == 7
        assert one(world, "protocol=paper").config["phases"] == {"base": 0.6, "more": 0.4}
        assert self.train(world, "protocol=paper")["epochs"] == 500
        assert self.train(world, "protocol=paper", "train.epochs=2")["epochs"] == 2
        other = one(world, "protocol=paper", methods="toy:one").config
        assert (other["train"]["epochs"], other["phases"]) == (300, {"base": 1.0})

    def test_text_and_sizes(self, world: World) -> None:
        paper = one(world, "protocol=paper").config
        assert paper["text"] == {"tokenizer": "treebank", "min_count": 2, "max_words": 30}
        assert paper["settings"]["width"] == 486
        assert one(world, "protocol=paper", "model.width=8").config["settings"]["width"] == 8
        world.write("data/dataset.yaml", world.dataset.read_text() + "model: {width: 128}\n")
        assert one(world).config["settings"]["width"] == 128
        assert one(world, "protocol=paper").config["settings"]["width"] == 486

    def test_a_variant_is_stronger_than_the_paper_and_the_request_than_both(self, world: World) -> None:
        def weight(*words: str) -> float:
            return float(one(world, *words, methods="toy:one").config["settings"]["weight"])

        assert weight() == 0.2
        assert weight("protocol=paper") == 0.2
        assert one(world, "protocol=paper").config["settings"]["weight"] == 0.3
        assert weight("protocol=paper", "toy.lambda=0.5") == 0.5

    def test_a_changed_setting_shows_in_the_name_of_the_row(self, world: World) -> None:
        title = one(world, "toy.lambda=0.5", "toy.mode=on").config["title"]
        assert title == "Toy-two (words from frames, lambda=0.5, mode=on)"
        assert one(world, "toy.weight=0.1").config["title"] == "Toy-two (words from frames)"

    def test_shared_sizes_reach_the_methods_that_have_them(self, world: World) -> None:
        found = ask(world, "model.width=64", methods="toy,plain")
        assert [cell.config["settings"]["width"] for cell in found] == [64, 64]
        with pytest.raises(BenchError, match=r"model\.dropout is set, but none of the methods toy, plain"):
            ask(world, "model.dropout=0.1", methods="toy,plain")


class TestKeys:
    """A key changes with what decides the result, and with nothing else."""

    def test_settings_younger_than_the_first_records_are_named_only_where_they_say_something(
        self, world: World
    ) -> None:
        train = one(world).config["train"]
        assert not {"decay", "decay_every", "precision"} & set(train)
        assert one(world, "train.decay=0.8", "train.decay_every=30").config["train"] == train | {
            "decay": 0.8,
            "decay_every": 30,
        }
        assert one(world, "train.decay=0.8").config["train"] == train | {"decay": 0.8}

    def test_a_file_counts_by_its_content(self, world: World) -> None:
        setting = "  weights: {type: file, choices: [pretrained, random], default: pretrained}\n  width:"
        world.add_method("toy", TOY.replace("  width:", setting, 1))
        assert one(world).config["settings"]["weights"] == "pretrained"
        assert "files" not in one(world).config
        first, copy = world.write("a/one.safetensors", "abc"), world.write("b/two.safetensors", "abc")
        cell = one(world, f"toy.weights={first}")
        digest = (
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of abc, as FIPS 180 prints it
        )
        assert cell.config["settings"]["weights"] == digest
        assert cell.config["files"] == {digest: str(first)}
        assert cell.config["title"] == "Toy-two (words from frames, weights=one.safetensors)", (
            "no folder of this machine"
        )
        assert cell.key == one(world, f"toy.weights={copy}").key != one(world, "toy.weights=random").key
        copy.write_text("abd")
        assert cell.key != one(world, f"toy.weights={copy}").key
        with pytest.raises(BenchError, match=r"gone\.safetensors cannot be read: No such file"):
            ask(world, "toy.weights=gone.safetensors")

    @pytest.mark.parametrize("shape", [(6,), (28, 3, 6), (28, 4, 4, 6)])
    def test_a_stream_of_axes_that_nothing_reads(self, world: World, shape: tuple[int, ...]) -> None:
        world.add_stream("frames", shape=shape)
        with pytest.raises(
            BenchError, match=rf"toy cannot run on .*the stream frames is read as .*{len(shape) * '.+'}\]"
        ) as told:
            one(world)
        assert ("given as one frame" in str(told.value)) == (len(shape) == 1)

    def test_axes_that_nothing_reads_are_known_before_the_import(self, world: World) -> None:
        (world.root / "home/.bench/cache/little/frames.json").unlink()
        for shape in ((28, 6), (6,)):
            with h5py.File(world.data / "frames.h5", "w") as file:
                for clip in "abc":
                    file[clip] = np.ones(shape, np.float32)
            if len(shape) == 2:
                assert requested(parse([f"dataset={world.dataset}", "methods=toy"]), world.home)[0].pending == (
                    "frames",
                )
        with pytest.raises(BenchError, match=r"toy cannot run on .*the stream frames is read as .* given as one frame"):
            requested(parse([f"dataset={world.dataset}", "methods=toy"]), world.home)

    def test_a_row_may_need_more_streams_than_its_card(self, world: World) -> None:
        world.add_method("toy", TOY.replace("title: Toy-one,", "title: Toy-one, needs: [pixels],"))
        with pytest.raises(
            BenchError, match=r"toy:one under protocol=standard reads the stream pixels, which data set little"
        ):
            ask(world, methods="toy:one")
        world.write("data/dataset.yaml", world.dataset.read_text().replace("frames.h5}", "frames.h5}\n  pixels: {}"))
        with pytest.raises(
            BenchError, match=r"pixels of little has no videos: .* name its folder, then: bench features ext"
        ):
            ask(world, methods="toy:one")
        world.add_stream("pixels", "b" * 64, shape=(16, 3, 8, 8))
        (cell,) = ask(world, methods="toy:one")
        assert cell.config["streams"] == {"frames": "f" * 64, "pixels": "b" * 64}
        assert one(world).config["streams"] == {"frames": "f" * 64}

    @pytest.mark.parametrize(
        "words",
        [
            ["seeds=1"],
            ["split=val"],
            ["splits=other"],
            ["subset=1/1/1"],
            ["protocol=paper"],
            ["train.epochs=8"],
            ["train.learning_rate=1e-3"],
            ["train.decay=0.8"],
            ["model.width=256"],
            ["search.beam=1"],
            ["text.min_count=3"],
            ["toy.lambda=0.7"],
            ["toy.mode=on"],
        ],
        ids=lambda words: words[0],
    )
    def test_a_different_question_has_a_different_key(self, world: World, words: list[str]) -> None:
        assert one(world, *words).key != one(world).key

    @pytest.mark.parametrize(
        "words",
        [
            ["threads=2"],
            ["device=cpu"],
            ["executor=inline"],
            ["mlflow=off"],
            ["--retry-failed"],
            ["train.epochs=7"],
            ["train.decay=null", "train.decay_every=1"],
            ["toy.lambda=0.1"],
            ["streams=frames"],
            ["seeds=0"],
        ],
        ids=lambda words: words[0],
    )
    def test_the_same_question_has_the_same_key(self, world: World, words: list[str]) -> None:
        assert one(world, *words).key == one(world).key

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("data/captions.jsonl", '{"clip": "a", "caption": "a dog"}\n'),
            ("data/train.txt", "a\nd"),
            ("methods/toy/__init__.py", "x = 2\n"),
            ("methods/toy/model.py", "y = 2\n"),
            ("methods/toy/card.yaml", TOY.replace("default: 2", "default: 3")),
        ],
    )
    def test_files_that_decide_the_result(self, world: World, file: str, text: str) -> None:
        before = one(world).key
        world.write(file, text)
        assert one(world).key != before

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("methods/toy/__init__.py", '"""What it is."""\nx = 1  # a comment\n'),
            ("methods/toy/README.md", "# Toy"),
            ("methods/toy/card.yaml", TOY.replace("summary: a toy", "summary: a very nice toy")),
            ("methods/plain/__init__.py", "x = 2\n"),
            ("data/other.txt", "nothing"),
        ],
    )
    def test_files_that_do_not(self, world: World, file: str, text: str) -> None:
        before = one(world).key
        world.write(file, text)
        assert one(world).key == before

    def test_a_moved_data_set_keeps_its_keys(self, world: World) -> None:
        before = one(world).key
        (world.root / "data").rename(world.root / "moved")
        (found,) = cells(parse(["methods=toy", f"dataset={world.root / 'moved'}/dataset.yaml"]), world.home)
        assert found.key == before

    def test_other_features_or_another_engine(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        before = one(world).key
        world.add_stream("frames", "e" * 64)
        other = one(world).key
        assert other != before
        world.add_stream("frames")
        monkeypatch.setattr("bench.plan.cells.ENGINE", ENGINE + 1)
        assert one(world).key not in (before, other)

    def test_digests_are_remembered_by_size_and_time(self, world: World) -> None:
        one(world)
        remembered = json.loads((world.home.work / "digests.json").read_text())
        captions = str(world.root / "data" / "captions.jsonl")
        assert captions in remembered
        remembered[captions][2] = "0" * 64
        (world.home.work / "digests.json").write_text(json.dumps(remembered))
        lied = one(world).key
        (world.home.work / "digests.json").write_text("damaged")
        assert one(world).key != lied


class TestYoungSettings:
    """Settings that came after the first records: committed cells keep their keys, and asking anew gives their settings."""

    def test_the_key_of_every_record_is_that_of_its_configuration(self) -> None:
        records = recorded()
        assert len(records) >= 172
        assert [one["key"] for one in records if cell_key(one["config"]) != one["key"]] == []

    def test_a_record_that_is_asked_for_anew_has_the_same_settings(self) -> None:
        entries, definitions = find_methods(), find_datasets()
        for config in (one["config"] for one in recorded()):
            card, definition = entries[config["method"]].card, definitions[config["dataset"]].definition
            assert card is not None and definition is not None
            asked = asked_anew(config, card, definition)
            assert asked == {name: config[name] for name in asked}

    def test_a_young_setting_of_a_card_leaves_cells_their_keys(self, world: World) -> None:
        before = one(world, "toy.lambda=0.4")
        young = "  depth: {type: int, min: 1, default: 2}\n  gate: {type: float, default: 0.5, added: true}\n"
        world.add_method("toy", TOY.replace("  depth: {type: int, min: 1, default: 2}\n", young))
        cell = one(world, "toy.lambda=0.4", "toy.gate=0.5")
        assert (cell.key, cell.config) == (before.key, before.config)
        assert one(world, "toy.lambda=0.4", "toy.gate=0.6").config["settings"] == before.config["settings"] | {
            "gate": 0.6
        }
        card = find_methods()["toy"].card
        assert card is not None
        assert card.whole(before.config["settings"]) == before.config["settings"] | {"gate": 0.5}, (
            "what a method is built of"
        )

    def test_a_young_group_leaves_cells_their_keys(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        class Weather(Strict):
            rain: float = 0.0

        class Later(RunSpec):
            weather: Weather = Weather()

        before = one(world)
        monkeypatch.setitem(GROUPS, "weather", Weather)
        monkeypatch.setattr("bench.declare.settings.ADDED_GROUPS", {"weather"})
        monkeypatch.setattr("bench.plan.cells.ADDED_GROUPS", {"weather"})

        def asked(**weather: float) -> Cell:
            (cell,) = cells(Later(methods=["toy"], dataset=str(world.dataset), weather=Weather(**weather)), world.home)
            return cell

        assert asked(rain=0.0).config == before.config
        assert asked(rain=0.3).config == before.config | {"weather": {"rain": 0.3}}


def recorded() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RECORDS.glob("*/*/*/record.json"))]


def asked_anew(config: dict[str, Any], card: MethodCard, definition: DatasetDefinition) -> dict[str, Any]:
    """The settings of a recorded cell, and its groups, when a request names every one of them today."""
    groups = {name: GROUPS[name].model_validate(config[name]) for name in ("train", "search", "text")}
    own = {card.name: config["settings"]}
    spec = RunSpec(methods=[card.name], dataset=definition.name, protocol=config["protocol"], overrides=own, **groups)
    settings, _ = settings_of(card, card.variants[config["variant"]], spec, definition)
    return {"settings": card.keyed(settings), **shared_groups(card, spec, definition)}


class TestStreams:
    def test_a_stream_to_import_is_pending_in_the_plan_and_an_error_for_a_run(self, world: World) -> None:
        (world.home.cache / "little" / "frames.json").unlink()
        spec = parse(["methods=toy", f"dataset={world.dataset}"])
        assert requested(spec, world.home)[0].pending == ("frames",)
        assert planned(world).why == "stream frames is not in the cache yet: bench run imports first"
        with pytest.raises(BenchError, match=r"is not in the cache yet; next: bench features import dataset="):
            cells(spec, world.home)

    def test_absent_features_name_the_file_and_the_next_command(self, world: World) -> None:
        (world.home.cache / "little" / "frames.json").unlink()
        (world.root / "data" / "frames.h5").unlink()
        with pytest.raises(BenchError) as error:
            ask(world)
        assert str(world.root / "data" / "frames.h5") in str(error.value)
        assert "bench features import dataset=" in str(error.value)

    def test_a_needed_stream_that_the_data_set_lacks(self, world: World) -> None:
        world.add_method("plain", PLAIN + "streams: {needs: [audio]}\n")
        with pytest.raises(
            BenchError, match=r"plain:\w+ under protocol=standard reads the stream audio, which data set little"
        ):
            ask(world, methods="plain")

    def test_a_method_left_without_any_stream(self, world: World) -> None:
        world.add_method("plain", PLAIN + "streams: {uses: [audio, regions]}\n")
        with pytest.raises(BenchError, match=r"plain:\w+ reads audio, regions, and data set little has none of these"):
            ask(world, methods="plain")

    def test_absent_captions(self, world: World) -> None:
        (world.root / "data" / "captions.jsonl").unlink()
        with pytest.raises(BenchError, match=r"the captions of data set little are not here: .*captions\.jsonl"):
            ask(world)

    def test_an_absent_split_list(self, world: World) -> None:
        (world.root / "data" / "val.txt").unlink()
        with pytest.raises(BenchError, match=r"val\.txt cannot be read: No such file"):
            ask(world)

    def test_an_unknown_split_variant(self, world: World) -> None:
        with pytest.raises(
            BenchError, match=r'data set little: unknown splits "othr"; allowed: default, other; did you'
        ):
            ask(world, "splits=othr")


class TestPaperProtocol:
    def test_it_needs_a_printed_setting(self, world: World) -> None:
        with pytest.raises(BenchError, match=r"the card of plain has no protocol_paper; use protocol=standard"):
            ask(world, "protocol=paper", methods="plain")

    def test_it_needs_features_of_the_printed_shape(self, world: World) -> None:
        assert one(world, "protocol=paper").config["absent_streams"] == []
        world.add_stream("frames", shape=(20, 6))
        with pytest.raises(BenchError) as error:
            ask(world, "protocol=paper")
        assert "reads frames of shape 28x6, but" in str(error.value)
        assert "has 20x6" in str(error.value)
        assert "bench features import dataset=" in str(error.value)
        assert one(world).config["protocol"] == "standard"

    def test_the_number_of_frames_alone(self, world: World) -> None:
        world.add_method(
            "toy",
            TOY.replace("  stream_shapes: {frames: [28, 6]}\n", "")
            .replace("uses: [words]", "uses: []")
            .replace('without: {words: words are guessed}\nname_without: {words: "words from frames"}\n', ""),
        )
        assert one(world, "protocol=paper").config["streams"] == {"frames": "f" * 64}
        world.add_stream("frames", shape=(16, 6))
        with pytest.raises(BenchError, match="reads frames of shape 28x6"):
            ask(world, "protocol=paper")

    def test_a_printed_stream_must_be_there(self, world: World) -> None:
        world.add_method("toy", TOY.replace("{frames: [28, 6]}", "{frames: [28, 6], words: [3]}"))
        with pytest.raises(
            BenchError, match=r"reads the stream words, which data set little lacks .*bench features import"
        ):
            ask(world, "protocol=paper")


class TestStates:
    def test_missing(self, world: World) -> None:
        assert (planned(world).state, planned(world).why) == ("missing", "not run yet")

    def test_budget_is_captions_times_epochs(self, world: World) -> None:
        assert planned(world).budget == 7000
        assert planned(world, "train.epochs=2", "train.data_fraction=0.5").budget == 1000
        assert planned(world, "subset=1/1/1").budget is None

    def test_done_failed_unscored(self, world: World) -> None:
        cell = one(world)
        world.add_record(cell)
        assert (planned(world).state, planned(world).why) == ("done", "CIDEr 31.2")
        world.add_record(cell, "unscored")
        assert planned(world).state == "unscored"
        world.add_record(cell, "failed")
        found = planned(world)
        assert (found.state, found.why) == ("failed", "fit: RuntimeError: boom; --retry-failed runs it again")
        assert planned(world, "seeds=1").state == "missing"

    def test_a_record_that_cannot_be_read(self, world: World) -> None:
        world.add_record(one(world)).write_text("{")
        found = planned(world)
        assert found.state == "unreadable"
        assert "its record is left alone, for it is no valid one: no valid JSON" in found.why

    def test_running_while_the_lock_is_held(self, world: World) -> None:
        cell = one(world)
        path = world.write(f"home/.bench/locks/{cell.key}.lock", "4711")
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            found = planned(world)
        assert (found.state, found.why) == ("running", "process 4711 is working on it")
        assert planned(world).state == "missing"

    def test_interrupted(self, world: World) -> None:
        folder = one(world).folder(world.home) / "work"
        folder.mkdir(parents=True)
        assert planned(world).why == "interrupted: bench run goes on from its last checkpoint"
        (folder / "progress.json").write_text('{"phase": "base", "epoch": 3}')
        assert planned(world).why.startswith("interrupted in phase base, epoch 3: ")

    @pytest.mark.parametrize(
        ("file", "text", "why"),
        [
            ("data/captions.jsonl", "{}\n", "the captions or the split lists changed since record "),
            ("methods/toy/__init__.py", "x = 2\n", "the code of the method changed since record "),
        ],
    )
    def test_stale_says_what_changed(self, world: World, file: str, text: str, why: str) -> None:
        cell = one(world)
        world.add_record(cell)
        world.write(file, text)
        found = planned(world)
        assert (found.state, found.why) == ("stale", why + cell.key)

    def test_stale_features_and_engine(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.add_record(one(world))
        world.add_stream("frames", "e" * 64)
        assert "the features of stream frames changed" in planned(world).why
        monkeypatch.setattr("bench.plan.cells.ENGINE", ENGINE + 1)
        found = planned(world)
        assert found.state == "stale"
        assert "the engine changed and the features of stream frames changed since record " in found.why

    def test_another_question_is_not_stale(self, world: World) -> None:
        world.add_record(one(world, "train.epochs=3", "toy.lambda=0.5"))
        found = planned(world)
        assert found.state == "missing"
        assert found.why == "not run yet; a record with other settings.weight, train.epochs exists"
        assert planned(world, "seeds=4").why == "not run yet"

    def test_the_plan_changes_nothing(self, world: World) -> None:
        planned(world)
        assert not world.home.results.exists()
        assert {path.name for path in world.home.work.iterdir()} == {"cache", "digests.json"}
