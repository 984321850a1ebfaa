"""The command line: exit statuses, what is printed, and that nothing heavy is imported where it is not needed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_world import World

from bench import BenchError, __version__
from bench.cli import show
from bench.cli.commands import COMMANDS
from bench.cli.help import overview, page, rows
from bench.cli.main import main
from bench.declare.options import group_of, key_of, written
from bench.disk.locks import cell_lock
from bench.pages.terminal import columns
from bench.plan.cells import Cell, cells
from bench.plan.estimates import estimates
from bench.plan.request import parse

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "ray", "mlflow", "h5py", "pandas", "numpy")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.add_stream("frames")
    monkeypatch.setattr("bench.declare.registry.data_folder", lambda kind: tmp_path / "shelf")
    return world


Run = Callable[..., tuple[int, str, str]]


def every_option(model: Any) -> list[str]:
    """How help begins the line of each option of a model: key, flag or word; those of groups one by one."""
    found = []
    for name, field in model.model_fields.items():
        how, group = written(field), group_of(field.annotation)
        if how.apart and not field.description:
            assert (model.__name__, name) == ("Study", "seeds"), "every other option is described"
        elif group is not None:
            found += [f"{key_of(name, field)}.{below}" for below in group.model_fields]
        else:
            found.append(how.flag or how.word or (field.title or "").partition("=")[0] or key_of(name, field))
    return found


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command here; gives status, output, errors."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_output_without_room_is_a_sentence_about_the_output() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bench", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            timeout=60,
        )
    assert done.returncode == 2
    assert "the output cannot be written" in done.stderr
    assert done.stderr.count("\n") == 1


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_has_help_with_all_its_options_and_an_example(self, bench: Run, name: str) -> None:
        status, out, _ = bench(*name.split(), "--help")
        assert status == 0
        assert f"Example: bench {name}" in out
        for model in COMMANDS[name].models():
            for option in every_option(model):
                assert re.search(rf"^  {re.escape(option)}\b|^  {re.escape(option)}[= ]", out, re.M), option
            assert all(described for _, described in rows(model)), "an option without a description"
        assert f"bench {name} " in overview() + " "

    @pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
    def test_overview(self, bench: Run, words: tuple[str, ...]) -> None:
        assert bench(*words) == (0, overview() + "\n", "")

    def test_help_of_half_a_command(self, bench: Run) -> None:
        status, out, _ = bench("features", "--help")
        assert status == 0
        assert all(page(f"features {word}") in out for word in ("list", "check", "import"))

    def test_types_ranges_and_defaults_are_those_of_the_models(self, bench: Run) -> None:
        out = bench("run", "--help")[1]
        for line in (
            r"train\.epochs=N +passes over .* \(from 1, default 10\)",
            r"train\.scheduled_sampling=X .* \(from 0 to 1, default 0\.0\)",
            r"protocol=standard\|paper .* \(default standard\)",
            r"model\.dropout=X .* \(from 0 below 1\)",
            r"--retry-failed +run failed cells again",
        ):
            assert re.search(rf"^  {line}$", out, re.M), line

    def test_examples_of_requests_are_understood(self) -> None:
        for name in ("run", "plan"):
            words = page(name).rpartition(f"Example: bench {name} ")[2].split()
            assert parse(words).dataset == "msvd"

    def test_version(self, bench: Run) -> None:
        assert bench("version") == bench("--version") == (0, f"bench {__version__}\n", "")


class TestLastNet:
    """What no command expected reaches a person as a sentence, and its trace as a file."""

    @pytest.mark.parametrize(
        ("error", "status", "words"),
        [
            (ZeroDivisionError("division\nby zero"), 70, "a fault of bench.*ZeroDivisionError: division by zero"),
            (OSError(errno.EIO, "Input/output error", "disk/file"), 2, "disk/file: Input/output error"),
            (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 5000), 2, "nnn: File name too long"),
        ],
    )
    def test_a_fault(
        self, world: World, bench: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, words: str
    ) -> None:
        def fail(argv: Sequence[str]) -> int:
            raise error

        monkeypatch.setattr(show, "version", fail)
        given, out, err = bench("version")
        assert (given, out) == (status, "")
        err = " ".join(err.split())
        assert re.search(words, err) and "Traceback" not in err and len(err) < 1000
        (trace,) = world.home.work.glob("trace-*.txt")
        assert str(trace) in err
        assert "bench version" in trace.read_text() and type(error).__name__ in trace.read_text()

    def test_without_memory(self, bench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(argv: Sequence[str]) -> int:
            raise MemoryError

        monkeypatch.setattr(show, "version", fail)
        status, _, err = bench("version")
        assert status == 2 and "the memory of this machine does not suffice" in " ".join(err.split())

    @pytest.mark.parametrize(
        "words", [["plan", "methods=[salstm]", "dataset=~nobody-here/d.yaml"], ["show", "~nobody-here/x"]]
    )
    def test_a_user_that_does_not_exist(self, bench: Run, words: list[str]) -> None:
        status, _, err = bench(*words)
        assert status == 2 and "there is no user ~nobody-here" in " ".join(err.split())


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["rnu"], 'unknown command "rnu"; allowed: list, plan, run, .*; did you mean "run"\\?'),
            (
                ["features"],
                '"features" is half a command; allowed: features list, .* features import, features extract',
            ),
            (["features", "chekc"], 'unknown command "features chekc"; allowed: .*; did you mean "features check"\\?'),
            (
                ["list", "method"],
                'unknown list "method"; allowed: methods, datasets, features, runs; did you mean "methods"\\?',
            ),
            (["list", "split=x"], 'command line: unknown key "split"; allowed: dataset, json'),
            (["run", "--chek"], 'command line: unknown flag "--chek"; allowed: --retry-failed'),
            (
                ["leaderboard", "--chek"],
                'command line: unknown flag "--chek"; allowed: --check; did you mean "--check"\\?',
            ),
            (
                ["run", "methods=toy"],
                "command line: dataset is missing, such as dataset=msvd or dataset=my/dataset.yaml",
            ),
            (["plan", "methods=toy", "dataset=litle"], 'unknown data set "litle"; allowed: FILE.yaml'),
            (["data", "check"], "command line: dataset is missing, such as dataset=msvd or dataset=my/dataset.yaml"),
            (
                ["features", "import"],
                "command line: dataset is missing, such as dataset=msvd or dataset=my/dataset.yaml",
            ),
            (["evaluate", "dataset=x"], "command line: name the file of captions, .*"),
            (["evaluate", "gone.jsonl", "dataset=x"], "there is no file gone.jsonl"),
            (["ui", "port=x"], "command line: port is 'x', but must be a whole number"),
            (
                ["ui", "prt=1"],
                'command line: unknown key "prt"; allowed: dataset, port, mlflow, open; did you mean "port"\\?',
            ),
            (
                ["features", "import", "dataset={dataset}", "stream=[]"],
                "command line: stream= names none; data set little has frames",
            ),
            (["compare", "a", "b"], 'no row or record is called "a"; rows: none'),
            (["show", "a", "dataset=tiny"], "there are no records of data set tiny under .*; bench run makes them"),
            (["test"], "command line: name a method, such as bench test salstm .*"),
            (["test", "tay"], 'unknown method "tay"; allowed: plain, toy; did you mean "toy"\\?'),
            (["version", "now"], "command line: 'now' is not key=value; allowed keys: none"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_status_2_and_one_sentence(self, bench: Run, world: World, words: list[str], sentence: str) -> None:
        status, out, err = bench(*(word.format(dataset=world.dataset) for word in words))
        assert (status, out) == (2, "")
        assert re.fullmatch(f"bench: {sentence}\n", err), err

    def test_a_stream_that_is_not_declared(self, bench: Run, world: World) -> None:
        status, _, err = bench("features", "import", f"dataset={world.dataset}", "stream=frame")
        assert status == 2
        assert 'data set little: unknown stream "frame"; allowed: frames; did you mean "frames"?' in err

    @pytest.mark.parametrize(
        ("error", "status", "part"),
        [
            (BenchError("a sentence"), 2, "bench: a sentence\n"),
            (KeyboardInterrupt(), 130, "the same command goes on where this one ended"),
            (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 2, "/x/y: No space left on device; free space"),
            (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "/x: Permission denied"),
        ],
    )
    def test_how_errors_end(
        self, bench: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, part: str
    ) -> None:
        def broken(words: Any) -> int:
            raise error

        monkeypatch.setattr("bench.cli.show.ui", broken)
        found, _, err = bench("ui")
        assert found == status
        assert part in err


class TestList:
    def test_all(self, bench: Run, world: World) -> None:
        world.add_method("broken", "name: [3")
        world.write("shelf/little/dataset.yaml", world.dataset.read_text())
        status, out, _ = bench("list")
        assert status == 0
        assert re.search(r"^toy +two, one +frames \(words\) +TOY 2020 +a toy$", out, re.M)
        assert re.search(r"^broken .*cannot be used: .*card\.yaml: not YAML", out, re.M)
        assert re.search(r"^little +absent +frames: cached +three clips$", out, re.M)
        assert "no runs yet" in out

    def test_states_of_streams(self, bench: Run, world: World) -> None:
        world.write("shelf/little/dataset.yaml", world.dataset.read_text())
        world.write("shelf/little/captions.jsonl", "")
        (world.home.cache / "little" / "frames.json").unlink()
        assert re.search(r"^little +here +frames: absent", bench("list", "datasets")[1], re.M)
        world.write("shelf/little/frames.h5", "")
        assert re.search(r"^little +here +frames: to import", bench("list", "datasets")[1], re.M)

    def test_runs_and_features(self, bench: Run, world: World) -> None:
        one, other = cells(parse(["methods=toy:*", f"dataset={world.dataset}"]), world.home)
        world.add_record(one)
        world.add_record(other, "failed")
        (world.home.results / "little" / "toy" / "bad").mkdir()
        (world.home.results / "little" / "toy" / "bad" / "record.json").write_text("{")
        out = bench("list", "runs")[1]
        assert re.search(rf"^little +toy:one +0 +standard +done +31\.2 +{one.key}$", out, re.M)
        assert re.search(rf"^little +toy:two +0 +standard +failed +- +{other.key} +fit: RuntimeError: boom$", out, re.M)
        assert re.search(r"^little .*refused .*no valid JSON", out, re.M)
        assert json.loads(bench("leaderboard", "json=true")[1])["refused"], "as docs/json.md has it"
        under_way = world.home.results / "little" / "toy" / ("a" * 16) / "work"
        under_way.mkdir(parents=True)
        at = {"phase": "base", "epoch": 1, "captions": 5, "budget": 9, "pid": os.getppid()}
        (under_way / "progress.json").write_text(json.dumps(at))
        assert re.search(rf"^little .*interrupted .*{'a' * 16}", bench("list", "runs")[1], re.M), (
            "that process has another cell"
        )
        with cell_lock(world.home, "a" * 16):
            assert re.search(rf"^little .*running .*{'a' * 16}", bench("list", "runs")[1], re.M)
        (world.home.cache / "little" / "frames.h5").write_text("")
        assert re.search(
            r"^little +frames +28x6 +3 +0\.0 +float16, fingerprint ffffffffffff$", bench("features", "list")[1], re.M
        )

    def test_of_one_data_set(self, bench: Run, world: World) -> None:
        for cell in cells(parse(["methods=toy", f"dataset={world.dataset}", "seeds=[0,1]"]), world.home):
            world.add_record(cell)
        moved = world.home.results / "other"
        (world.home.results / "little").rename(moved)
        assert bench("list", "runs", f"dataset={world.dataset}")[1] == "no runs yet\n"
        assert bench("list", "runs", "dataset=other")[1].count("refused") == 2
        out = bench("list", f"dataset={world.dataset}")[1]
        assert re.search(r"^little +frames ", out, re.M) and "METHODS" not in out
        for words, told in (
            (["runs", "dataset=nothing"], 'unknown data set "nothing"'),
            (["methods", "runs", "dataset=other"], "chooses among features and runs, not among methods"),
        ):
            status, out, err = bench("list", *words)
            assert (status, out) == (2, "") and told in err


class TestPlan:
    def test_table_and_totals(self, bench: Run, world: World) -> None:
        words = ["methods=toy:*", f"dataset={world.dataset}", "seeds=0,1"]
        world.add_record(cells(parse(words), world.home)[0])
        status, out, _ = bench("plan", *words)
        assert status == 0
        assert re.search(
            r"^Toy-one \(words from frames\) +toy:one +frames +0 +done +7,000 +- +- +CIDEr 31\.2$", out, re.M
        )
        assert "\n4 cells: 1 done, 3 missing. Data set little.\nHow long they take is not known: " in out

    def test_columns_are_aligned(self) -> None:
        text = columns(("name", "n"), [("a", 1), ("long name", 100)], right=("n",))
        assert text == "name         n\na            1\nlong name  100"

    def test_long_entries_go_on_below_where_there_is_no_room(self) -> None:
        text = columns(("name", "what"), [("a", "one two three four five six seven"), ("b", "x")], most=24)
        assert text == "name  what\na     one two three four\n      five six seven\nb     x"
        whole = columns(("name", "what"), [("a", "one two three four five six seven"), ("b", "x")])
        assert "one two three four five six seven" in whole


class TestJson:
    """`json=true`: the facts of a command, and nothing else on the output."""

    @pytest.fixture
    def asked(self, bench: Run) -> Callable[..., Any]:
        def run(*words: str, status: int = 0) -> Any:
            found, out, _ = bench(*words, "json=true")
            assert found == status
            return json.loads(out)

        return run

    def test_list(self, asked: Callable[..., Any], world: World) -> None:
        world.add_method("broken", "name: [3")
        (cell,) = cells(parse(["methods=toy", f"dataset={world.dataset}"]), world.home)
        world.add_record(cell)
        found = asked("list")
        assert list(found) == ["methods", "datasets", "features", "runs"]
        broken, toy = found["methods"][0], found["methods"][2]
        assert "not YAML" in broken["error"]
        assert (toy["name"], toy["variants"], toy["uses"]) == ("toy", ["two", "one"], ["words"])
        assert [(one["key"], one["state"], one["scores"]) for one in found["runs"]] == [
            (cell.key, "done", {"cider": 31.25})
        ]
        assert list(asked("list", "runs")) == ["runs"]

    def test_plan(self, asked: Callable[..., Any], world: World) -> None:
        words = ["methods=toy:*", f"dataset={world.dataset}"]
        done, other = cells(parse(words), world.home)
        world.add_record(done)
        found = asked("plan", *words)
        assert [(one["key"], one["state"], one["captions"]) for one in found["cells"]] == [
            (done.key, "done", 7000),
            (other.key, "missing", 7000),
        ]
        assert (found["dataset"], found["estimated"], found["cells"][1]["unknown"]) == (
            "little",
            0,
            "no like cell recorded",
        )

    def test_show_compare_and_leaderboard_of_the_committed_records(
        self, asked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.undo()  # this project's methods and records
        monkeypatch.setenv("BENCH_HOME", str(ROOT))
        shown = asked("show", "402034cc")
        assert shown["record"]["key"].startswith("402034cc")
        assert len(shown["best"]) == len(shown["worst"]) == 5
        compared = asked("compare", "402034cc", "4ae663ab", "clips=2")
        assert [one["metric"] for one in compared["metrics"]][-1] == "cider"
        by_clip = compared["cider_by_clip"]
        assert by_clip["above"] + by_clip["below"] + by_clip["equal"] == compared["clips"] == 150
        assert [len(by_clip[name]) for name in ("won_most", "lost_most")] == [2, 2]
        tables = asked("leaderboard", "dataset=msrvtt1000", "--check")["tables"]
        assert list(tables) == ["msrvtt1000"]
        row = next(row for row in tables["msrvtt1000"][0]["rows"] if row["row"] == "recnet:local")
        assert row["scores"]["cider"]["values"] == [shown["record"]["scores"]["test"]["cider"]]


class TestEstimates:
    """`bench plan` says what cells will cost by the records of like cells."""

    def ledger(self, captions: int, seconds: float) -> dict[str, Any]:
        ledger = {"captions": captions, "budget": captions, "fit_seconds": seconds, "peak_memory_mb": 512.0}
        return {
            "ledger": ledger | {"decode_seconds": 3.0, "score_seconds": 2.0},
            "provenance": {"bench": "1", "device": "cpu"},
        }

    def plan(self, bench: Run, world: World, *words: str) -> dict[str, Any]:
        out = bench("plan", "methods=toy", f"dataset={world.dataset}", "device=cpu", "seeds=4", *words, "json=true")[1]
        (cell,) = json.loads(out)["cells"]
        return dict(cell)

    @pytest.fixture(autouse=True)
    def recorded(self, world: World) -> None:
        for seed, seconds in ((0, 70.0), (1, 77.0), (2, 700.0)):
            words = ["methods=toy", f"dataset={world.dataset}", f"seeds={seed}", "device=cpu"]
            (cell,) = cells(parse(words), world.home)
            world.add_record(cell, **self.ledger(7000, seconds))

    def test_the_median_of_the_nearest(self, bench: Run, world: World) -> None:
        cell = self.plan(bench, world)
        assert (cell["captions"], cell["seconds"], cell["memory_mb"], cell["unknown"]) == (7000, 82, 510, "")
        assert self.plan(bench, world, "train.epochs=14")["seconds"] == 160, (
            "twice 77 and 5 of decoding and scoring, two digits"
        )

    def test_captions_of_other_budgets(self, world: World) -> None:
        """Where captions are not counted yet, by a record's: of one that was trained until it converged, and may read its epochs
        once for each phase, only its captions of one epoch are known."""
        (cell,) = cells(parse(["methods=toy", f"dataset={world.dataset}", "seeds=4"]), world.home)

        def counted(epochs: int, **train: Any) -> int | None:
            config = {**cell.config, "train": {**cell.config["train"], "epochs": epochs, **train}}
            (found,) = estimates([(Cell(config), None)], world.home)
            return found.captions

        assert (counted(7), counted(3)) == (7000, 3000)
        assert counted(7, budget="converged", reward_epochs=5) == 2 * 7000, "two phases"
        for path in world.home.results.glob("*/*/*/record.json"):
            path.unlink()
        converged = {**cell.config, "train": {**cell.config["train"], "budget": "converged", "reward_epochs": 5}}
        world.add_record(Cell(converged), **self.ledger(14000, 9.0))
        assert (counted(7), counted(3), counted(7, budget="converged", reward_epochs=5)) == (7000, 3000, 14000)

    def test_how_many_cells_share_a_gpu(
        self, bench: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the memory of the GPU that the driver tells and that of like cells on GPUs; the records above are of a CPU."""
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 8192\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        words = ["plan", "methods=toy", f"dataset={world.dataset}", "seeds=4"]
        assert "share a GPU" not in bench(*words)[1]
        (cell,) = cells(parse(["methods=toy", f"dataset={world.dataset}", "seeds=3", "device=cuda"]), world.home)
        content = self.ledger(7000, 7.0)
        content["ledger"]["peak_memory_mb"] = 1536.0
        world.add_record(cell, **content | {"provenance": {"bench": "1", "device": "cuda:0"}})
        (planned,) = json.loads(bench(*words, "json=true")[1])["cells"]
        assert planned["gpu_cells"] == 3, "1.5 GiB, a quarter more, and 0.75 of a context: three in 8 GiB"
        assert "Up to 3 cells of toy:two share a GPU like this machine's." in bench(*words)[1]
        assert "share a GPU" not in bench(*words, "device=cpu")[1]

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (["model.width=64"], "no like cell recorded"),
            (["train.captions=8"], "no like cell recorded"),
            (["threads=3"], "no like cell recorded"),
            (["train.epochs=700"], "no like cell recorded of a near budget"),
            (["subset=1/1/1"], "its training captions are not counted yet"),
        ],
    )
    def test_where_it_cannot_it_says_so(self, bench: Run, world: World, words: list[str], why: str) -> None:
        self.write_captions(world)
        cell = self.plan(bench, world, *words)
        assert (cell["seconds"], cell["unknown"]) == (None, why)
        out = bench("plan", "methods=toy", f"dataset={world.dataset}", "device=cpu", "seeds=4", *words)[1]
        assert why in out
        assert "How long they take is not known" in out

    def write_captions(self, world: World) -> None:
        """As many as the definition declares: a plan of a subset looks whether there are so many clips."""
        lines = [{"clip": clip, "caption": "a cat"} for clip in (*"ad" * 500, "b", "c")]
        world.write("data/captions.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
        world.write("data/train.txt", "a\nd\n")

    def test_captions_of_a_subset_are_those_of_a_record_of_it(self, bench: Run, world: World) -> None:
        self.write_captions(world)
        words = ["methods=toy", f"dataset={world.dataset}", "seeds=0", "device=cpu", "subset=1/1/1", "train.epochs=2"]
        (cell,) = cells(parse(words), world.home)
        world.add_record(cell, **self.ledger(20, 1.0))
        found = self.plan(bench, world, "subset=1/1/1", "train.epochs=4")
        assert (found["captions"], found["seconds"]) == (40, 7)

    def test_totals_for_people(self, bench: Run, world: World) -> None:
        out = bench("plan", "methods=[toy,plain]", f"dataset={world.dataset}", "device=cpu", "seeds=4")[1]
        assert re.search(r"^Toy-two .* missing +7,000 +82 +510 +not run yet", out, re.M)
        assert out.endswith(
            "One after another, 1 cell would take about 82 s, as like cells did; of 1 more it is not known.\n"
        )


class TestCompletion:
    def test_bash_completes_commands_keys_choices_and_lists(self, bench: Run, world: World, tmp_path: Path) -> None:
        (tmp_path / "script").write_text(bench("completion", "bash")[1])
        (tmp_path / "try").write_text(
            'source "$1"\n'
            'while IFS= read -r line; do COMP_LINE=$line; COMP_POINT=${#line}; _bench; echo "${COMPREPLY[*]}"; done\n'
        )
        lines = {
            "bench reprod": "reproduce",
            "bench features im": "import",
            "bench run split=": "val test",
            "bench run train.ep": "train.epochs=",
            "bench run methods=[plain,to": "[plain,toy [plain,toy:one [plain,toy:two",
            "bench run methods=toy:o": "one",
            "bench run toy.lam": "toy.lambda=",
            "bench compare --se": "--seeds",
            "bench list me": "methods",
        }
        done = subprocess.run(
            ["bash", str(tmp_path / "try"), str(tmp_path / "script")],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert dict(zip(lines, done.stdout.splitlines(), strict=True)) == lines, done.stderr

    @pytest.mark.parametrize("shell", ["zsh", "fish"])
    def test_the_other_shells_take_their_scripts(self, bench: Run, tmp_path: Path, shell: str) -> None:
        (tmp_path / "script").write_text(bench("completion", shell)[1])
        assert "train.epochs=" in (tmp_path / "script").read_text()
        if shutil.which(shell):
            subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, timeout=60)


class TestRun:
    """`bench run` prepares, runs, and brings the leaderboard up to date; the rooms themselves are replaced here."""

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        seen: dict[str, Any] = {"status": 0, "changed": []}
        import bench.reports.leaderboard
        import bench.run.prepare
        import bench.run.runner

        def prepare(definition: Any, home: Any, subset: Any, needed: Any) -> None:
            seen["prepared"] = (definition.name, subset, set(needed))

        def refuse(definition: Any, home: Any, *asked: Any) -> None:
            seen["refused"] = asked

        def run(cells: Any, home: Any, spec: Any, begun: float) -> int:
            seen["ran"] = [cell.label for cell in cells]
            return int(seen["status"])

        def write(home: Any, dataset: Any, check: bool, bad: list[Any], given_up: dict[str, str]) -> list[Path]:
            seen["pages"] = (dataset, check)
            return list(seen["changed"])

        monkeypatch.setattr(bench.run.prepare, "prepare", prepare)
        monkeypatch.setattr(bench.run.prepare, "refuse_empty_splits", refuse)
        monkeypatch.setattr(bench.run.runner, "run", run)
        monkeypatch.setattr(bench.reports.leaderboard, "write", write)
        return seen

    def test_run(self, bench: Run, world: World, calls: dict[str, Any]) -> None:
        status, _, _ = bench("run", "methods=toy:*", f"dataset={world.dataset}", "subset=1/1/1")
        assert status == 0
        assert calls["refused"] == ("default", (1, 1, 1), "test")
        assert calls["prepared"] == ("little", (1, 1, 1), {"frames"})
        assert calls["ran"] == ["toy:one seed 0", "toy:two seed 0"]
        assert calls["pages"] == ("little", False)

    def test_failed_cells_still_get_their_page(self, bench: Run, world: World, calls: dict[str, Any]) -> None:
        calls["status"] = 1
        assert bench("run", "methods=toy", f"dataset={world.dataset}")[0] == 1
        assert "pages" not in calls, "not even the failure could be written down, on a full disk for instance"
        world.write("home/results/little/toy/0/record.json", "{}")
        assert bench("run", "methods=toy", f"dataset={world.dataset}")[0] == 1
        assert calls["pages"] == ("little", False)

    def test_a_stopped_run_writes_no_page(self, bench: Run, world: World, calls: dict[str, Any]) -> None:
        calls["status"] = 130
        assert bench("run", "methods=toy", f"dataset={world.dataset}")[0] == 130
        assert "pages" not in calls

    def test_leaderboard_check_fails_on_drift(self, bench: Run, world: World, calls: dict[str, Any]) -> None:
        assert bench("leaderboard", "--check")[:2] == (0, "leaderboards are up to date\n")
        calls["changed"] = [Path("leaderboards/little.md")]
        status, out, _ = bench("leaderboard", "dataset=little", "--check")
        assert status == 1
        assert calls["pages"] == ("little", True)
        assert "leaderboards/little.md is not what the records say" in out
        assert bench("leaderboard")[0] == 0
        bench("leaderboard", f"dataset={world.dataset}")
        assert calls["pages"] == ("little", False), "a data set may be named by its file, as everywhere"


@pytest.mark.parametrize("width", [80, 100, 140])
class TestOnATerminal:
    """Prose ends at word ends and within the terminal; what goes into a pipe stays whole."""

    @pytest.fixture
    def lines(self, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        monkeypatch.setenv("COLUMNS", str(width))

        def run(*words: str) -> tuple[list[str], list[str]]:
            """Lines of a command on a terminal, and its words (of output and errors) as a pipe has them."""
            main(words)
            whole = capsys.readouterr()
            with monkeypatch.context() as patch:
                for stream in (sys.stdout, sys.stderr):
                    patch.setattr(stream, "isatty", lambda: True)
                main(words)
            shown = capsys.readouterr()
            return (shown.out + shown.err).splitlines(), (whole.out + whole.err).split()

        return run

    def test_help(self, lines: Any, width: int) -> None:
        for name in (*COMMANDS, ""):
            shown, words = lines(*name.split(), "--help")
            assert max(map(len, shown)) <= width, name
            assert [word for line in shown for word in line.split() if word != "\\"] == words

    def test_show_and_compare(self, lines: Any, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BENCH_HOME", str(ROOT))
        for words in (["show", "402034cc"], ["compare", "402034cc", "4ae663ab"]):
            shown, whole = lines(*words)
            paths = [word for word in whole if len(word) > width - 8]  # these cannot be cut
            assert all(len(line) <= width or any(path in line for path in paths) for line in shown)
            assert any(len(line) > width - 20 for line in shown)

    def test_sentences_on_the_error_stream(self, lines: Any, width: int, world: World) -> None:
        shown, words = lines("run", "methods=toy", f"dataset={world.dataset}", "epoch=3")
        assert len(shown) > 1
        assert max(map(len, shown)) <= width
        assert " ".join(shown).split() == words

    def test_a_plan_says_a_shared_reason_once(self, lines: Any, width: int, world: World) -> None:
        shown, _ = lines("plan", "methods=[toy:*,plain]", f"dataset={world.dataset}", "seeds=[0,1]")
        assert max(map(len, shown)) <= width
        assert sum("not run yet" in line for line in shown) == 1
        assert len([line for line in shown if line.endswith("[1]")]) == 6
        assert any(line.startswith("method ") for line in shown) == (width > 120)


class TestWholeProcess:
    """As a user starts it: a new process."""

    CODE = (
        "import sys; from bench.cli.main import main; status = main(sys.argv[1:]); "
        f"print(status, sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )

    def start(self, words: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
        environment = {"BENCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [sys.executable, "-c", self.CODE, *words], capture_output=True, text=True, cwd=tmp_path, env=environment
        )

    def test_help_list_and_plan_import_nothing_heavy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(tmp_path, monkeypatch)
        world.add_stream("frames")
        plan = ["plan", "methods=salstm,recnet:*", f"dataset={world.dataset}"]
        for words in (["--help"], ["list"], plan):
            done = self.start(words, tmp_path)
            assert done.stderr == "0 []\n", (words, done.stderr)
        assert "RecNet-global" in done.stdout

    def test_a_pipe_that_closes_early(self, tmp_path: Path) -> None:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import time, sys; time.sleep(0.2); from bench.cli.main import main; sys.exit(main(['--help']))",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
        process.stderr.close()

    def test_evaluate_prints_scores_with_signatures(
        self, bench: Run, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from bench.records.store import read_record

        (cell,) = cells(parse(["methods=toy", f"dataset={world.dataset}"]), world.home)
        record = read_record(world.add_record(cell))
        asked: list[Any] = []

        def score(*given: Any, splits: str, fields: dict[str, str]) -> Any:
            asked.extend([*given[2:4], splits])
            return record

        module = type(sys)("bench.cell.external")
        module.evaluate = score  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "bench.cell.external", module)
        captions = world.write("mine.jsonl", json.dumps({"clip": "c", "caption": "a cat"}))
        status, out, _ = bench("evaluate", str(captions), f"dataset={world.dataset}")
        assert (status, asked) == (0, ["test", "mine", "default"])
        scores, *pages = out.splitlines()
        assert re.fullmatch(r"cider +31\.25 +CIDEr-D", scores)
        assert pages[0].endswith("leaderboards/little.md written"), "the row enters the page at once"
