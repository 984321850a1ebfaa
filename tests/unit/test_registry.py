"""Methods and data sets by name: what is found, what is refused and in which words, what a digest sees."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pytest
from small_world import DATASET, PLAIN, TOY, World

from bench import BenchError
from bench.declare.card import MethodCard, Provides
from bench.declare.dataset import DatasetDefinition
from bench.declare.registry import (
    dataset,
    find_datasets,
    find_methods,
    method,
    method_digest,
    method_entry,
    read_definition,
)
from bench.declare.validation import FORMS
from bench.reports.study import Arm
from bench.reproduction.declaration import DeclaredCell


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


class TestShippedFiles:
    """Every card and definition in the repository."""

    def test_all_cards_are_valid(self) -> None:
        entries = find_methods()
        assert {"mplstm", "salstm", "s2vt", "recnet", "etenet", "glrg"} <= entries.keys()
        assert {name: entry.error for name, entry in entries.items() if entry.error} == {}

    def test_shared_settings_have_one_default(self) -> None:
        """All else equal is only true if the cards agree on the sizes that they share."""
        defaults = defaultdict(set)
        for entry in find_methods().values():
            assert entry.card is not None
            for name, setting in entry.card.settings.items():
                if setting.shared:
                    defaults[name].add(setting.default)
        assert {name: values for name, values in defaults.items() if len(values) > 1} == {}

    def test_all_definitions_are_valid(self) -> None:
        entries = find_datasets()
        assert {"msvd", "msrvtt", "activitynet"} <= entries.keys()
        assert {name: entry.error for name, entry in entries.items() if entry.error} == {}

    def test_reading_cards_imports_no_method(self) -> None:
        before = set(sys.modules)
        find_methods()
        assert not {name for name in set(sys.modules) - before if name.startswith("methods")}


class TestCards:
    def test_a_card_is_read_with_its_types(self, world: World) -> None:
        card = method("toy")
        assert card.settings["weight"].default == 0.1
        assert card.variants["one"].settings == {"weight": 0.2}
        assert card.streams.uses == ["words"]

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("default: two", "default: tow", 'unknown variant "tow"; allowed: one, two; did you mean "two"?'),
            ("summary:", "sumary:", 'unknown key "sumary"; allowed: name, summary'),
            ("settings: {weight: 0.2}", "settings: {wight: 0.2}", 'variants.one.settings: unknown setting "wight"'),
            (
                "{title: Toy-one,",
                "{reads: [frames, wods], title: Toy-one,",
                'variants.one.reads: unknown stream "wods"',
            ),
            ("{title: Toy-one,", "{reads: [words], title: Toy-one,", "variants.one.reads leaves out frames"),
            (
                "settings: {weight: 0.2}",
                "settings: {weight: 2}",
                "variants.one.settings.weight is 2, but must be at most 1",
            ),
            ("settings: {weight: 0.2}", "settings: {weight: 1, lambda: 0}", "weight is given twice"),
            ("default: 0.1, alias", "default: 7, alias", "settings.weight default is 7, but must be at most 1"),
            ("type: float", "type: flaot", "settings.weight.type is 'flaot', but must be one of int, float"),
            ("alias: lambda", "alias: depth", "settings: depth names more than one setting"),
            ("base: 0.25", "base: 0.5", "variants two: phases must share the budget"),
            (
                "more: 0.75}",
                "more: 0.75}, printed: {phases: {base: 0.3}}",
                "variants two.printed: phases must share the budget",
            ),
            ("phases: {base: 1.0}", "phases: {base: 0.9}", "phases must share the budget: parts >= 0 that sum to 1"),
            ("weight: [0.0, 0.5]", "weight: [0.0, 5]", "search_space.weight is 5, but must be at most 1"),
            ("without: {words:", "without: {sounds:", 'unknown stream "sounds"; allowed: words'),
            (
                "default: two",
                "impossible: [{settings: {weight: 7}, because: no}]\ndefault: two",
                "impossible.weight is 7, but must be at most 1",
            ),
            (
                "default: two",
                "impossible: [{settings: {weight: 1, lambda: 0}, because: no}]\ndefault: two",
                "impossible: weight is given twice",
            ),
            ("type: str, default: null", "type: str, min: 0, default: hi", "settings.note has type str and min or max"),
            ("source: inferred", "source: guess", "open_points.0.source is 'guess', but must be one of paper, code"),
            ("min: 1, default: 512", "min: 1, default: wide", "settings.width default is 'wide', but must be a whole"),
            ("alias: lambda", "shared: true", 'unknown shared setting "weight"; allowed: width'),
            ("name: toy", "name: tory", "name is 'tory', but must be 'toy'"),
            ("name: toy\n", "name: toy\nname: toy\n", "name is given twice"),
            ("year: 2020", "year: 2020]", "not YAML in line 4"),
        ],
    )
    def test_a_broken_card_is_listed_with_its_sentence(self, world: World, old: str, new: str, said: str) -> None:
        assert old in TOY
        world.add_method("toy", TOY.replace(old, new))
        entry = find_methods()["toy"]
        assert entry.card is None
        assert entry.error is not None
        assert said in entry.error
        assert str(world.methods / "toy" / "card.yaml") in entry.error
        assert find_methods()["plain"].card is not None
        with pytest.raises(BenchError, match="method toy cannot be used"):
            method_entry("toy")

    def test_conditions_may_call_a_setting_by_its_second_name(self, world: World) -> None:
        more = (
            "impossible: [{settings: {lambda: 1, depth: 3}, because: no}]\ntakes: {loss: {lambda: [0]}}\ndefault: two"
        )
        world.add_method("toy", TOY.replace("default: two", more))
        card = method("toy")
        with pytest.raises(BenchError, match=r"toy:one cannot have weight=1\.0, depth=3: no"):
            card.refuse_impossible({"weight": 1.0, "depth": 3}, "one")
        assert card.takes_loss({"weight": 0.0}) and not card.takes_loss({"weight": 0.5})

    def test_a_folder_without_a_card_is_listed(self, world: World) -> None:
        world.write("methods/bare/__init__.py", "")
        world.write("methods/__pycache__/x.pyc", "")
        assert find_methods().keys() == {"bare", "plain", "toy"}
        assert "has no card.yaml" in str(find_methods()["bare"].error)

    def test_unknown_method(self, world: World) -> None:
        with pytest.raises(BenchError, match=r'unknown method "tay"; allowed: plain, toy; did you mean "toy"\?'):
            method("tay")


class TestEntryPoints:
    def install(self, world: World, monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
        """Pretend that a distribution with these entry points is installed below `site`."""
        lines = "".join(f"{name} = {module}\n" for name, module in points.items())
        world.write("site/guests-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: guests\nVersion: 1.0\n")
        world.write("site/guests-1.0.dist-info/entry_points.txt", f"[bench.methods]\n{lines}")
        monkeypatch.syspath_prepend(str(world.root / "site"))

    def test_a_plugin_is_found_without_importing_it(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.write("site/guests/__init__.py", "raise RuntimeError('imported')\n")
        world.write("site/guests/guest/__init__.py", "raise RuntimeError('imported')\n")
        world.write("site/guests/guest/card.yaml", PLAIN.replace("plain", "guest"))
        self.install(world, monkeypatch, guest="guests.guest")
        entry = find_methods()["guest"]
        assert entry.error is None
        assert (entry.module, entry.source) == ("guests.guest", "guests")
        assert method("guest").default == "xe"

    def test_broken_plugins_disturb_nobody(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.write("site/guests/__init__.py", "")
        self.install(world, monkeypatch, gone="no_such_package_here", empty="guests", lost="guests.lost")
        entries = find_methods()
        assert "there is no package no_such_package_here" in str(entries["gone"].error)
        assert "has no card.yaml" in str(entries["empty"].error)
        assert "there is no package guests.lost" in str(entries["lost"].error)
        assert entries["toy"].card is not None

    def test_a_second_method_of_one_name_is_refused(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.write("site/guests/__init__.py", "")
        world.write("site/guests/card.yaml", TOY)
        self.install(world, monkeypatch, toy="guests")
        entries = find_methods()
        assert entries["toy"].folder == world.methods / "toy"
        error = str(entries["toy (guests)"].error)
        assert str(world.methods / "toy") in error
        assert str(world.root / "site" / "guests") in error


class TestDefinitions:
    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("format: jsonl", "format: jsonlines", "captions.0.format is 'jsonlines', but must be one of msvd_csv"),
            ("test: test.txt}", "tst: test.txt}", 'unknown key "splits.tst"'),
            (
                "splits: {train: train.txt, val: val.txt, test: test.txt}",
                "splits: {train: t}",
                "splits names lists for train",
            ),
            (
                "splits: {train: train.txt, val: val.txt, test: test.txt}",
                "splits: {seed: 3}",
                "exactly one of: official",
            ),
            (
                "{first: [1, 1, 1]}",
                "{fractions: [0.5, 0.1, 0.1]}",
                "split_variants.other has fractions [0.5, 0.1, 0.1]",
            ),
            ("{source: frames.h5}", "{sorce: frames.h5}", 'did you mean "streams.frames.source"?'),
            ("min_count: 2", "min_count: 0", "text.min_count is 0, but must be at least 1"),
            (
                "name: little",
                "name: Little One",
                "name is 'Little One', but must be a name of small letters, digits and _",
            ),
            ("name: little", f"name: {'l' * 300}", "a name of small letters, digits and _, at most 100"),
            ("train: {epochs: 7}", "train: [7]", "train is [7], but must be a mapping (key: value)"),
            ("train: {epochs: 7}", "subset: {}", "subset must be exactly one of: {ids: file or list}"),
        ],
    )
    def test_a_bad_definition_is_refused_in_a_sentence(self, world: World, old: str, new: str, said: str) -> None:
        assert old in DATASET
        path = world.write("data/dataset.yaml", DATASET.replace(old, new))
        with pytest.raises(BenchError) as error:
            read_definition(path)
        assert str(error.value).startswith(f"{path}: ")
        assert said in str(error.value)
        assert "\n" not in str(error.value)

    def test_by_name_by_file_and_unknown(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.write("shelf/little/dataset.yaml", DATASET)
        world.write("shelf/broken/dataset.yaml", "name: other\ncaptions: [{format: coco}]")
        monkeypatch.setattr("bench.declare.registry.data_folder", lambda kind: world.root / "shelf")
        assert dataset("little").path == (world.root / "shelf/little/dataset.yaml").resolve()
        assert dataset(str(world.dataset)).path == world.dataset.resolve()
        assert "name is 'other', but must be 'broken'" in str(find_datasets()["broken"].error)
        with pytest.raises(BenchError, match=r'unknown data set "litle"; .*did you mean "little"\?'):
            dataset("litle")
        with pytest.raises(BenchError, match=r"there is no file .*gone\.yaml"):
            dataset("my/gone.yaml")

    def test_paths_expand_variables_and_are_relative_to_the_file(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        definition = dataset(str(world.dataset))
        here = world.dataset.resolve().parent
        assert definition.resolve("x/../y.txt", world.home) == here / "y.txt"
        assert definition.resolve("~/y", world.home) == Path("~/y").expanduser()
        assert definition.resolve("${BENCH_DATA}/y", world.home) == world.home.data / "y"
        monkeypatch.setenv("BENCH_DATA", "/elsewhere")
        assert definition.resolve("${BENCH_DATA}/y", world.home) == Path("/elsewhere/y")
        with pytest.raises(BenchError, match="environment variable NOT_SET_HERE"):
            definition.resolve("$NOT_SET_HERE/y", world.home)

    def test_the_first_complete_source_is_used_and_absent_ones_are_named(self, world: World) -> None:
        more = "captions:\n  - {format: coco, files: {captions: gone.json}}\n"
        path = world.write("data/dataset.yaml", DATASET.replace("captions:\n", more, 1))
        assert dataset(str(path)).caption_source(world.home)[0].format == "jsonl"
        (path.parent / "captions.jsonl").unlink()
        with pytest.raises(BenchError) as error:
            dataset(str(path)).caption_source(world.home)
        said = str(error.value)
        assert all(part in said for part in ("gone.json", "captions.jsonl", "BENCH_DATA", "bench data check"))


class TestDigest:
    CODE = '"""Doc."""\n\ndef f(x):\n    """Doc."""\n    return x + 1  # why\n'

    def digest(self, world: World, code: str, name: str = "a.py") -> str:
        world.write(f"code/{name}", code)
        return method_digest(world.root / "code")

    def test_only_what_the_code_says_counts(self, world: World) -> None:
        first = self.digest(world, self.CODE)
        assert self.digest(world, "def f(x):\n\n    return (x+1)\n") == first
        assert self.digest(world, self.CODE.replace("Doc", "Other")) == first
        assert self.digest(world, self.CODE.replace("+ 1", "+ 2")) != first
        assert self.digest(world, self.CODE.replace("+ 1", "+ 1.0")) != first
        assert self.digest(world, self.CODE.replace("f(x)", "g(x)")) != first
        assert self.digest(world, self.CODE.replace("return x + 1", "return x - 1")) != first

    def test_every_file_counts(self, world: World) -> None:
        first = self.digest(world, self.CODE)
        second = self.digest(world, "y = 1\n", "sub/b.py")
        assert second != first
        world.write("code/README.md", "text")
        assert method_digest(world.root / "code") == second

    def test_it_does_not_depend_on_the_version_of_python(self, world: World) -> None:
        """Frozen: a digest that changed with the interpreter would make every record stale."""
        code = "class A:\n    def f(self, *a: int, k=None): return [k, f'{a!r:>3}', b'x', 1j, *a]\n"
        assert self.digest(world, code) == FROZEN

    def test_code_that_does_not_parse(self, world: World) -> None:
        with pytest.raises(BenchError, match=r"a\.py, line 1: "):
            self.digest(world, "def f(:\n")


FROZEN = "d08e41207b81b5a346929e9fac3f821bfaa5a7dbf0ba009874817375d7bc6653"


def test_every_form_of_a_name_is_told_in_words() -> None:
    """No regular expression reaches a user."""
    models = [MethodCard, DatasetDefinition, Provides, DeclaredCell, Arm]
    patterns = {
        one.pattern
        for model in models
        for field in model.model_fields.values()
        for one in field.metadata
        if getattr(one, "pattern", None)
    }
    assert len(patterns) == 3
    assert patterns <= FORMS.keys()
