"""`bench tune` before anything runs: spaces, points, requests, what a search remembers, and its page."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_world import PLAIN, TOY, World

from bench import BenchError
from bench.cli.main import main
from bench.declare.card import Interval, MethodCard
from bench.declare.options import keys
from bench.declare.registry import find_methods, method_entry
from bench.disk.locks import cell_lock
from bench.plan.request import RunSpec
from bench.run.runner import Signals
from bench.tracking.background import open_tracking
from bench.tuning import pages
from bench.tuning.recorder import Recorder
from bench.tuning.request import How, TuneSpec, parse
from bench.tuning.space import describe, grid, resolve, scattered
from bench.tuning.study import Report, Study, Trial, load, save, studies
from bench.tuning.table import as_csv, frame
from bench.tuning.trial import value_of
from bench.tuning.tune import _searched, last_stage, tune

RATE_SPACE = "search_space: {train.learning_rate: [0.001, 0.01]}\n"
RATES = Interval(min=1e-4, max=1e-2, log=True)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    made.add_stream("frames")
    return made


def card(name: str = "toy") -> MethodCard:
    found = method_entry(name, find_methods()).card
    assert found is not None
    return found


def ask(world: World, *words: str, methods: str = "toy") -> list[Study]:
    spec = parse([f"methods={methods}", f"dataset={world.dataset}", *words])
    return studies(spec, world.home, find_methods())


class TestSpaces:
    def test_the_cards_of_the_papers_can_be_searched(self) -> None:
        spaces = {name: entry.card.search_space for name, entry in find_methods().items() if entry.card}
        assert {"recnet", "vre", "hail", "etenet"} <= {name for name, space in spaces.items() if space}
        assert set(spaces["hail"]) == {"information_weight", "relevance_exponent"}

    def test_aliases_and_shared_settings_are_read_by_their_own_names(self, world: World) -> None:
        rates = {"min": 1e-4, "max": 1e-2, "log": True}
        space = card().space({"lambda": [0, 1], "train.learning_rate": rates}, "here")
        assert space == {"weight": [0.0, 1.0], "train.learning_rate": RATES}

    @pytest.mark.parametrize(
        ("space", "says"),
        [
            ({"lamda": [0.1]}, r'here: unknown setting "lamda"; allowed: .*weight \(lambda\).* did you mean'),
            ({"weight": [0.1], "lambda": [0.2]}, "here: weight is given twice"),
            ({"weight": [2.0]}, "here.weight is 2.0, but must be at most 1"),
            ({"weight": []}, r"here.weight is \[\], but must be a list of values"),
            ({"weight": 0.5}, "here.weight is 0.5, but must be a list of values"),
            ({"weight": [0.5, 0.5]}, "here.weight holds 0.5 twice"),
            ({"weight": {"min": 0.5, "max": 0.1}}, "here.weight: .*min is 0.5 and max 0.1"),
            ({"weight": {"min": 0.0, "max": 0.1, "log": True}}, "which has no logarithm"),
            ({"weight": {"min": 0.1, "max": 7.0}}, "here.weight is 7.0, but must be at most 1"),
            ({"weight": {"low": 0.1, "max": 0.5}}, 'here.weight: unknown key "low"'),
            ({"depth": {"min": 1.0, "max": 3.0}}, "here.depth is 1.0, but must be a whole number"),
            ({"train.learning_rat": [1e-3]}, 'unknown setting "learning_rat".* did you mean "learning_rate"'),
            ({"train.learning_rate": [-1.0]}, "here.train.learning_rate: learning_rate is -1.0"),
            ({"train.epochs": {"min": 1.0, "max": 3.0}}, "epochs"),
        ],
    )
    def test_what_cannot_be_searched(self, world: World, space: dict[str, Any], says: str) -> None:
        with pytest.raises(BenchError, match=says):
            card().space(space, "here")

    def test_a_card_with_an_unsound_space_is_refused(self, world: World) -> None:
        world.add_method("odd", PLAIN.replace("name: plain", "name: odd") + "search_space: {width: [wide]}\n")
        assert "search_space.width is 'wide'" in str(find_methods()["odd"].error)


class TestPoints:
    def test_a_grid_in_the_order_of_its_lists(self) -> None:
        space = {"a": [1, 2], "b": ["x", "y", "z"]}
        own = {"a": 2, "b": "y"}
        points = grid(space, None, 0, own)
        others = [(a, b) for a in (1, 2) for b in "xyz" if (a, b) != (2, "y")]
        assert [tuple(point.values()) for point in points] == [(2, "y"), *others], "the row's own is the first"
        drawn = grid(space, 4, 0, own)
        assert len(drawn) == 4 and drawn[0] == own and all(point in points for point in drawn)
        assert [points.index(point) for point in drawn] == sorted(points.index(point) for point in drawn)
        assert grid(space, 4, 1, own) != drawn, "another seed, other points"
        assert len(grid(space, None, 0, {"a": 7, "b": "x"})) == 7, "a printed value that the card does not search"
        with pytest.raises(BenchError, match="search=grid needs lists of values, and b is an interval"):
            grid({"a": [1], "b": RATES}, None, 0, {})

    def test_what_does_not_matter_is_left_out(self, world: World) -> None:
        asked = {"depth": {"values": [1, 2, 3], "when": {"mode": ["on"]}}, "mode": ["on", "local"]}
        searched = card().space(asked, "here")
        space, conditions = resolve(searched, {"mode": "local", "depth": 2})
        assert conditions == {"depth": {"mode": ["on"]}}
        points = grid(space, None, 0, {"mode": "local"}, conditions)
        assert points == [{"mode": "local"}, *({"depth": depth, "mode": "on"} for depth in (1, 2, 3))]
        drawn = scattered(space, 40, 0, {"mode": "local"}, conditions)
        assert {("depth" in point) for point in drawn if point["mode"] == "on"} == {True}
        assert not any("depth" in point for point in drawn if point["mode"] == "local")
        alone = card().space({"depth": asked["depth"], "weight": [0.5]}, "here")
        assert resolve(alone, {"mode": "local"}) == ({"weight": [0.5]}, {}), "the row decides"
        assert resolve(alone, {"mode": "on"}) == ({"depth": [1, 2, 3], "weight": [0.5]}, {})
        with pytest.raises(BenchError, match=r"here.depth.when.mode is 'off', but must be one of"):
            card().space({"depth": {"values": [1], "when": {"mode": "off"}}}, "here")

    def test_one_more_parameter_changes_no_other(self) -> None:
        own = {"rate": 5e-4, "weight": 0.1}
        alone = scattered({"rate": RATES}, 20, 3, own)
        both = scattered({"weight": [0.1, 0.2, 0.3], "rate": RATES}, 20, 3, own)
        assert alone[0] == own and [point["rate"] for point in both] == [point["rate"] for point in alone]
        assert scattered({"rate": RATES}, 30, 3, own)[:20] == alone, "nor do more trials"
        assert scattered({"rate": RATES}, 20, 4, own) != alone

    def test_no_point_is_drawn_twice(self) -> None:
        own = {"weight": 0.1}
        points = scattered({"weight": [0.1, 0.2, 0.3, 0.4]}, 3, 0, own)
        assert len({point["weight"] for point in points}) == 3 and points[0] == own
        assert len(scattered({"weight": [0.1, 0.2, 0.3, 0.4]}, 9, 0, own)) == 4, "there are no more"

    def test_values_are_spread_as_declared(self) -> None:
        points = scattered({"log": RATES, "even": Interval(min=-1, max=3), "one": ["a", "b", "c", "d"]}, 4001, 0, {})[
            1:
        ]
        below = sum(point["log"] < 1e-3 for point in points) / 4000  # the middle of 1e-4 .. 1e-2 in the logarithm
        even = sum(point["even"] < 1 for point in points) / 4000
        # Four deviations of a share of one half over 4,000 draws.
        assert abs(below - 0.5) < 0.032 and abs(even - 0.5) < 0.032
        assert all(abs(sum(point["one"] == name for point in points) / 4000 - 0.25) < 0.028 for name in "abcd")
        assert all(1e-4 <= point["log"] <= 1e-2 and -1 <= point["even"] <= 3 for point in points)

    def test_in_words(self, world: World) -> None:
        point = {"weight": 0.25, "depth": 3, "train.learning_rate": 5e-4, "train.epochs": 4}
        assert describe(card(), point) == "lambda=0.25 depth=3 learning_rate=0.0005 epochs=4"


class TestProposals:
    SPACE = ('space.toy.mode=["on","local"]', 'space.toy.depth={values: [1,2,3], when: {mode: ["on"]}}')

    def proposals(self, study: Study, report: Report) -> Any:
        """What proposes points, after this project's own import of Ray Tune."""
        import bench.tuning.search  # noqa: F401
        from bench.tuning.proposals import Proposals

        return Proposals(study, report)

    def test_no_point_is_proposed_twice(self, world: World) -> None:
        """The score makes one point far better than all others, which is where Optuna would stay."""
        (study,) = ask(world, "search=optuna", "trials=4", *self.SPACE)
        report = load(study, world.home, 1)
        found = self.proposals(study, report)
        points = []
        for number in range(4):
            points.append(study.that_matter(found.suggest(str(number))))
            found.on_trial_result(str(number), {"value": 1.0, "training_iteration": 1})
            value = 100.0 if points[-1] == study.first else 1.0 / (1 + number)
            found.on_trial_complete(str(number), {"value": value, "training_iteration": 1})
        assert points[0] == study.first
        assert sorted(map(str, points)) == sorted(map(str, grid(study.space, None, 0, study.first, study.conditions)))

    def test_those_that_are_being_tried_or_failed_are_not_proposed(self, world: World) -> None:
        (study,) = ask(world, "search=optuna", "trials=4", *self.SPACE)
        report = load(study, world.home, 1)
        point = next(one for one in grid(study.space, None, 0, study.first, study.conditions) if one != study.first)
        report.trials = [
            Trial(number=0, point=study.first, key="a", state="failed", message="its worker process was lost"),
            Trial(number=1, point=point, key="b", state="completed", value=50.0),
        ]
        found = self.proposals(study, report)
        points = [study.that_matter(found.suggest(name)) for name in ("c", "d")]
        assert points[0] != points[1] and not any(one in (study.first, point) for one in points)


class TestRequests:
    def test_what_is_asked(self, world: World) -> None:
        words = ["methods=toy", f"dataset={world.dataset}", "search=random", "search.beam=3", "trials=4", "tune_seed=7"]
        spec = parse(
            [*words, "space.toy.lambda=[0.1,0.3]", "space.toy.train.learning_rate={min: 1e-4, max: 1e-2, log: true}"]
        )
        assert (spec.how.search, spec.how.scheduler, spec.how.trials, spec.how.seed) == ("random", "fifo", 4, 7)
        assert spec.run.search.beam == 3, "search.beam stays that of decoding"
        assert spec.spaces == {"toy": {"weight": [0.1, 0.3], "train.learning_rate": RATES}}

    def test_no_key_of_run_is_taken_twice(self) -> None:
        assert set(keys(How)) & set(keys(RunSpec)) == {"search"}

    def test_a_plan_file_holds_a_search_too(self, world: World, tmp_path: Path) -> None:
        plan = world.write(
            "tune.yaml", "search: random\ntrials: 3\nspace: {toy: {lambda: [0.1, 0.9]}}\nmethods: [toy]\n"
        )
        spec = parse([str(plan), f"dataset={world.dataset}", "trials=5"])
        assert (spec.how.search, spec.how.trials, spec.spaces["toy"]) == ("random", 5, {"weight": [0.1, 0.9]})

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["trials=0"], "trials is 0, but must be at least 1"),
            (["search=bayes"], "search is 'bayes', but must be one of grid, random, optuna"),
            (["scheduler=bohb"], "scheduler is 'bohb', but must be one of fifo, asha, hyperband, pbt"),
            (["metric=meteor"], "metric is 'meteor', but must be one of bleu1, .*, rouge_l, cider"),
            (["time_limit=0"], "time_limit is 0, but must be greater than 0"),
            (["seeds_per_trial=0"], "seeds_per_trial is 0, but must be at least 1"),
            (["scheduler=pbt", "trials=1"], "a population of one has nobody to learn from"),
            (["scheduler=pbt", "space.toy.lambda=[0.1]"], "a population of one has nobody to learn from"),
            (["scheduler=pbt", "search=optuna", "trials=4"], "a population proposes its own points"),
            (["scheduler=pbt", "space.toy.depth=[1,2]"], "depth is no weight or rate that can change"),
            (["scheduler=pbt", "space.toy.train.data_fraction=[0.5,1.0]"], "data_fraction is no weight or rate"),
            (["space.toy.lamda=[1]"], r'space.toy: unknown setting "lamda"'),
            (["space.plain.width=[4]"], r'space.plain: methods=toy: unknown method "plain"'),
            (["trial=3"], 'unknown key "trial".* did you mean "trials"'),
            (["trials=4"], r"trials=4, but the grids have fewer points \(toy:two 3\)"),
            (["search=random"], "trials= is missing: search=random needs to be told"),
            (["search=random", "trials=9"], "trials=9, but the space of toy:two has 3 points, its own among them"),
            (["search=optuna", "trials=4"], "trials=4, but the space of toy:two has 3 points|needs the package optuna"),
            (["split=val"], "split=val: a search chooses on the validation clips and must report others"),
            (["executor=inline"], "executor=inline: a search is run by Ray Tune"),
            (["storage=runs"], "storage=runs is neither an absolute path nor a URL"),
            (["resources.gpus=0.3"], "gpus is 0.3, but a share of a GPU must divide one"),
            (["executor.address=cluster"], "executor.address is 'cluster', but must be local, auto or HOST:PORT"),
        ],
    )
    def test_bad_requests_are_sentences(
        self, world: World, capsys: pytest.CaptureFixture[str], words: list[str], says: str
    ) -> None:
        status = main(["tune", "methods=toy", f"dataset={world.dataset}", *words])
        err = capsys.readouterr().err
        assert status == 2
        assert re.search(says, err), err
        assert "Traceback" not in err

    def test_a_method_without_a_space_says_how_to_name_one(self, world: World) -> None:
        with pytest.raises(
            BenchError, match=r"the card of plain names nothing to search; name it, such as space\.plain"
        ):
            ask(world, methods="toy,plain")

    def test_every_method_gets_as_many_trials(self, world: World) -> None:
        world.add_method("more", PLAIN.replace("name: plain", "name: more") + "search_space: {width: [4, 8, 16]}\n")
        with pytest.raises(
            BenchError, match=r"different numbers of points \(toy:two 3, more:xe 4\).*name trials=3 or fewer"
        ):
            ask(world, methods="toy,more")
        assert [len(study.points or []) for study in ask(world, "trials=2", methods="toy,more")] == [2, 2]


class TestStudies:
    def test_trials_are_cells_of_their_own(self, world: World) -> None:
        (study,) = ask(world, "seeds=[3,4]", "train.epochs=2")
        cells = [study.cell(point, world.home) for point in study.points or []]
        assert [cell.config["settings"]["weight"] for cell in cells] == [0.1, 0.0, 0.5]
        assert {cell.config["split"] for cell in cells} == {"val"}
        assert {cell.config["seed"] for cell in cells} == {0}, "the trials' seed, not one of the last stage"
        assert len({cell.key for cell in cells}) == 3
        for cell in cells:
            assert cell.folder(world.home).is_relative_to(world.home.work), "no trial lies among the results"

    def test_another_search_is_another_file(self, world: World) -> None:
        paths = [
            ask(world, *words)[0].path(world.home)
            for words in (
                [],
                ["trials=1"],
                ["tune_seed=1"],
                ["train.epochs=3"],
                ["scheduler=asha"],
                ["space.toy.weight=[0.3]"],
            )
        ]
        assert len(set(paths)) == len(paths)
        assert ask(world, "seeds=[5]", "threads=2", "storage=/runs")[0].path(world.home) == paths[0], (
            "neither seeds of the last stage nor a place search anything"
        )

    def test_variants_and_settings_stay(self, world: World) -> None:
        first, second = ask(world, "toy.depth=4", methods="toy:one,toy:two")
        assert (first.row, second.row) == ("toy:one", "toy:two")
        assert first.cell({"weight": 0.5}, world.home).config["settings"]["depth"] == 4
        rate = first.cell({"weight": 0.5, "train.learning_rate": 1e-3}, world.home)
        assert rate.config["train"]["learning_rate"] == 1e-3
        assert rate.config["train"]["epochs"] == 7, "the data set's own"

    def test_time_is_counted_since_the_searched_settings_act(self, world: World) -> None:
        late = TOY.replace("alias: lambda,", "alias: lambda, acts: more,")
        world.add_method("toy", late)
        one, two = (ask(world, "space.toy.lambda=[0.5]", methods=row)[0] for row in ("toy:one", "toy:two"))
        assert (one.untouched, two.untouched) == (0.0, 0.25), "phases of the row"
        assert (one.before, two.before) == ((), ("base",))
        job = SimpleNamespace(folder=str(world.root / "trial"))
        (world.root / "trial" / "work").mkdir(parents=True)
        rows = [("base", 1, 10, 40.0), ("base", 2, 20, 30.0), ("more", 1, 30, 31.0), ("more", 2, 40, 29.0)]
        lines = [f"{phase},{epoch},{captions},1.0,val_cider_tokens,{value}" for phase, epoch, captions, value in rows]
        text = "\n".join(["phase,epoch,captions,seconds,name,value", *lines]) + "\n"
        (world.root / "trial" / "work" / "curves.csv").write_text(text, encoding="utf-8")
        assert value_of([job], "cider", two.before) == 31.0, "also where a phase ends far below its share of the budget"  # type: ignore[list-item]
        (both,) = ask(world, "space.toy.lambda=[0.5]", "space.toy.depth=[3]", methods="toy:two")
        assert both.untouched == 0.0
        (rate,) = ask(world, "space.toy.train.learning_rate=[1e-3]", methods="toy:two")
        assert rate.untouched == 0.0
        world.add_method("toy", late.replace("acts: more", "acts: most"))
        assert 'settings.weight.acts: unknown phase "most"; allowed: base, more' in str(find_methods()["toy"].error)

    def test_a_size_that_only_one_of_the_methods_has_is_no_mistake(self, world: World) -> None:
        world.add_method(
            "bare",
            PLAIN.replace("name: plain", "name: bare").replace("width:", "height:").replace(", shared: true", "")
            + RATE_SPACE,
        )
        world.add_method("sized", PLAIN.replace("name: plain", "name: sized") + RATE_SPACE)
        bare, sized = ask(world, "model.width=8", methods="bare,sized")
        assert [study.cell(study.first, world.home).config["settings"] for study in (bare, sized)] == [
            {"height": 512},
            {"width": 8},
        ]
        with pytest.raises(BenchError, match=r"model\.width is set, but none of the methods bare has such a setting"):
            tune(parse(["methods=bare", f"dataset={world.dataset}", "model.width=8"]), world.home, find_methods())

    def test_settings_of_a_loss_on_loan_reach_trials_and_last_cells(self, world: World) -> None:
        lender = TOY.replace("name: toy", "name: lender").replace("alias: lambda,", "alias: lambda, of_loss: true,")
        world.add_method("lender", lender + "provides: {loss: weighed}\n")
        world.add_method("toy", TOY + "takes: {loss: {mode: [local]}}\n")
        (study,) = ask(world, "loss=weighed", "lender.lambda=0.37", "space.toy.lambda=[0.5]")
        (report,) = [load(study, world.home, 100)]
        report.trials, report.chosen = (
            [Trial(number=0, point={"weight": 0.5}, key="a", state="completed", value=2.0)],
            0,
        )
        cells = [study.base, study.cell({"weight": 0.5}, world.home), *last_stage(study, report, world.home)]
        assert [cell.config["loss"]["settings"]["weight"] for cell in cells] == [0.37] * 3

    def test_two_commands_are_not_at_one_search(self, world: World) -> None:
        (study,) = ask(world)
        with cell_lock(world.home, study.digest), Signals() as signals:
            script = (
                "import sys; from bench.disk.locks import *; from bench.home import Home; from pathlib import Path\n"
                f"with cell_lock(Home(Path({str(world.home.root)!r})), {study.digest!r}, wait=0): pass"
            )
            assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode != 0
            with pytest.raises(
                BenchError, match=r"another command \(process \d+\) is at this search of toy:two: wait until"
            ):
                _searched(study, world.home, signals)

    def test_what_a_search_remembers(self, world: World) -> None:
        (study,) = ask(world)
        report = load(study, world.home, 100)
        assert report.trials == [] and report.best() is None
        point = {"weight": 0.5}
        report.trials.append(Trial(number=1, point=point, key="b", state="stopped", value=20.0, curve=[(50, 20.0)]))
        report.trials.append(Trial(number=0, point={"weight": 0.0}, key="a", state="completed", value=20.0))
        save(report, study.path(world.home))
        again = load(study, world.home, 100)
        assert [trial.number for trial in again.trials] == [0, 1]
        best = again.best()
        assert best is not None and best.number == 0, "the first of equals"
        study.path(world.home).write_text("{")
        with pytest.raises(BenchError, match=r"remove it and run the same command again"):
            load(study, world.home, 100)


def test_a_running_trial_has_a_line_a_minute(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that trains says how far it is; one that has ended is in the report and says nothing more."""
    (study,) = ask(world)
    lines: list[str] = []
    now = {"seconds": 0.0}
    monkeypatch.setattr("time.monotonic", lambda: now["seconds"])
    report = load(study, world.home, 1000)
    recorder = Recorder(study, report, world.home, lines.append, [0, 1], open_tracking("off", world.home, "", print))
    first, second = (SimpleNamespace(trial_id=f"t{number}", config={"number": number}) for number in (0, 1))
    for trial in (first, second):
        recorder.on_trial_start(0, [], trial)
    recorder.on_trial_complete(0, [], second)
    work = study.cell({"weight": 0.1}, world.home).folder(world.home) / "work"
    work.mkdir(parents=True)
    del lines[:]
    for second_of in range(1, 200):
        now["seconds"] = float(second_of)
        if second_of == 100:
            header = "phase,epoch,captions,seconds,name,value"
            (work / "curves.csv").write_text(f"{header}\nbase,0,250,9.5,val_cider_tokens,12.5\n")
        recorder.on_step_end(second_of, [])
    label = f"{study.row} trial 0: lambda=0.1"
    assert lines == [
        f"{label}: running for 60 s",
        f"{label}: running for 2 min, 250 of 1,000 captions",
        f"{label}: running for 3 min, 250 of 1,000 captions",
    ]
    assert [(trial.number, trial.state) for trial in report.trials] == [(1, "stopped")]


def report_of(study: Study, values: list[float | None], chosen: int | None) -> Report:
    trials = [
        Trial(
            number=number,
            point=point,
            key=f"k{number}",
            state="failed" if value is None else "completed",
            value=value,
            captions=100,
            seconds=3.0,
            curve=[] if value is None else [(100, value)],
            message="a | pipe" if value is None else None,
        )
        for number, (point, value) in enumerate(zip(study.points or [], values, strict=True))
    ]
    made = load(study, study_home(study), 100)
    made.trials, made.chosen = trials, chosen
    return made


def study_home(study: Study) -> Any:
    from bench.home import find_home

    return find_home()


class TestPages:
    def spec(self, world: World) -> Study:
        return ask(world, "space.toy.lambda=[0.1,0.25,0.5]")[0]

    def test_a_page_from_the_reports_alone(self, world: World) -> None:
        study = self.spec(world)
        save(report_of(study, [21.0, 24.5, None], 1), study.path(world.home))
        written = pages.write(world.home)
        page = world.home.leaderboards / "tuning" / "little.md"
        places = {path.relative_to(page.parent).as_posix() for path in written}
        picture = next(place for place in places if place.endswith(".svg"))
        assert places == {"little.md", "little.html", "README.md", "index.html", picture}
        assert picture.startswith("figures/little/toy-two-")
        text = page.read_text()
        assert "Chosen: `lambda=0.25`, validation CIDEr 24.5; printed: `lambda=0.3`." in text
        assert "| 1 | lambda=0.25 | completed, chosen | 24.5 |" in " ".join(text.split())
        assert r"failed: a \| pipe" in text
        picture = next(path for path in written if path.suffix == ".svg").read_text()
        assert 'id="chosen"' in picture and 'id="printed"' in picture
        assert pages.write(world.home, check=True) == [] == pages.write(world.home)
        page.write_text(text.replace("24.5", "25.5"))
        assert pages.write(world.home, check=True) == [page]

    def test_searches_of_one_row_are_told_apart(self, world: World) -> None:
        for words in ([], ["subset=1/1/1"], ["train.epochs=3"], ["toy.depth=4"]):
            (study,) = ask(world, "space.toy.lambda=[0.1]", *words)
            save(report_of(study, [21.0], 0), study.path(world.home))
        pages.write(world.home)
        text = (world.home.leaderboards / "tuning" / "little.md").read_text()
        heads = [line for line in text.splitlines() if line.startswith("## ")]
        assert len(heads) == len(set(heads)) == 4 and "## toy depth=4" in str(heads) and "1/1/1" in str(heads)
        assert "; chosen by CIDEr; standard protocol" in text

    def test_a_report_outlives_its_plug_in_and_its_settings(self, world: World) -> None:
        study = self.spec(world)
        report = report_of(study, [21.0, 24.5, None], 1)
        for trial in report.trials:
            trial.point = {"renamed": trial.point["weight"]}
        report.space = {"renamed": report.space["weight"]}
        save(report, study.path(world.home))
        pages.write(world.home)
        page = world.home.leaderboards / "tuning" / "little.md"
        assert "Chosen: `renamed=0.25`, validation CIDEr 24.5" in page.read_text()
        report.row, report.config = "gone:one", {**report.config, "method": "gone"}
        save(report, study.path(world.home))
        pages.write(world.home)
        assert "gone:one: search grid" in page.read_text()

    def test_two_settings_make_a_map(self, world: World) -> None:
        (study,) = ask(world, "space.toy.weight=[0.3,0.1]", "space.toy.depth=[1,2]")
        save(report_of(study, [1.0, 2.0, 3.0, 2.5], 2), study.path(world.home))
        picture = next(path for path in pages.write(world.home) if path.suffix == ".svg").read_text()
        assert 'id="best-0"' in picture and 'id="printed-0"' in picture

    def test_what_became_of_a_population_is_drawn_and_told(self, world: World) -> None:
        (study,) = ask(
            world, "scheduler=pbt", "search=random", "trials=2", "space.toy.lambda={min: 0.01, max: 1, log: true}"
        )
        report = report_of(study, [21.0, 24.5], 1)
        report.trials[1].schedule = [(0, {"weight": 0.1}), (40, {"weight": 0.5})]
        save(report, study.path(world.home))
        written = pages.write(world.home)
        picture = next(path for path in written if path.suffix == ".svg").read_text()
        assert 'id="schedule-0-0"' in picture and 'id="schedule-0-1"' in picture
        page = (world.home.leaderboards / "tuning" / "little.md").read_text()
        assert "Chosen: `lambda=0.1, from 40 captions lambda=0.5`, validation CIDEr 24.5" in page
        assert "lambda is 0.1, 0.5 from 40 captions" in page, "what the picture shows, in words"
        first, *rows = csv.DictReader(io.StringIO(as_csv(report)))
        assert [row["chosen"] for row in (first, *rows)] == ["False", "True"] and first["schedule"] == ""
        assert json.loads(rows[0]["schedule"]) == [[0, {"weight": 0.1}], [40, {"weight": 0.5}]]
        assert frame(world.home.results / "tuning")["cider"].tolist() == [21.0, 24.5]

    def test_words_have_no_curve(self, world: World) -> None:
        (study,) = ask(world, 'space.toy.mode=["on",local]')
        save(report_of(study, [1.0, 2.0], 1), study.path(world.home))
        assert {path.suffix for path in pages.write(world.home)} == {".md", ".html"}

    def test_a_damaged_report_is_named(self, world: World) -> None:
        study = self.spec(world)
        save(report_of(study, [1.0, 2.0, 3.0], 2), study.path(world.home))
        content = json.loads(study.path(world.home).read_text())
        content["trials"][0]["state"] = "lost"
        study.path(world.home).write_text(json.dumps(content))
        with pytest.raises(BenchError, match=r"little/toy/two-\w+\.json \(remove it .*\): trials\.0\.state is 'lost'"):
            pages.write(world.home)


def test_a_spec_is_plain(world: World) -> None:
    spec = parse(["methods=toy", f"dataset={world.dataset}"])
    assert isinstance(spec, TuneSpec) and spec.how.trials is None
