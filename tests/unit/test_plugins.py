"""Methods of other packages: the example of the documentation, installed as a wheel, and the same with one fault each."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import BenchError
from bench.cli.main import main
from bench.conformance.checks import CHECKS, examine
from bench.conformance.workplace import write_corpus
from bench.declare.plugins import check_imports, import_error
from bench.declare.registry import find_methods, method_entry
from bench.home import Home
from bench.records.store import all_records

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "plugin"
ROOT = EXAMPLE.parents[1]
CODE, CARD = ((EXAMPLE / "meangru" / name).read_text(encoding="utf-8") for name in ("__init__.py", "card.yaml"))

MODEL = "    return CaptionModel(captioner, vocabulary, lambda clips, run: [cross_entropy_phase(captioner, run)])\n"
"""The last line of the example."""


def with_model(body: str) -> tuple[str, str]:
    """The example's last line, and instead of it the same model as a subclass with `body`; phases go through `recipe`."""
    inside = "".join(f"        {line}\n" for line in body.strip("\n").splitlines())
    phases = "lambda clips, run: [cross_entropy_phase(captioner, run)]"
    return MODEL, f"    class Model(CaptionModel):\n{inside}\n    return Model(captioner, vocabulary, {phases})\n"


# check that must fail -> edits of the example's code
BROKEN: dict[str, list[tuple[str, str]]] = {
    "offers_build": [("def build(", "def built(")],
    "imports_alone": [("import torch\n", "import pandas\nimport torch\n")],
    "comes_to_its_end": [with_model("def fit(self, train, run):\n    raise KeyError('frames')")],
    "learns": [  # up the hill instead of down
        (
            "    return CaptionModel(",
            "    for value in captioner.parameters():\n"
            "        value.register_hook(lambda slope: -slope)\n"
            "    return CaptionModel(",
        )
    ],
    "decodes_what_is_asked": [
        with_model("def decode(self, clips, search):\n    return super().decode(clips, search)[::-1]")
    ],
    "decodes_the_same_again": [
        (
            'return {"clip": masked_mean(self.norm(frames, mask), mask)}',
            "clip = masked_mean(self.norm(frames, mask), mask)\n"
            '        return {"clip": nn.functional.dropout(clip, 0.3, training=True)}',
        )
    ],
    "decodes_each_clip_by_itself": [
        (
            'return {"clip": masked_mean(self.norm(frames, mask), mask)}',
            'clip = masked_mean(self.norm(frames, mask), mask)\n        return {"clip": clip - clip.mean(0)}',
        )
    ],
    "sees_no_padding": [
        ("masked_mean(self.norm(frames, mask), mask)", "self.norm(frames, torch.ones_like(mask)).mean(1)")
    ],
    "looks_at_the_clips": [
        ("masked_mean(self.norm(frames, mask), mask)", "0 * masked_mean(self.norm(frames, mask), mask)")
    ],
    "keeps_to_its_words": [
        with_model(
            "def decode(self, clips, search):\n"
            "    from dataclasses import replace\n"
            "    return super().decode(clips, replace(search, max_words=30))"
        )
    ],
    "tells_how_likely": [
        with_model(
            "def decode(self, clips, search):\n"
            "    from dataclasses import replace\n"
            "    def mean(text, value):\n"
            "        return value / (len(text.split()) + 1)\n"
            "    return [\n"
            "        replace(c, log_probability=mean(c.text, c.log_probability),\n"
            "                alternatives=tuple((text, mean(text, value)) for text, value in c.alternatives))\n"
            "        for c in super().decode(clips, search)\n"
            "    ]"
        )
    ],
    "seeds_decide": [
        (
            "        self.output = nn.Linear(width, words)\n",
            "        self.output = nn.Linear(width, words)\n"
            "        generator = torch.Generator()\n"
            "        generator.seed()\n"
            "        self.output.weight.data.uniform_(-0.1, 0.1, generator=generator)\n",
        )
    ],
    "state_dict_is_whole": [
        with_model(
            "def state_dict(self):\n"
            "    return {name: value for name, value in super().state_dict().items() if name != 'norm.mean'}\n"
            "def load_state_dict(self, state):\n"
            "    super().load_state_dict({**state, 'norm.mean': super().state_dict()['norm.mean']})"
        )
    ],
    "refuses_foreign_weights": [
        with_model(
            "def load_state_dict(self, state):\n"
            "    own = self.module.state_dict()\n"
            "    self.module.load_state_dict({**own, **{n: v for n, v in state.items() if v.shape == own[n].shape}})"
        )
    ],
    "sees_no_test_reference": [
        with_model(
            "def fit(self, train, run):\n"
            "    home = next(p for p in run.work.parents if (p / 'captions.jsonl').is_file())\n"
            "    self.answers = (home / 'captions.jsonl').read_text()\n"
            "    super().fit(train, run)"
        )
    ],
    "keeps_to_the_budget": [
        with_model(
            "def fit(self, train, run):\n"
            "    self.lengths = [len(batch.lengths_B) for batch in train.epoch(999, 8, 2)]\n"
            "    super().fit(train, run)"
        )
    ],
    "writes_only_its_folder": [
        with_model(
            "def fit(self, train, run):\n"
            "    super().fit(train, run)\n"
            "    (run.work.parents[4] / 'debug.txt').write_text('done')"
        )
    ],
    "resumes_exactly": [  # a schedule that lives outside the checkpoint
        (
            MODEL,
            "    from bench.training.phases import Phase\n"
            "    steps = []\n\n"
            "    def recipe(clips, run):\n"
            "        plain = cross_entropy_phase(captioner, run)\n\n"
            "        def loss(batch):\n"
            "            steps.append(1)\n"
            "            return {name: value / len(steps) ** 0.5 for name, value in plain.loss(batch).items()}\n\n"
            "        return [Phase('base', loss, captioner, 1.0)]\n\n"
            "    return CaptionModel(captioner, vocabulary, recipe)\n",
        )
    ],
    "trains_by_the_loss_of_its_run": [
        ("cross_entropy_phase(captioner, run)", "cross_entropy_phase(captioner, run, loss=plain_loss)"),
        ("cross_entropy_phase\n", "cross_entropy_phase, plain_loss\n"),
    ],
}


def install(site: Path, **methods: str) -> None:
    """Methods as packages of one distribution below `site`: each the example's card, and the code given."""
    points = "".join(f"{name} = {name}\n" for name in methods)
    info = site / "guests-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guests\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bench.methods]\n{points}")
    for name, code in methods.items():
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(code)
        (site / name / "card.yaml").write_text(CARD.replace("meangru", name))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that this process and those it starts look for packages in."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ["PYTHONPATH"], str(ROOT)]))
    before = set(sys.modules)
    yield place
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(place)):
            del sys.modules[name]


def test_every_check_has_its_fault() -> None:
    assert BROKEN.keys() == CHECKS.keys()


@pytest.mark.parametrize("check", BROKEN)
def test_a_fault_fails_its_own_check_and_no_other(
    check: str, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a process of its own, which only a fault of the imports can fail, every check is made."""
    monkeypatch.setattr(
        "bench.declare.registry.methods_folder", lambda: None
    )  # reading eight cards a hundred times takes seconds
    code = CODE
    for old, new in BROKEN[check]:
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    install(site, guest=code)
    (tmp_path / "home").mkdir()
    names = [name for name in CHECKS if name != "imports_alone" or name == check]
    found = {finding.check: finding for finding in examine("guest", tmp_path / "home", names)}
    assert [name for name, one in found.items() if one.state == "failed"] == [check], found
    assert len(found[check].reason) > 20
    if check not in ("offers_build", "comes_to_its_end", "decodes_what_is_asked", "keeps_to_the_budget"):
        hidden = [name for name, one in found.items() if one.state == "not checked"]
        assert len(hidden) <= 4, f"a cell that comes to its end can be looked at from most sides: {hidden}"


def test_a_stream_that_no_other_method_reads_is_in_the_corpus(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.declare.registry.methods_folder", lambda: None)
    code = CODE.replace('"frames"', '"flow"').replace("FeatureNorm(frame_width)", "FeatureNorm(frame_width, 'flow')")
    install(site, guest=code)
    (site / "guest" / "card.yaml").write_text(CARD.replace("meangru", "guest").replace("[frames]", "[flow]"))
    (tmp_path / "home").mkdir()
    found = list(examine("guest", tmp_path / "home", ["comes_to_its_end", "learns", "sees_no_padding"]))
    assert [finding.state for finding in found] == ["passed"] * 3, found


class TestImports:
    """What a plug-in does when it is imported reaches nobody else."""

    def entry_error(self, site: Path, code: str, home: Path) -> str | None:
        install(site, guest=code)
        return import_error(find_methods()["guest"], Home(home))

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            (
                "x = 1\nraise RuntimeError('no licence')\n",
                r"raises RuntimeError: no licence \(.*__init__\.py, line 2\)",
            ),
            (
                "import no_such_module_here\n",
                r"raises ModuleNotFoundError: No module named 'no_such_module_here' \(.*line 1",
            ),
            ("import sys\nsys.exit(3)\n", "raises SystemExit: 3"),
            ("import os\nos._exit(3)\n", r"ends the process \(status 3\)"),
            ("print('hello')\n", "it has no function build"),
            ("def build(:\n", "line 1: invalid syntax"),
        ],
    )
    def test_an_import_that_fails_is_a_sentence(self, site: Path, tmp_path: Path, code: str, said: str) -> None:
        error = self.entry_error(site, code, tmp_path / "home")
        assert re.search(said, str(error)), error
        assert "guest" not in sys.modules
        with pytest.raises(BenchError, match="method guest of the package guests cannot be used: "):
            check_imports(["salstm", "guest:xe"], find_methods(), Home(tmp_path / "home"))

    def test_success_is_remembered_until_the_code_changes(self, site: Path, tmp_path: Path) -> None:
        home = tmp_path / "home"
        count = f"open({str(tmp_path / 'imports')!r}, 'a').write('.')\n"
        assert self.entry_error(site, f"{count}def build(*_): ...\n", home) is None
        assert import_error(find_methods()["guest"], Home(home)) is None
        assert (tmp_path / "imports").read_text() == "."
        (site / "guest" / "__init__.py").write_text(f"{count}built = 1\n")
        assert "has no function build" in str(import_error(find_methods()["guest"], Home(home)))
        assert "has no function build" in str(import_error(find_methods()["guest"], Home(home)))
        assert (tmp_path / "imports").read_text() == "...", (
            "what failed is tried anew, it may have been mended elsewhere"
        )

    def test_methods_of_this_project_are_not_imported(self, tmp_path: Path) -> None:
        assert import_error(method_entry("salstm"), Home(tmp_path)) is None
        assert not (tmp_path / ".bench").exists()


def test_the_command_says_what_failed(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, guest="raise RuntimeError('no licence')\n")
    monkeypatch.setattr("bench.declare.registry.methods_folder", lambda: None)
    assert main(["test", "guest"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"offers_build +FAILED +importing guest raises RuntimeError: no licence", lines[0])
    assert all("  not checked  " in line for line in lines[1:])
    assert last == f"guest:xe: {len(CHECKS)} checks, 1 failed, {len(CHECKS) - 1} not checked"
    assert main(["test", "methods=guest"]) == 2
    told = capsys.readouterr().err
    assert (
        "methods= is no option here, for this command takes words alone: name a method, such as bench test salstm"
        in told
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("installed")
    shutil.copytree(EXAMPLE, place / "source")
    python = [sys.executable, "-m"]
    build = [*python, "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(build, cwd=place / "source", capture_output=True, text=True, timeout=120, check=True)
    (wheel,) = place.glob("*.whl")
    words = ["pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(place / "site"), str(wheel)]
    subprocess.run([*python, *words], capture_output=True, text=True, timeout=120, check=True)
    install(place / "site", wounded="raise RuntimeError('no licence')\n")
    (place / "home").mkdir()
    write_corpus(place / "home", ["frames"])
    return place


class TestInstalledWheel:
    """The example as a stranger would install it, beside a package that cannot be imported."""

    def bench(self, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BENCH_")}
        environment |= {"PYTHONPATH": os.pathsep.join([str(place / "site"), os.environ["PYTHONPATH"], str(ROOT)])}
        environment |= {"BENCH_HOME": str(place / "home"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "bench", *words]
        return subprocess.run(command, cwd=place / "home", env=environment, capture_output=True, text=True, timeout=300)

    def test_is_listed_and_the_broken_one_with_its_error(self, place: Path) -> None:
        done = self.bench(place, "list", "methods")
        assert done.returncode == 0, done.stderr
        assert re.search(r"^meangru +xe +frames .*a GRU .* \(from the package meangru\)$", done.stdout, re.M)
        assert re.search(
            r"^wounded .*raises RuntimeError: no licence .*\(from the package guests\)$", done.stdout, re.M
        )
        assert re.search(r"^salstm ", done.stdout, re.M)

    def test_passes_the_checks(self, place: Path) -> None:
        done = self.bench(place, "test", "meangru")
        assert done.returncode == 0, done.stdout + done.stderr
        *lines, last = done.stdout.splitlines()
        assert [line.split() for line in lines] == [[name, "passed"] for name in CHECKS]
        assert last == f"meangru:xe: {len(CHECKS)} checks, {len(CHECKS)} passed"
        assert not (place / "home" / "results").exists(), "checks leave nothing in the project"

    def test_enters_the_leaderboard(self, place: Path) -> None:
        small = ["model.width=16", "model.embedding=12", "mlflow=off"]
        done = self.bench(place, "run", "methods=wounded", "dataset=dataset.yaml")
        assert (done.returncode, done.stdout) == (2, "")
        assert "method wounded of the package guests cannot be used: its import raises RuntimeError" in done.stderr
        done = self.bench(place, "run", "methods=meangru,mplstm", "dataset=dataset.yaml", "train.epochs=1", *small)
        assert done.returncode == 0, done.stdout + done.stderr
        keys = {record.method: record.key for record in all_records(place / "home" / "results")}
        page = (place / "home" / "leaderboards" / "tiny.md").read_text(encoding="utf-8")
        assert keys.keys() == {"meangru", "mplstm"}
        assert "Mean-GRU" in page and keys["meangru"] in page
