"""What can be known before work is refused before work, all mistakes of a command at once; secrets are in no sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import BenchError
from bench.cell.job import sentence
from bench.cli.main import main
from bench.declare.addresses import shown
from bench.declare.registry import read_definition
from bench.errors import masked
from bench.home import Home
from bench.plan.request import parse
from bench.records.schema import impersonal
from bench.run.greeting import check_places

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))

    def run(*argv: str) -> tuple[int, str, str]:
        status = main(argv)
        out = capsys.readouterr()
        return status, out.out, " ".join(out.err.split())

    return run


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_subset_device_tracker_and_home_that_cannot_be_are_told_together_before_work(
    command: str, bench: Run, tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("no folder")
    asked = ["methods=salstm", "dataset=shapes", "executor=inline"]
    status, out, err = bench(command, *asked, "subset=5000/1/1", "device=cuda:7", "mlflow=http://u:pw@127.0.0.1:9")
    assert (status, out) == (2, "")
    assert err.startswith("bench: 4 mistakes: 1.")
    for told in (
        "subset asks for 5000 train clips of shapes, which has",
        "device=cuda:7, but this process sees no GPU",
        "mlflow=http://u:***@127.0.0.1:9 does not answer",
        "home is no folder",
    ):
        assert told in err
    assert (tmp_path / "home").read_text() == "no folder"


def test_a_subset_alone_is_one_sentence(bench: Run, tmp_path: Path) -> None:
    status, _, err = bench("plan", "methods=salstm", "dataset=shapes", "subset=1/1/5000")
    assert status == 2 and err.startswith("bench: subset asks for 5000 test clips of shapes, which has")
    assert not (tmp_path / "home").exists()


def test_several_wrong_options_are_told_together() -> None:
    words = ["methods=salstm", "dataset=shapes", "seeds=-1", "device=tpu", "train.epochs=x", "salstm.no=1", "nothing=2"]
    with pytest.raises(BenchError, match=r"^5 mistakes:") as caught:
        parse(words)
    assert 'unknown key "nothing"' in str(caught.value) and "salstm" in str(caught.value)
    with pytest.raises(BenchError, match=r"^5 mistakes:") as caught:
        parse(["methods=[salstm:none,nosuch]", "dataset=nowhere", "train.epochs=0", "model.width=999999999"])
    for told in ('unknown variant "none"', 'unknown method "nosuch"', 'unknown data set "nowhere"', "at most 65536"):
        assert told in str(caught.value)
    with pytest.raises(BenchError, match=r"salstm\.width is 70000, but must be at most 65536"):
        parse(["methods=salstm", "dataset=shapes", "salstm.width=70000"])
    with pytest.raises(BenchError, match=r'(?s)^2 mistakes:.* methods is missing.*unknown data set "nowhere"'):
        parse(["dataset=nowhere"])
    with pytest.raises(BenchError, match=r"^3 mistakes:") as caught:
        parse(words[:5])
    for told in ("seeds holds -1", "device is 'tpu'", "train.epochs is 'x'"):
        assert told in str(caught.value)
    with pytest.raises(BenchError, match=r"^command line: device is 'tpu'"):
        parse([*words[:2], words[3]])


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "methods=salstm", "dataset=LONG"],
        ["plan", "methods=salstm", "dataset=LONG.yaml"],
        ["plan", "LONG.yaml"],
        ["evaluate", "LONG", "dataset=shapes"],
        ["init", "dataset", "captions=LONG"],
        ["features", "import", "dataset=shapes", "stream=frames", "source=LONG"],
        ["show", "LONG"],
        ["compare", "LONG", "LONG", "dataset=shapes"],
        ["caption", "LONG.mp4", "checkpoint=LONG"],
    ],
)
def test_a_name_longer_than_any_files_is_a_sentence(words: list[str], bench: Run, tmp_path: Path) -> None:
    status, out, err = bench(*(word.replace("LONG", "a" * 300) for word in words))
    assert (status, out) == (2, "") and err.startswith("bench: ") and "where it happened" not in err
    assert not list(tmp_path.rglob("trace*"))


def test_a_definition_reads_only_the_variables_that_it_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2")
    path = tmp_path / "dataset.yaml"
    text = "name: own\ncaptions: [{format: jsonl, files: {captions: '${MY_SECRET}/c.jsonl'}}]\nsplits: {first: [1, 1, 1]}\n"
    path.write_text(text)
    with pytest.raises(
        BenchError, match=r"MY_SECRET, which the file does not declare.*environment: \[MY_SECRET\]"
    ) as e:
        read_definition(path).caption_source(Home(tmp_path))
    assert "hunter2" not in str(e.value)
    path.write_text(text + "environment: [MY_SECRET]\n")
    definition = read_definition(path)
    assert definition.resolve("${MY_SECRET}/x", Home(tmp_path)) == tmp_path / "hunter2/x"
    assert definition.resolve("${BENCH_DATA}", Home(tmp_path)).name == "data"
    monkeypatch.delenv("MY_SECRET")
    with pytest.raises(BenchError, match=r"MY_SECRET .* is not set; export MY_SECRET=FOLDER"):
        definition.resolve("$MY_SECRET", Home(tmp_path))


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://bob:hunter2@db:5432/runs",
        "postgresql+psycopg://bob:a/hunter2@x@db/runs",
        "postgresql://bob:12345/hunter2@db/runs",
        "http://:hunter2@127.0.0.1:5000",
        "postgresql://db/runs?user=bob&password=hunter2",
        "MLFLOW_TRACKING_TOKEN=hunter2",
    ],
)
def test_no_secret_of_an_address_is_told(address: str) -> None:
    told = OSError(f"cannot connect to {address} now")
    for text in (
        masked(address),
        shown(address),
        sentence(told),
        sentence(BenchError(str(told))),
        impersonal(str(told)),
    ):
        assert "hunter2" not in text and "***" in text


def test_addresses_without_secrets_stay_as_they_are() -> None:
    for text in (
        "http://127.0.0.1:5000/a",
        "postgresql://bob@db/runs",
        "git@host:x/y",
        "text.tokenizer=strip",
        "a: b@c",
    ):
        assert masked(text) == text


def test_a_fault_of_ours_writes_a_trace_without_secrets(
    bench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench.cli.main as module

    def fails(argv: list[str]) -> int:
        raise KeyError(f"at {argv[-1]}")

    monkeypatch.setattr(module, "_dispatch", fails)
    status, _, err = bench("run", "mlflow=postgresql://bob:hunter2@db/runs")
    traces = list((tmp_path / "home" / ".bench").glob("trace-*"))
    assert status == 70 and len(traces) == 1
    assert "bob:***@db" in traces[0].read_text() and "hunter2" not in traces[0].read_text() + err


def test_places_are_checked_without_leaving_anything(tmp_path: Path) -> None:
    spec = parse(["methods=salstm", "dataset=shapes", "mlflow=off"])
    check_places(spec, Home(tmp_path / "new" / "home"))
    assert not (tmp_path / "new").exists()
