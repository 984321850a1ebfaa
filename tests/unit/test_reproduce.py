"""`bench reproduce`: what the papers' targets declare, the pages made of records, and what the commands answer."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from record_factory import put, record
from small_world import World

from bench import BenchError
from bench.cli.main import main
from bench.declare.registry import dataset, find_methods
from bench.declare.settings import given
from bench.evaluation.metrics import SHOWN
from bench.figures import FIGURES
from bench.home import Home
from bench.pages.document import NOTHING
from bench.pages.markdown import escape, to_markdown
from bench.plan.request import RunSpec
from bench.records.schema import Record
from bench.records.store import cell_folder
from bench.reports.published import Row, Table, load_papers
from bench.reports.verdicts import verdict
from bench.reproduction import answers as asked
from bench.reproduction import pages
from bench.reproduction.declaration import DeclaredCell, Reproduction, chosen, find_reproductions, trouble
from bench.reproduction.edition import SMALL, Edition, edition, request
from bench.reproduction.listing import Reasons, problems
from bench.reproduction.targets import document

FIGURE_TARGETS = {
    *(f"recnet/fig{number}" for number in (6, 7, 8, 9)),
    *(
        "vre/fig3",
        "vre/fig4",
        "hail/fig1",
        "hail/fig1b",
        "hail/fig4",
        "glrg/fig1",
        "glrg/fig3",
        "etenet/fig3",
        "etenet/memory",
    ),
}


@pytest.fixture(scope="module")
def methods() -> dict[str, Any]:
    return find_methods()


@pytest.fixture(scope="module")
def found(methods: dict[str, Any]) -> dict[str, Reproduction]:
    return find_reproductions(methods)


def printed_tables() -> Iterator[tuple[str, Table]]:
    for paper in load_papers():
        for table in paper.tables:
            yield f"{paper.paper.name}/{table.printed}", table


def answers(found: dict[str, Reproduction]) -> Iterator[tuple[Table, Row, DeclaredCell]]:
    for one in found.values():
        for part, cell in one.cells():
            row = part.row(cell)
            if row is not None:
                assert part.table is not None
                yield part.table, row, cell


class TestDeclarations:
    def test_all_tables_and_named_figures_are_targets(self, found: dict[str, Reproduction]) -> None:
        tables = {name for name, _ in printed_tables()}
        assert len(tables) == 22
        assert set(found) == tables | FIGURE_TARGETS
        drawn = {drawn.figure for one in found.values() for drawn in one.target.draw if drawn.figure}
        assert drawn <= set(FIGURES)

    def test_every_row_that_the_authors_ran_is_answered_once(self, found: dict[str, Reproduction]) -> None:
        own = {
            (name, table.id, number): 1
            for name, table in printed_tables()
            for number, row in enumerate(table.rows, start=1)
            if row.own
        }
        declared = Counter(
            (one.full, part.id, cell.prints[part.id])
            for one in found.values()
            for part, cell in one.cells()
            if part.id in cell.prints
        )
        assert declared == own
        assert len(own) == 107

    def test_nothing_is_declared_that_a_card_or_the_figures_lack(
        self, found: dict[str, Reproduction], methods: dict[str, Any]
    ) -> None:
        assert {name: wrong for name, one in found.items() if (wrong := problems(one, methods))} == {}

    def test_a_row_is_answered_by_the_variant_that_it_is_the_result_of(self, found: dict[str, Reproduction]) -> None:
        """`variant_name` of the published rows was written down for the leaderboards, without regard to these files."""
        told = [(row, cell) for _, row, cell in answers(found) if row.variant_name]
        assert len(told) > 40
        for row, cell in told:
            assert cell.run == row.variant_name, row
        for _, row, cell in answers(found):
            assert cell.method == row.method

    def test_settings_are_those_of_the_printed_row(
        self, found: dict[str, Reproduction], methods: dict[str, Any]
    ) -> None:
        checked = Counter[str]()
        for _, row, cell in answers(found):
            card = methods[cell.method].card
            variant = card.variants[cell.run.partition(":")[2]]
            settings = {name: setting.default for name, setting in card.settings.items()}
            settings |= variant.settings | card.checked(cell.settings, cell.run)
            said = row.variant
            expected = {
                "lambda": settings.get("reconstruction_weight", settings.get("information_weight")),
                "gamma": settings.get("relevance_exponent"),
                "baseline": settings.get("baseline", "scst"),
                "dxe_weight": settings.get("seed_weight"),
                "data_fraction": given(cell.train).get("data_fraction", 1.0),
                "loss": "il" if "information" in (settings.get("loss"), cell.loss) else "xe",
            }
            for name, value in expected.items():
                if name in said and (cell.method, name) not in {("s2vt", "lambda"), ("s2vt", "gamma")}:
                    assert said[name] == value, (row, cell.label)
                    checked[name] += 1
            reinforced = {"reinforce", "boost"} & set(variant.phases or card.phases)
            assert bool(reinforced) == (
                said.get("training") == "rl" or (cell.method == "vre" and cell.run.endswith("_rl"))
            )
        assert (
            min(checked[name] for name in ("lambda", "gamma", "baseline", "dxe_weight", "data_fraction", "loss")) >= 2
        )

    def test_targets_stay_within_what_small_is_sized_for(
        self, found: dict[str, Reproduction], methods: dict[str, Any]
    ) -> None:
        """`request.SMALL` promises a quarter of an hour for twelve cells."""
        base = RunSpec(methods=["salstm"], dataset="shapes")
        for one in found.values():
            specs = {
                request(part, cell, edition(small=True), base, methods).model_dump_json() for part, cell in one.cells()
            }
            assert len(specs) <= 12, one.full

    def test_splits_that_are_named_exist(self, found: dict[str, Reproduction]) -> None:
        for one in found.values():
            for part in one.parts:
                dataset(part.dataset).split_rule(part.splits)


def declare(world: World, **changes: Any) -> Path:
    """A paper of one table for the toy method of a world, with `changes` to its only target."""
    table = {
        "id": "table1",
        "about": "all of it",
        "dataset": "little",
        "split": "test",
        "rows": [
            {"system": "Old", "own": False, "role": "cited", "method": None, "variant": {}, "metrics": {"cider": 12.5}},
            {
                "system": "Toy-one",
                "own": True,
                "role": "proposed",
                "method": "toy",
                "variant": {},
                "metrics": {"cider": 31.0},
            },
            {
                "system": "Toy-two",
                "own": True,
                "role": "proposed",
                "method": "toy",
                "variant": {},
                "metrics": {"cider": 40.0},
            },
        ],
    }
    paper = {"name": "toy", "title": "Toys", "authors": ["A. Nyone"], "year": 2020, "venue": "TOY", "arxiv": None}
    world.write("published/toy.yaml", yaml.safe_dump({"paper": paper, "tables": [table]}))
    target = {
        "title": "toys compared",
        "cells": [
            {"run": "toy:one", "system": "Toy-one", "prints": {"table1": 2}},
            {"run": "toy:two", "system": "Toy-two", "prints": {"table1": 3}},
            {"run": "toy:two", "settings": {"lambda": 0.0}, "control": "without the second loss"},
        ],
        "draw": [{"table": "table1"}],
    }
    return world.write(
        "methods/toy/reproduce.yaml", yaml.safe_dump({"paper": "toy", "targets": {"table1": target | changes}})
    )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A toy method and a tiny data set, which stands among the shipped ones as `little` and, for small, as `shapes`."""
    world = World(tmp_path, monkeypatch)
    for name in ("little", "shapes"):
        world.write(f"shelf/{name}/dataset.yaml", world.dataset.read_text().replace("name: little", f"name: {name}"))
        for file in ("train.txt", "val.txt", "test.txt", "frames.h5"):
            world.write(f"shelf/{name}/{file}", (world.data / file).read_text())
    world.write("shelf/shapes/captions.jsonl", (world.data / "captions.jsonl").read_text())
    facts = {"schema": 1, "stream": "frames", "shape": (28, 6), "timed": True, "dtype": "float16", "clips": 3}
    facts |= {"fingerprint": "f" * 64, "bytes": 1, "source": {}, "encoder": {}}
    for name in ("little", "shapes"):
        world.write(f"home/.bench/cache/{name}/frames.json", json.dumps(facts))
    folders = {"datasets": tmp_path / "shelf", "published": tmp_path / "published"}
    for module in ("bench.declare.registry", "bench.reproduction.declaration", "bench.reproduction.targets"):
        monkeypatch.setattr(f"{module}.data_folder", folders.__getitem__)
    declare(world)
    return world


class TestDeclarationMistakes:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"titel": "x"}, 'unknown key "targets.table1.titel"; allowed: .*; did you mean "targets.table1.title"'),
            ({"dataset": "little"}, "needs a dataset where it draws no table"),
            ({"draw": [{"figure": "bars"}]}, "needs a dataset where it draws no table"),
            ({"draw": [{"table": "table1", "figure": "bars"}]}, "must name a table or a figure, and one thing only"),
            ({"draw": [{"table": "table9"}]}, 'unknown table "table9"; allowed: table1; did you mean "table1"'),
            ({"cells": [{"run": "toy:one"}]}, "needs a system .*, a control .* or a name"),
            ({"cells": [{"run": "toy", "name": "x"}]}, "run is 'toy', but must be METHOD:VARIANT"),
            ({"cells": [{"run": "toy:one", "system": "Toy-one"}]}, "has a system without the rows that it prints"),
            (
                {"cells": [{"run": "toy:one", "system": "Toy-one", "prints": {"table1": 3}}]},
                "row 3 of table1 is 'Toy-two', not 'Toy-one'",
            ),
            (
                {"cells": [{"run": "toy:one", "system": "Old", "prints": {"table1": 1}}]},
                "row 1 of table1 is 'Old', which the authors did not run",
            ),
            (
                {"cells": [{"run": "toy:one", "system": "Toy-one", "prints": {"table1": 4}}]},
                "table1 has 3 rows, and none with number 4",
            ),
            (
                {"cells": [{"run": "toy:one", "system": "Toy-one", "prints": {"table2": 2}}]},
                'unknown part of the table "table2"',
            ),
            ({"cells": [{"run": "toy:one", "control": "x"}] * 2}, "more than one cell called toy:one"),
            (
                {"cells": [{"run": "toy:one", "control": "x", "train": {"epoch": 3}}]},
                'did you mean "targets.table1.cells.0.train.epochs"',
            ),
        ],
    )
    def test_a_sentence_with_the_file(self, world: World, changes: dict[str, Any], words: str) -> None:
        path = declare(world, **changes)
        with pytest.raises(BenchError, match=words) as caught:
            find_reproductions(find_methods())
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize(
        ("cell", "words"),
        [
            ({"run": "toy:oen"}, 'method toy: unknown variant "oen"; allowed: one, two, *; did you mean "one"?'),
            ({"run": "tyo:one"}, 'unknown method "tyo"; allowed: plain, toy; did you mean "toy"?'),
            ({"run": "toy:one", "settings": {"lamda": 1}}, 'did you mean "lambda"?'),
            ({"run": "toy:one", "settings": {"lambda": 2}}, "lambda is 2, but must be at most 1"),
            ({"run": "toy:one", "loss": "informtion"}, 'unknown loss "informtion"'),
        ],
    )
    def test_what_a_card_lacks(self, world: World, cell: dict[str, Any], words: str) -> None:
        assert words in str(trouble(DeclaredCell(name="x", **cell), find_methods()))

    def test_what_a_card_has(self, world: World) -> None:
        assert trouble(DeclaredCell(name="x", run="toy:one", settings={"lambda": 0.5}), find_methods()) is None


class TestChosen:
    def test_one_a_paper_or_all(self, found: dict[str, Reproduction]) -> None:
        assert [one.full for one in chosen("recnet/table7", found)] == ["recnet/table7"]
        assert [one.full for one in chosen("vre", found)] == [
            f"vre/{name}" for name in ("table1", "table2", "table3", "fig3", "fig4")
        ]
        assert [one.full for one in chosen("all", found)] == list(found)

    @pytest.mark.parametrize(
        ("word", "words"),
        [
            (
                "recnet/tabel7",
                'unknown target "recnet/tabel7"; allowed: recnet/table1, .*; did you mean "recnet/table7"',
            ),
            ("recnt", 'unknown target "recnt"; allowed: all, .*; did you mean "recnet"'),
            ("recnt/table7", 'did you mean "recnet/table7"'),
            ("salstm", 'unknown target "salstm"; allowed: all, etenet, glrg, hail, recnet, vre, '),
        ],
    )
    def test_did_you_mean(self, found: dict[str, Reproduction], word: str, words: str) -> None:
        with pytest.raises(BenchError, match=words):
            chosen(word, found)


class TestRequests:
    BASE = RunSpec(methods=["salstm"], dataset="shapes", seeds=[0, 3], executor="inline")

    def spec(self, found: dict[str, Reproduction], target: str, number: int, asked: Edition) -> RunSpec:
        part, cell = list(found[target].cells())[number]
        return request(part, cell, asked, self.BASE, find_methods())

    def test_as_printed(self, found: dict[str, Reproduction]) -> None:
        spec = self.spec(found, "recnet/table4", 0, edition())
        assert (spec.methods, spec.dataset, spec.split, spec.protocol) == (["salstm:xe"], "msvd", "test", "paper")
        assert (spec.seeds, spec.executor, spec.subset, spec.streams) == ([0, 3], "inline", None, None)
        assert given(spec.train) == {"data_fraction": 0.5}
        assert "splits" not in spec.model_fields_set, "left to the data set"

    def test_habits_of_a_data_set(self, found: dict[str, Reproduction]) -> None:
        events = self.spec(found, "recnet/table5", 0, edition())
        assert (events.dataset, events.split, events.splits) == ("activitynet", "val", "paper")
        assert self.spec(found, "vre/table1", 0, edition()).splits == "vre"
        assert given(self.spec(found, "etenet/table2", 0, edition()).text) == {"max_words": 20}
        assert given(self.spec(found, "etenet/table2", 0, edition()).search) == {"max_words": 20}
        assert given(self.spec(found, "etenet/table1", 0, edition()).text) == {}
        elsewhere = self.spec(found, "recnet/table5", 0, edition(dataset="msvd"))
        assert (elsewhere.dataset, elsewhere.split) == ("msvd", "test")
        assert "splits" not in elsewhere.model_fields_set
        assert given(self.spec(found, "etenet/table2", 0, edition(dataset="msrvtt", protocol="standard")).text) == {}

    def test_settings_and_losses(self, found: dict[str, Reproduction]) -> None:
        spec = self.spec(found, "hail/table3", 0, edition())
        assert spec.overrides == {"hail": {"information_weight": 0.3, "relevance_exponent": 1.0}}
        for number in (0, 1):  # HAIL's own setting, not that of the card of s2vt, which is RecNet's
            own = self.spec(found, "hail/table2", number, edition())
            assert given(own.text) == {"min_count": 5} and own.overrides == {"s2vt": {"embedding": 512}}
            assert (own.train.optimizer, own.train.learning_rate, own.train.decay) == ("adam", 1e-4, 0.8)
            small = self.spec(found, "hail/table2", number, edition(small=True))
            assert given(small.text) == {} and "optimizer" not in given(small.train)
        assert [self.spec(found, "hail/table2", number, edition()).loss for number in (0, 1)] == [
            "cross_entropy",
            "information",
        ]

    def test_in_small(self, found: dict[str, Reproduction]) -> None:
        spec = self.spec(found, "recnet/table4", 1, edition(small=True))
        assert (spec.dataset, spec.subset, spec.protocol, spec.split) == ("shapes", SMALL.subset, "standard", "test")
        assert given(spec.train) == {**SMALL.train, "data_fraction": 0.5}
        assert given(spec.model) == dict(SMALL.model)
        assert spec.streams == list(dataset("shapes").streams), "no second cell without the other streams"

    def test_names_of_sections(self) -> None:
        names = [
            edition().slug,
            edition(small=True).slug,
            edition(dataset="msvd").slug,
            edition(protocol="standard", dataset="msvd").slug,
        ]
        assert names == ["printed", "small", "msvd-paper", "msvd-standard"]


def section(**cells: list[str]) -> asked.Section:
    return asked.Section(small=True, dataset="shapes", protocol="standard", cells=cells)


def key(one: Record) -> str:
    return f"{one.dataset}/{one.method}/{one.key}"


class TestAsked:
    def test_seeds_add_up_and_other_rows_do_not(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        zero, one, changed = record(seed=0), record(seed=1), record(seed=2, engine=9)
        put(home.results, zero, one, changed)
        for item, expected in ((zero, [zero]), (one, [one, zero]), (zero, [zero, one]), (changed, [changed])):
            asked.note(home, "p/table1", "small", section(cell=[key(item)]))
            cells = asked.read(home, "p/table1").sections["small"].cells
            assert cells == {"cell": [key(other) for other in expected]}

    def test_sections_stand_side_by_side_and_forget_what_is_no_longer_declared(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        asked.note(home, "p/table1", "small", section(old=["shapes/salstm/" + "0" * 16]))
        asked.note(home, "p/table1", "printed", section())
        asked.note(home, "p/table1", "small", section(new=[]))
        assert {name: one.cells for name, one in asked.read(home, "p/table1").sections.items()} == {
            "printed": {},
            "small": {"new": []},
        }
        assert asked.targets(home) == ["p/table1"]

    @pytest.mark.parametrize(
        "text", ["{", '{"schema": 2}', '{"schema": 1, "sections": {"s": {"cells": {"c": ["../../etc/passwd"]}}}}', "[]"]
    )
    def test_a_damaged_file_is_named(self, tmp_path: Path, text: str) -> None:
        path = asked.path_of(Home(tmp_path), "p/table1")
        path.parent.mkdir(parents=True)
        path.write_text(text)
        with pytest.raises(BenchError, match="run bench reproduce p/table1 again") as caught:
            asked.read(Home(tmp_path), "p/table1")
        assert str(path) in str(caught.value)

    def test_records_that_are_gone_are_not_run(self, tmp_path: Path) -> None:
        assert asked.record_of(Home(tmp_path), "shapes/salstm/" + "0" * 16) is None


def rows_of(page: str, about: str) -> list[dict[str, str]]:
    """The table below the heading that begins with `about`, as one mapping per row."""
    below = page[page.index(f"### {about}") :]
    lines = [line for line in below.split("\n\n")[1].splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [dict(zip(split[0], row, strict=True)) for row in split[2:]]


def as_printed(**changes: Any) -> dict[str, Any]:
    """What records of a run as printed on MSVD have in common."""
    return {"dataset": "msvd", "protocol": "paper", **changes}


class TestPages:
    def make(
        self,
        home: Home,
        one: Reproduction,
        records: dict[str, list[Record]],
        dataset: str | None = None,
        small: bool = False,
    ) -> str:
        """The page of a target whose only section has these records by the place of their cell."""
        cells = {place: [] for part, cell in one.cells() for place in [part.place(cell)]}
        for place, some in records.items():
            assert place in cells, place
            put(home.results, *some)
            cells[place] = [key(item) for item in some]
        protocol = "standard" if dataset else "paper"
        name = "small" if small else "printed"
        asked.note(home, one.full, name, asked.Section(small=small, dataset=dataset, protocol=protocol, cells=cells))
        return to_markdown(document(one, home))

    def test_every_printed_number_is_the_published_one(self, found: dict[str, Reproduction], tmp_path: Path) -> None:
        """All 22 tables, read back from their pages, row by row: nothing is lost, rounded or swapped."""
        seen = 0
        for name, table in printed_tables():
            page = self.make(Home(tmp_path / name), found[name], {})
            rows = rows_of(page, table.about[:1].upper() + escape(table.about[1:]) + f" ({table.dataset}")
            rows = [row for row in rows if not row["system"].startswith("control")]
            assert [row["system"] for row in rows] == [escape(row.system) for row in table.rows]
            for shown, row in zip(rows, table.rows, strict=True):
                numbers = {metric: shown.get(f"{short} paper", NOTHING) for metric, short in SHOWN.items()}
                assert {m: float(text) for m, text in numbers.items() if text != NOTHING} == row.metrics
                seen += len(row.metrics)
                assert (shown["run"] == "cited") == (not row.own)
        assert seen == 607

    def test_differences_and_verdicts(self, found: dict[str, Reproduction], tmp_path: Path) -> None:
        """Table 4 of RecNet prints 72.2, 78.9, 76.2 and 80.3."""
        made = {
            f"table4: row {number}": [
                record(
                    method=method,
                    seed=seed,
                    made={"cider": value},
                    **as_printed(train={"data_fraction": number}),
                )
                for seed, value in enumerate(values)
            ]
            for number, method, values in (
                (1, "salstm", [71.0, 72.0, 73.0]),
                (2, "recnet", [70.0, 70.1, 69.9]),
                (3, "salstm", [80.0]),
                (4, "recnet", [90.0, 90.1, 89.9]),
            )
        }
        rows = rows_of(self.make(Home(tmp_path), found["recnet/table4"], made), "Half")
        assert [row["CIDEr here"] for row in rows] == [
            "72.00 ± 1.00 (3)",
            "70.00 ± 0.10 (3)",
            "80.00 (1)",
            "90.00 ± 0.10 (3)",
        ]
        assert [row["CIDEr difference"] for row in rows] == ["-0.20", "-8.90", "+3.80", "+9.70"]
        assert [row["verdict"] for row in rows] == ["CIDEr within", "CIDEr below", "none from one seed", "CIDEr above"]
        for row in rows:
            for path in re.findall(r"\((\.\./[^)]+record\.json)\)", row["records"]):
                assert Path(os.path.normpath(tmp_path / "leaderboards/reproductions/recnet" / path)).is_file()

    @pytest.mark.parametrize(
        ("values", "printed", "expected"),
        [
            ([10.0, 11.0], 10.5, "within"),
            ([10.0, 11.0], 21.5, "within"),  # t of one degree of freedom is 12.7: two seeds say little
            ([10.0, 11.0], 21.6, "below"),
            ([10.0, 11.0], -0.6, "above"),
            ([10.0, 10.0, 10.0], 10.1, "below"),
            ([float(value) for value in range(60)], 64.7, "within"),
            ([float(value) for value in range(60)], 64.8, "below"),
        ],
    )
    def test_the_interval_of_a_verdict(self, values: list[float], printed: float, expected: str) -> None:
        """By hand: 10.5 ± 12.706 x 0.7071 x sqrt(1.5) = 10.5 ± 11.003; 29.5 ± 2.001 x 17.464 x sqrt(61/60) = 29.5 ± 35.24."""
        assert verdict(values, printed) == expected

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"dataset": "msvd-mine"}, "another data set (msvd-mine)"),
            ({"protocol": "standard"}, "the standard protocol"),
            ({"subset": [9, 8, 7]}, "a subset of the clips (9/8/7 of train, validation and test)"),
            ({"splits": "other"}, "other split lists (other)"),
            ({"split": "val"}, "another split (val)"),
            ({"absent_streams": ["audio"]}, "streams that are not there (audio)"),
        ],
    )
    def test_what_is_not_comparable_says_why(
        self, found: dict[str, Reproduction], tmp_path: Path, changes: dict[str, Any], reason: str
    ) -> None:
        made = [record(seed=seed, **as_printed(**changes)) for seed in (0, 1)]
        page = self.make(Home(tmp_path), found["recnet/table4"], {"table4: row 3": made})
        assert f"Not comparable with the printed numbers, because of {reason}." in page
        row = rows_of(page, "Half")[2]
        assert not {"CIDEr difference", "verdict"} & set(row), "no difference between numbers that are not comparable"
        other_clips = {"dataset", "subset", "split"} & set(changes)
        assert (row.get("CIDEr paper"), row["CIDEr here"]) == (None if other_clips else "76.2", "25.00 ± 0.00 (2)")
        assert ("scores are of its own clips: they stand among the" in page) == bool(other_clips)

    def test_gains_over_the_papers_base_stand_where_differences_may_not(
        self, found: dict[str, Reproduction], tmp_path: Path
    ) -> None:
        """Table 4 of RecNet prints 76.2 and 80.3 with all clips, 72.2 and 78.9 with half of them."""
        made = {
            f"table4: row {number}": [
                record(method=method, seed=0, made={"cider": score}, subset=[9, 8, 7], **as_printed())
            ]
            for number, method, score in ((3, "salstm", 20.0), (4, "recnet", 27.5), (2, "vre", 30.0))
        }
        rows = rows_of(self.make(Home(tmp_path), found["recnet/table4"], made), "Half")
        gains = [(row["base"], row["CIDEr gain, paper"], row["CIDEr gain, here"]) for row in rows]
        assert gains[3] == ("salstm:xe", "+4.10", "+7.50")
        assert {*gains[:3]} == {(NOTHING, NOTHING, NOTHING)}, "the base of half the clips was not run"

    @pytest.mark.parametrize("changes", [{"dataset": "shapes"}, {"protocol": "standard"}], ids=["other", "own"])
    def test_beside_other_clips_stand_gains_alone(
        self, found: dict[str, Reproduction], tmp_path: Path, changes: dict[str, Any]
    ) -> None:
        """Table 1 of EtENet cites eleven systems; its step 2 has CIDEr 86.6 over 83.5 and METEOR 34.3 over 33.6."""
        made = {
            f"table1: row {number}": [
                record(method="etenet", variant=variant, seed=0, made={"cider": score}, **as_printed(**changes))
            ]
            for number, variant, score in ((12, "step1", 20.0), (13, "step2", 27.5))
        }
        rows = rows_of(self.make(Home(tmp_path), found["etenet/table1"], made), "Main")
        own = "protocol" in changes
        assert sum(row["run"] == "cited" for row in rows) == 11 * own and len(rows) == 11 * own + 3
        step2 = next(row for row in rows if row["run"] == "etenet:step2")
        assert (step2["base"], step2["CIDEr gain, paper"], step2["CIDEr gain, here"]) == (
            "etenet:step1",
            "+3.10",
            "+7.50",
        )
        assert (step2.get("CIDEr paper"), step2.get("M gain, paper")) == (("86.6", None) if own else (None, "+0.70"))

    def test_a_declared_reason(self, found: dict[str, Reproduction], tmp_path: Path) -> None:
        made = [record(method="s2vt", seed=seed, **as_printed()) for seed in (0, 1)]
        rows = rows_of(self.make(Home(tmp_path), found["hail/table2"], {"table2: row 1": made}), "Loss")
        assert "verdict" not in rows[0]
        assert rows[0]["remarks"] == "not comparable: the paper does not state its features"
        assert rows[2]["remarks"] == "not run"

    def test_events_are_compared_only_by_the_papers_rules(self, found: dict[str, Reproduction], tmp_path: Path) -> None:
        terms: dict[str, Any] = {"dataset": "activitynet", "split": "val", "splits": "paper", "protocol": "paper"}
        by_clips = record(seed=0, **terms)
        page = self.make(Home(tmp_path / "a"), found["recnet/table5"], {"table5: row 1": [by_clips]})
        assert "scores by COCO's rules and not by densevid" in page
        assert "chosen on the validation clips, which are those reported" in page
        names = ("cider", "densevid_cider")
        scores = {
            "scores": {"val": dict(zip(names, (50.0, 30.0), strict=True))},
            "signatures": {"val": dict.fromkeys(names, "x")},
        }
        by_rules = [record(seed=seed, made=scores, **terms) for seed in (0, 1)]
        page = self.make(Home(tmp_path / "b"), found["recnet/table5"], {"table5: row 1": by_rules})
        row = rows_of(page, "Ground")[0]
        assert (row["CIDEr here"], row["CIDEr difference"], row["verdict"]) == (
            "30.00 ± 0.00 (2)",
            "+1.50",
            "CIDEr above",
        )

    def test_failed_unscored_and_absent_cells_are_seen(self, found: dict[str, Reproduction], tmp_path: Path) -> None:
        home = Home(tmp_path)
        done, failed = record(seed=0, **as_printed()), record("failed", seed=1, **as_printed())
        waiting = record("unscored", method="recnet", seed=0, **as_printed())
        gone = record(method="recnet", seed=7, **as_printed())
        made = {"table4: row 3": [done, failed], "table4: row 4": [waiting], "table4: row 2": [gone]}
        self.make(home, found["recnet/table4"], made)
        (cell_folder(home.results, gone) / "record.json").unlink()
        page = to_markdown(document(found["recnet/table4"], home))
        rows = rows_of(page, "Half")
        assert [row["remarks"] for row in rows] == [
            "not run",
            "not run",
            "FAILED seed 1 (fit): boom",
            "unscored seed 0",
        ]
        assert (rows[2]["CIDEr here"], rows[2]["CIDEr difference"]) == ("25.00", NOTHING), (
            "no mean over incomplete seeds"
        )

    def test_one_table_does_not_mix_signatures(self, found: dict[str, Reproduction], tmp_path: Path) -> None:
        two = [
            record(method="salstm", seed=0, **as_printed()),
            record(method="recnet", seed=0, **as_printed()),
        ]
        other = {name: f"{name}|refs:other" for name in ("bleu4", "meteor", "rouge_l", "cider")}
        odd = record(method="recnet", seed=0, made={"signatures": {"test": other}}, **as_printed(engine=7))
        made = {"table4: row 1": [two[0]], "table4: row 3": [two[1]], "table4: row 4": [odd]}
        rows = rows_of(self.make(Home(tmp_path), found["recnet/table4"], made), "Half")
        assert rows[3]["CIDEr here"] == NOTHING
        assert rows[3]["remarks"] == "seed 0 left out: scored with another signature"

    def test_in_small_the_page_says_so_at_the_top(self, found: dict[str, Reproduction], tmp_path: Path) -> None:
        made = {"table4: row 3": [record(dataset="shapes", subset=list(SMALL.subset))]}
        page = self.make(Home(tmp_path), found["recnet/table4"], made, dataset="shapes", small=True)
        assert page.index("Made in small.") < page.index("## 1. In small: shapes, standard protocol")
        assert "`bench reproduce recnet/table4 scale=small`" in page
        assert "have not been run on the data of the paper here" in page
        assert "Made in small." not in self.make(Home(tmp_path / "full"), found["recnet/table4"], {})

    def test_controls_follow_the_printed_rows(self, found: dict[str, Reproduction], tmp_path: Path) -> None:
        rows = rows_of(self.make(Home(tmp_path), found["etenet/table1"], {}), "Main")
        assert (rows[-1]["system"], rows[-1]["run"]) == (
            "control: step 2 with the encoder frozen",
            "etenet:step2_frozen",
        )
        assert rows[-1]["CIDEr paper"] == NOTHING

    def test_bytes_are_stable_and_drift_is_found(self, found: dict[str, Reproduction], tmp_path: Path) -> None:
        home = Home(tmp_path)
        one = record(**as_printed())
        self.make(home, found["recnet/table4"], {"table4: row 3": [one]})
        written = pages.write(home)
        assert [path.relative_to(home.leaderboards).as_posix() for path in written] == [
            "reproductions/recnet/table4.md",
            "reproductions/recnet/table4.html",
            "reproductions/README.md",
            "reproductions/index.html",
        ]
        before = {path: path.read_bytes() for path in written}
        assert pages.write(home) == []
        assert pages.write(home, check=True) == []
        put(home.results, one.model_copy(update={"scores": {"test": {**one.scores["test"], "cider": 99.0}}}))
        assert pages.write(home, check=True) == written[:2]
        assert {path: path.read_bytes() for path in written} == before, "--check writes nothing"
        assert pages.write(home) == written[:2]

    def test_without_anything_asked_for_there_are_no_pages(self, tmp_path: Path) -> None:
        assert pages.write(Home(tmp_path)) == []
        assert not (tmp_path / "leaderboards").exists()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def runner(world: World, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runner replaced by one that leaves a sound record of each cell; returns what it was asked for."""
    import bench.run.prepare
    import bench.run.runner

    ran: list[list[str]] = []

    def run(cells: Any, home: Any, spec: Any, **more: Any) -> int:
        ran.append([f"{cell.config['dataset']} {cell.config['title']} {cell.config['seed']}" for cell in cells])
        for cell in cells:
            world.add_record(cell)
        return 0

    monkeypatch.setattr(bench.run.runner, "run", run)
    monkeypatch.setattr(bench.run.prepare, "prepare", lambda *given: None)
    monkeypatch.setattr(bench.run.prepare, "refuse_empty_splits", lambda *given: None)
    return ran


class TestCommands:
    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            ([], "command line: name one target, such as bench reproduce recnet/table7 .*"),
            (["toy", "toy/table1"], "command line: name one target, .*"),
            (["toy/tabel1"], 'unknown target "toy/tabel1"; allowed: toy/table1; did you mean "toy/table1"\\?'),
            (
                ["toy", "scale=smal"],
                "command line: scale is 'smal', but must be one of full, small; did you mean \"small\"\\?",
            ),
            (
                ["toy", "scale=small", "dataset=little"],
                "command line: scale=small has its own data set and protocol; .*",
            ),
            (["toy", "seed=1"], 'command line: unknown key "seed"; allowed: .*; did you mean "seeds"\\?'),
            (["toy", "seeds=[-1]"], "command line: seeds holds -1, but a seed must be at least 0"),
            (["toy", "executor=rya"], 'command line: executor is .*; did you mean "ray"\\?'),
            (["toy", "dataset=litle"], 'toy/table1: unknown data set "litle"; .*'),
            (["toy", "--retry"], 'command line: unknown flag "--retry"; allowed: --retry-failed.*'),
            (["list", "toy"], "command line: 'toy' is not key=value; allowed keys: none"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_status_2_and_a_sentence(self, bench: Run, world: World, words: list[str], sentence: str) -> None:
        status, out, err = bench("reproduce", *words)
        assert (status, out) == (2, "")
        assert re.match(f"bench: {sentence}\n", err), err
        assert not (world.home.results / "reproductions").exists()

    def test_without_data_it_names_the_files_and_the_way_in_small(self, bench: Run, world: World) -> None:
        status, out, err = bench("reproduce", "toy/table1")
        assert (status, out) == (2, "")
        first, second = err.splitlines()
        assert first.startswith("bench: toy/table1: the captions of data set little are not here: jsonl needs ")
        assert "bench reproduce toy/table1 scale=small" in second
        assert "shapes" in second

    def test_a_target_runs_and_is_written(self, bench: Run, world: World, runner: list[list[str]]) -> None:
        world.write("shelf/little/captions.jsonl", '{"clip": "a", "caption": "a cat"}\n')
        status, out, err = bench("reproduce", "toy/table1", "seeds=[0,1]", "executor=inline")
        assert (status, err) == (0, "")
        assert runner == [
            [
                *(f"little Toy-one {seed}" for seed in (0, 1)),
                *(f"little Toy-two {seed}" for seed in (0, 1)),
                *(f"little Toy-two (lambda=0) {seed}" for seed in (0, 1)),
            ]
        ]
        page = world.home.leaderboards / "reproductions" / "toy" / "table1.md"
        assert str(page) in out
        rows = rows_of(page.read_text(), "All of it")
        assert [row["CIDEr here"] for row in rows] == [NOTHING, *["31.25 ± 0.00 (2)"] * 3]
        assert [row["CIDEr difference"] for row in rows] == [NOTHING, "+0.25", "-8.75", NOTHING]
        assert bench("leaderboard", "--check")[0] == 0
        page.write_text(page.read_text().replace("31.25", "32.25"))
        status, out, _ = bench("leaderboard", "--check")
        assert status == 1
        assert f"{page} is not what the records say" in out

    def test_in_small_and_later_more_seeds(self, bench: Run, world: World, runner: list[list[str]]) -> None:
        for seeds in ("seeds=[0]", "seeds=[2]"):
            assert bench("reproduce", "toy", "scale=small", seeds)[0] == 0
        assert [sorted({name.split()[0] for name in names}) for names in runner] == [["shapes"], ["shapes"]]
        page = (world.home.leaderboards / "reproductions" / "toy" / "table1.md").read_text()
        assert [row["CIDEr here"] for row in rows_of(page, "All of it")][1] == "31.25 ± 0.00 (2)"
        assert "Made in small" in page

    def test_a_figure_that_does_not_exist_is_a_sentence(
        self, bench: Run, world: World, runner: list[list[str]]
    ) -> None:
        declare(world, draw=[{"table": "table1"}, {"figure": "pie"}])
        status, _, err = bench("reproduce", "toy/table1", "scale=small")
        assert status == 2
        assert "bench: toy/table1 declares the figure pie, which does not exist" in err

    def test_what_cannot_run_does_not_stop_the_rest(self, bench: Run, world: World, runner: list[list[str]]) -> None:
        cells = [{"run": "toy:one", "system": "Toy-one", "prints": {"table1": 2}}, {"run": "toy:three", "control": "x"}]
        declare(world, cells=cells)
        status, _, err = bench("reproduce", "toy/table1", "scale=small")
        assert status == 1
        assert 'toy/table1: method toy: unknown variant "three"' in err
        page = (world.home.leaderboards / "reproductions" / "toy" / "table1.md").read_text()
        rows = rows_of(page, "All of it")
        assert "streams that are not there (words)" in page
        assert [row["remarks"] for row in rows] == [NOTHING, "not run"]
        assert [row["run"] for row in rows] == ["toy:one", "toy:three"]

    def test_a_stopped_run_writes_nothing(
        self, bench: Run, world: World, runner: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bench.run.runner.run", lambda *given, **more: 130)
        assert bench("reproduce", "toy", "scale=small")[0] == 130
        assert not (world.home.results / "reproductions").exists()

    def test_list(self, bench: Run, world: World, runner: list[list[str]]) -> None:
        bench("reproduce", "toy", "scale=small")
        status, out, _ = bench("reproduce", "list")
        assert status == 0
        assert re.search(r"^toy/table1 +toys compared +little +3 +3 cannot run \[1\] +3 done$", out, re.M), out
        assert "[1] toy/table1: the captions of data set little are not here" in out
        world.write("shelf/little/captions.jsonl", '{"clip": "a", "caption": "a cat"}\n')
        assert re.search(r"^toy/table1 .* 3 missing +3 done$", bench("reproduce", "list")[1], re.M)
        (world.home.cache / "shapes" / "frames.json").unlink()
        out = bench("reproduce", "list")[1]
        assert re.search(r"^toy/table1 .* 3 missing +3 not known yet$", out, re.M), out
        assert "not known yet: cells whose features are not in the cache" in out

    def test_list_says_a_shared_reason_once(self, world: World) -> None:
        reasons = Reasons()
        lacks = "under protocol=paper reads the stream words, which data set little lacks"
        numbers = [
            reasons.number(f"toy:one {lacks}", "toy/table1"),
            reasons.number("the captions of little are not here", "toy/fig1"),
            reasons.number(f"toy:two {lacks}", "toy/table2"),
        ]
        assert numbers == ["1", "2", "1"]
        assert reasons.sentences() == [
            f"[1] toy/table1, toy/table2: toy:one, as well as toy:two, {lacks}",
            "[2] toy/fig1: the captions of little are not here",
        ]

    def test_list_tells_errors_of_declarations(self, bench: Run, world: World) -> None:
        cells = [{"run": "toy:three", "system": "Toy-one", "prints": {"table1": 2}}]
        declare(world, cells=cells, draw=[{"table": "table1"}, {"figure": "pie"}])
        status, out, _ = bench("reproduce", "list")
        assert status == 1
        assert re.search(r"^toy/table1 .* 1 in error +1 in error$", out, re.M)
        assert 'toy/table1: method toy: unknown variant "three"; allowed: one, two, *' in out
        assert 'toy/table1: unknown figure "pie"; allowed: ' in out
