"""What the documentation tells a newcomer to type is understood by the front, and its examples run as they stand."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import bench
from bench.cell.inputs import budget_of
from bench.cli.commands import COMMANDS
from bench.cli.help import overview
from bench.cli.help import page as help_of
from bench.cli.main import main
from bench.home import Home
from bench.plan.cells import requested
from bench.plan.request import parse
from bench.records.store import all_records

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("README.md", "docs/*.md", "deploy/README.md", "datasets/**/README.md", "methods/*/README.md")
    for path in ROOT.glob(pattern)
)
ABSENT = (  # what a command may answer where the files that its reader has are not there
    r"there is no file (mine|my/dataset|dataset|garden)\.yaml",
    r"there is no file \S+\.jsonl",
    r"there is no file or folder \S+",
    r"there is no file of weights|there is no such file",
    r"the captions of data set \w+ are not here",
    r"no row or record is called|there are no records",
    r"unknown method \"meangru\"",
    r"names \d+ rows: ",
    r"has no trained cell of method ",
    r"there is no record \S+/",
    r"there are no scored cells of",
    r"mlflow=\S+ does not answer",
    r"streams? \w+ of \w+ is not in the cache yet",
)


def commands(text: str) -> list[list[str]]:
    """The `bench` commands in the indented blocks of a page, as words; a backslash joins lines."""
    joined = re.sub(r"\\\n\s+", " ", text)
    found = re.findall(r"^    (?:\$ )?(?:\S*/)?bench +((?:[a-z]|--version).*)$", joined, re.M)
    return [shlex.split(line, comments=True) for line in found]


def examples() -> list[list[str]]:
    """The example of every command's help."""
    return [
        shlex.split(line)[2:]
        for text in (overview(), *map(help_of, COMMANDS))
        for line in re.findall(r"^Example: .*", text, re.M)
    ]


WRITTEN = {
    " ".join(words): page
    for page, found in (
        ("--help", examples()),
        *((str(path.relative_to(ROOT)), commands(path.read_text())) for path in PAGES),
    )
    for words in found
}


@pytest.fixture(scope="module")
def whole() -> None:
    """Every module has been imported: one that a patched command imports first would keep what stands in for its own names."""
    for module in pkgutil.walk_packages(bench.__path__, "bench."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


@pytest.fixture
def front(whole: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home, and every command whole but for its last step: training, rendering, serving."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    monkeypatch.delenv("BENCH_DATA", raising=False)

    def nothing(result: Any) -> Callable[..., Any]:
        return lambda *_, **__: result

    for name, result in (
        ("bench.run.prepare.prepare", None),
        ("bench.run.prepare.refuse_empty_splits", None),
        ("bench.run.runner.run", 130),
        ("bench.tuning.tune.tune", 130),
        ("bench.reproduction.run.run", (130, [])),
        ("bench.reproduction.ideas.run", 130),
        ("bench.study.run.run", 130),
        ("bench.cli.conformance._test", 0),
        ("bench.conformance.machine.examine", []),
        ("bench.tracking.ui.serve", None),
        ("bench.plan.cells.cells", []),
    ):
        monkeypatch.setattr(name, nothing(result))


def test_pages_and_help_are_full_of_commands() -> None:
    """The finder finds: a page whose form changed would otherwise pass unread."""
    pages = set(WRITTEN.values())
    assert {"README.md", "docs/dataset.md", "docs/first-run.md", "deploy/README.md", "methods/vre/README.md"} <= pages
    assert {name.split()[0] for name in COMMANDS} <= {command.split()[0] for command in WRITTEN}
    assert len(WRITTEN) > 60


@pytest.mark.parametrize("command", WRITTEN)
def test_a_written_command_is_understood(
    command: str, front: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = next(words for words in _all() if " ".join(words) == command)
    if words[0] in ("show", "compare"):  # of records that stand in this project: these run whole
        monkeypatch.setenv("BENCH_HOME", str(ROOT))
    status = main(words)
    said = capsys.readouterr().err
    if status == 2:
        assert any(re.search(sentence, said) for sentence in ABSENT), f"{WRITTEN[command]}: bench {command}\n{said}"
    else:
        assert status in (0, 1, 130), said


def _all() -> list[list[str]]:
    return [*examples(), *(words for path in PAGES for words in commands(path.read_text()))]


def test_the_demo_is_three_papers_in_one_table(tmp_path: Path) -> None:
    found = requested(parse([str(ROOT / "datasets" / "shapes" / "demo.yaml")]), Home(tmp_path))
    assert [cell.method for cell in found] == ["recnet", "etenet", "glrg"]
    shared = ("dataset", "subset", "protocol", "streams", "train", "search", "text")
    assert all(cell.config[name] == found[0].config[name] for cell in found for name in shared)
    assert len({budget_of(cell.config, Home(tmp_path)) for cell in found}) == 1


def blocks(page: str, kind: str) -> list[tuple[str, str]]:
    """(name, content) of the code blocks of a page that are marked `<!-- kind: name -->` or `<!-- kind -->`."""
    pattern = rf"<!-- {kind}(?:: (\S+))? -->\n```\w+\n(.*?)```"
    return re.findall(pattern, (ROOT / "docs" / page).read_text(encoding="utf-8"), re.S)


def test_the_page_on_methods_shows_the_example_as_it_is() -> None:
    shown = blocks("method.md", "file")
    assert len(shown) == 3
    for name, content in shown:
        assert content == (ROOT / name).read_text(encoding="utf-8"), f"docs/method.md shows another {name}"
    assert sum(len(content.splitlines()) for _, content in shown) <= 60


def test_the_page_on_methods_names_every_check() -> None:
    from bench.conformance.checks import CHECKS

    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| `.*", text, re.M))))
    assert named == set(CHECKS)


def test_the_page_on_data_sets_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files, its lines of Python, its commands; cells in this process, without MLflow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_HOME", raising=False)
    monkeypatch.delenv("BENCH_CACHE", raising=False)
    for name, content in blocks("dataset.md", "write"):
        (tmp_path / name).write_text(content, encoding="utf-8")
    for _, content in blocks("dataset.md", "python"):
        subprocess.run([sys.executable, "-c", content], cwd=tmp_path, check=True, timeout=60)
    asked = commands((ROOT / "docs" / "dataset.md").read_text())
    assert [words[0] for words in asked] == ["data", "plan", "run", "init", "run"]
    for words in asked:
        more = ["executor=inline", "mlflow=off"] if words[0] == "run" else []
        assert main([*words, *more]) == 0, capsys.readouterr()
        said = capsys.readouterr().out
        assert words[0] != "data" or "nothing to complain of" in said
    (drafted,) = all_records(tmp_path / "results", "garden")
    assert drafted.state == "done"
    records = all_records(tmp_path / "results", "park")
    assert sorted((record.method, record.state) for record in records) == [("recnet", "done"), ("salstm", "done")]
    page = (tmp_path / "leaderboards" / "park.md").read_text(encoding="utf-8")
    assert all(record.key in page for record in records)


def test_the_row_that_is_explained_stands_on_its_page() -> None:
    text = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| (\S+ ± \S+ \(\d\))", text, re.M)
    assert len(told) == 2
    page = (ROOT / "leaderboards" / "msrvtt1000.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if "| SA-LSTM" in line]
    assert any(all(score in row for score in told) for row in rows)


def test_citations_are_those_of_the_cards() -> None:
    text = (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", text, re.S | re.M))
    cards = {path.parent.name: yaml.safe_load(path.read_text())["paper"] for path in ROOT.glob("methods/*/card.yaml")}
    assert entries.keys() == cards.keys()
    for name, paper in cards.items():
        fields = dict(re.findall(r"^  (\w+) = \{+(.*?)\}+,$", entries[name], re.M))
        assert fields["title"] == paper["title"]
        assert (fields["year"], fields["eprint"]) == (str(paper["year"]), paper["arxiv"])
        authors = [" ".join(reversed(author.split(", "))) for author in fields["author"].split(" and ")]
        assert authors == paper["authors"]


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"`[^`]*`", "", page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_the_picture_is_small_and_tells_what_it_shows() -> None:
    text = (ROOT / "docs" / "picture.svg").read_text(encoding="utf-8")
    assert len(text) < 8000
    assert "<title" in text and "<desc" in text


def test_the_row_that_is_explained_is_the_page_s() -> None:
    told = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8").partition("One row of [msrvtt1000]")[2]
    table = told.partition("|---")[2].partition("\n\n")[0]
    values = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    page = (ROOT / "leaderboards" / "msrvtt1000.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.endswith("| salstm:xe    |"))
    cells = [cell.strip() for cell in row.split("|")]
    assert len(values) == 9
    for value in values:
        for part in value.removesuffix("..").strip().split(", "):
            assert part in cells, f"docs/reading.md says {part!r}, and the page has {cells}"
