"""Cells on a cluster: real Ray nodes with fake GPUs, in processes that end with these tests."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

TOY = '''
import json, sys, time, traceback
from pathlib import Path
from types import SimpleNamespace

import ray
from ray.cluster_utils import Cluster

from bench.declare.card import Resources
from bench.run.runner import run
from bench.home import Home
from bench.records.schema import cell_key


class Cell:
    """A cell of a method that does not exist: enough for placing it."""

    def __init__(self, name, **more):
        self.name = name
        self.config = {"method": name, "variant": None, "dataset": "toy", "split": "test", "protocol": "standard"}
        self.config |= {"seed": 0, "threads": 1, "device": "auto", **more}

    key = property(lambda self: cell_key(self.config))
    label = property(lambda self: self.name)

    def folder(self, home):
        return home.results / "toy" / self.name / self.key


def work(config, root):
    import json, os, time
    from pathlib import Path

    import ray

    from bench.cell.provenance import provenance
    from bench.records.schema import cell_key
    from bench.records.schema import Record
    from bench.records.store import write_record

    folder = Path(root) / "results" / "toy" / config["method"] / cell_key(config)
    folder.mkdir(parents=True, exist_ok=True)
    here = ray.get_runtime_context()
    told = {"node": here.get_node_id(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""), "at": time.time(), "pid": os.getpid()}
    facts = provenance(1, "cpu")
    with (folder / "seen").open("a") as file:
        file.write(json.dumps(told | {"share": facts.get("gpu_share"), "again": facts.get("memory_ran_out")}) + chr(10))
    until = time.time() + 60
    while len(list(Path(root).glob("results/toy/*/*/seen"))) < config.get("meet", 0) and time.time() < until:
        time.sleep(0.1)
    (folder / "met").write_text(json.dumps(time.time() < until))
    if config.get("hungry") and (facts.get("gpu_share") or 0) < 1:
        raise MemoryError("CUDA out of memory")
    steps = folder / "steps"
    for step in range(int(steps.read_text()) if steps.exists() else 0, config.get("steps", 1)):
        time.sleep(config.get("pause", 0.0))
        (folder / "steps.new").write_text(str(step + 1))
        os.replace(folder / "steps.new", steps)  # killed at any moment it is whole
    record = Record.model_validate(
        {"schema": 1, "key": cell_key(config), "state": "unscored", "config": config, "provenance": facts}
    )
    write_record(folder, record)


def score(config, root, scorer):
    from pathlib import Path

    import ray

    from bench.records.schema import cell_key
    from bench.records.store import read_record, write_record

    folder = Path(root) / "results" / "toy" / config["method"] / cell_key(config)
    (folder / "scored").write_text(ray.get_runtime_context().get_node_id())
    record = read_record(folder / "record.json")
    scored = {"state": "done", "scores": {"test": {"cider": 25.0}}, "signatures": {"test": {"cider": "toy"}}}
    write_record(folder, record.model_copy(update=scored))


def go(cells, home, **changes):
    asked = {"executor": "ray", "retry_failed": False, "mlflow": "off", "wandb": None, "dataset": "toy"}
    where = {"address": "local", "device": "auto", "max_concurrent": None, "resources": Resources()}
    return run(cells, home, SimpleNamespace(**{**asked, **where, **changes}), work=work, score=score)


def seen(cell, home):
    return [json.loads(line) for line in (cell.folder(home) / "seen").read_text().splitlines()]


'''

SERVING = """
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0})
gpu = [cluster.add_node(num_cpus=4, num_gpus=2) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False)
try:
    for line in sys.stdin:
        home = Home(Path(line.strip()))
        try:
            exec((home.root / "body.py").read_text(), globals())
            answer = {"told": test()}
        except Exception:
            answer = {"raised": traceback.format_exc()}
        (home.root / "answer.tmp").write_text(json.dumps(answer))
        (home.root / "answer.tmp").rename(home.root / "answer.json")
finally:
    ray.shutdown()
    cluster.shutdown()
"""

OnACluster = Callable[[Path, str], Any]


@pytest.fixture(scope="module")
def on_a_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnACluster]:
    """What `test()` in a body returns in the home given. A head without GPUs and two nodes with two fake ones each, `gpu`,
    serve all bodies, one after the other; a body leaves the nodes as it found them."""
    log = tmp_path_factory.mktemp("cluster") / "log.txt"
    # Ray gives a silent node half a minute.
    eager = {"RAY_health_check_period_ms": "500", "RAY_health_check_initial_delay_ms": "500"}
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", TOY + SERVING],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            text=True,
            env=os.environ | eager,
        )
    assert process.stdin is not None

    def ask(home: Path, body: str) -> Any:
        (home / "body.py").write_text(textwrap.dedent(body))
        print(home, file=process.stdin, flush=True)
        answer, until = home / "answer.json", time.monotonic() + 240
        while not answer.is_file():
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-6000:]
            time.sleep(0.05)
        found = json.loads(answer.read_text())
        assert "told" in found, found["raised"] + log.read_text()[-3000:]
        return found["told"]

    yield ask
    process.stdin.close()
    assert process.wait(60) == 0


def test_cells_go_where_the_gpus_are_and_shares_share(on_a_cluster: OnACluster, tmp_path: Path) -> None:
    found = on_a_cluster(
        tmp_path,
        """
        def test():
            cells = [Cell(f"half{number}", meet=5) for number in range(5)]  # each waits for all the others
            on_cpu = Cell("cpu", device="cpu")
            status = go([*cells, on_cpu], home, resources=Resources(gpus=0.5))
            with_gpus = {node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")}
            met = [json.loads((cell.folder(home) / "met").read_text()) for cell in cells]
            scored = {(cell.folder(home) / "scored").read_text() for cell in cells} - {ray.get_runtime_context().get_node_id()}
            return status, [seen(cell, home) for cell in cells], seen(on_cpu, home), sorted(with_gpus), met, list(scored)
        """,
    )
    status, halves, on_cpu, with_gpus, met, scored_elsewhere = found
    assert status == 0
    assert {cell[0]["node"] for cell in halves} == set(with_gpus), "both nodes with GPUs, and no other"
    assert all(cell[0]["share"] == 0.5 and cell[0]["gpus"] in ("0", "1") for cell in halves)
    assert all(met), "five cells at once on four GPUs"
    assert on_cpu[0]["gpus"] == "" and on_cpu[0]["share"] is None
    assert not scored_elsewhere, "one scorer, beside the driver"


def test_kinds_of_gpus_are_found_and_a_process_that_used_one_is_not_used_again(
    on_a_cluster: OnACluster, tmp_path: Path
) -> None:
    """Ray names the kind of GPUs that are real; torch would go on using the GPU that a process saw first."""
    found = on_a_cluster(
        tmp_path,
        """
        def test():
            named = cluster.add_node(num_cpus=2, num_gpus=1, resources={"accelerator_type:H100": 1})
            cells = [Cell(f"one{number}") for number in range(3)]
            status = go(cells, home, resources=Resources(accelerator_type="H100"))
            cluster.remove_node(named)
            return status, [seen(cell, home)[0] for cell in cells], named.node_id
        """,
    )
    status, cells, node = found
    assert status == 0 and {cell["node"] for cell in cells} == {node}
    assert len({cell["pid"] for cell in cells}) == 3


def test_out_of_memory_gets_a_whole_gpu_once_and_the_record_says_so(on_a_cluster: OnACluster, tmp_path: Path) -> None:
    found = on_a_cluster(
        tmp_path,
        """
        def test():
            from bench.records.store import read_record

            cell = Cell("hungry", hungry=True)
            status = go([cell, Cell("other")], home, resources=Resources(gpus=0.5))
            facts = read_record(cell.folder(home) / "record.json").provenance
            return status, seen(cell, home), facts.gpu_share, facts.memory_ran_out
        """,
    )
    status, tries, share, ran_out = found
    assert (status, share, ran_out) == (0, 1.0, True)
    assert [one["share"] for one in tries] == [0.5, 1.0]


def test_a_trial_that_would_fail_again_is_tried_once_and_a_hungry_one_on_a_whole_gpu(
    on_a_cluster: OnACluster, tmp_path: Path
) -> None:
    tries, errors, said = on_a_cluster(
        tmp_path,
        """
        def test():
            from ray import tune

            from bench.tuning.failures import Failures, held_gpus, told_first

            def trial(config, root):
                with (Path(root) / f"tries{config['number']}").open("a") as file:
                    print(held_gpus(), file=file)
                with told_first(tune.report, {"value": 0.0}) as send:
                    send({"value": 1.0})
                    if config["number"] == 0:
                        raise ArithmeticError("the loss is not finite")
                    if held_gpus() < 1:
                        raise MemoryError("CUDA out of memory")

            said = []
            told = tune.with_resources(tune.with_parameters(trial, root=str(home.root)), {"cpu": 1, "gpu": 0.5})
            results = tune.Tuner(
                told,
                param_space={"number": tune.grid_search([0, 1])},
                tune_config=tune.TuneConfig(metric="value", mode="max"),
                run_config=tune.RunConfig(
                    storage_path=str(home.root / "ray"),
                    failure_config=tune.FailureConfig(max_failures=2),
                    callbacks=[Failures(said.append)],
                    verbose=0,
                ),
            ).fit()
            tries = [(home.root / f"tries{number}").read_text().split() for number in (0, 1)]
            return tries, [type(error).__name__ for error in results.errors], said
        """,
    )
    assert tries == [["0.5"], ["0.5", "1.0"]]
    assert len(errors) == 1 and len(said) == 1 and said[0].endswith("once more, alone on a whole GPU")


def test_a_lost_node_costs_its_cells_no_more_than_the_way_to_another(on_a_cluster: OnACluster, tmp_path: Path) -> None:
    found = on_a_cluster(
        tmp_path,
        """
        def test():
            import contextlib, io, threading

            cells = [Cell(f"long{number}", pause=0.2, steps=30) for number in range(4)]

            def lose():
                until = time.time() + 60
                while time.time() < until and not all((cell.folder(home) / "steps").exists() for cell in cells):
                    time.sleep(0.1)
                time.sleep(1)
                cluster.remove_node(gpu[1], allow_graceful=False)

            thread = threading.Thread(target=lose)
            thread.start()
            with contextlib.redirect_stdout(io.StringIO()) as said:
                status = go(cells, home, resources=Resources(gpus=1))
            thread.join()
            gpu[1] = cluster.add_node(num_cpus=4, num_gpus=2)
            steps = [(cell.folder(home) / "steps").read_text() for cell in cells]
            return status, [seen(cell, home) for cell in cells], steps, said.getvalue()
        """,
    )
    status, tries, steps, said = found
    assert "is gone; its cells go on elsewhere" in said and "raylet" not in said, "one line, and none of Ray's own"
    assert status == 0 and steps == ["30"] * 4, said
    moved = [cell for cell in tries if len(cell) > 1]
    assert moved, "the node was lost before its cells had ended"
    assert all(cell[0]["node"] != cell[-1]["node"] for cell in moved)


def test_at_most_so_many_at_once(on_a_cluster: OnACluster, tmp_path: Path) -> None:
    found = on_a_cluster(
        tmp_path,
        """
        def test():
            cells = [Cell(f"one{number}", pause=0.5, device="cpu") for number in range(4)]
            status = go(cells, home, max_concurrent=1)
            return status, sorted(seen(cell, home)[0]["at"] for cell in cells)
        """,
    )
    status, times = found
    assert status == 0
    assert all(later - earlier >= 0.5 for earlier, later in itertools.pairwise(times))


def test_a_node_without_the_features_is_named_before_anything_starts(on_a_cluster: OnACluster, tmp_path: Path) -> None:
    """All nodes of this machine see one disk: a cache whose fingerprint is not the cells' stands for one that is not there."""
    found = on_a_cluster(
        tmp_path,
        """
        def test():
            from bench import BenchError

            cell = Cell("reads", device="cpu", streams={"frames": "f" * 64})
            try:
                go([cell], home)
            except BenchError as error:
                return str(error), cell.folder(home).exists()
        """,
    )
    message, started = found
    assert message.startswith("node ") and "lacks the features" in message and message.count(". ") == 0
    assert not started


def test_a_node_that_dies_while_it_is_asked_is_left_out(on_a_cluster: OnACluster, tmp_path: Path) -> None:
    answers, others = on_a_cluster(
        tmp_path,
        """
        def test():
            import threading

            from bench.run.cluster import ask_nodes

            doomed = cluster.add_node(num_cpus=1)

            def question(place, doomed):
                import time
                from pathlib import Path

                import ray

                if ray.get_runtime_context().get_node_id() == doomed:
                    Path(place).touch()
                    time.sleep(100)
                return "here"

            def lose():
                while not (home.root / "asked").exists():
                    time.sleep(0.1)
                cluster.remove_node(doomed, allow_graceful=False)

            thread = threading.Thread(target=lose)
            thread.start()
            answers = ask_nodes(question, str(home.root / "asked"), doomed.node_id)
            thread.join()
            return sorted(one.node for one in answers), sorted(node.node_id for node in gpu)
        """,
    )
    assert answers == others


def test_when_all_of_ray_is_killed_no_cell_has_failed(tmp_path: Path) -> None:
    body = """
        import os, threading
        import psutil

        os.environ["RAY_health_check_period_ms"] = os.environ["RAY_health_check_initial_delay_ms"] = "300"
        home = Home(Path(sys.argv[1]))
        cells = [Cell(f"long{number}", pause=0.2, steps=10, device="cpu") for number in range(4)]

        def kill():
            until = time.time() + 60
            while time.time() < until and not (cells[0].folder(home) / "steps").exists():
                time.sleep(0.05)
            for process in psutil.Process().children(recursive=True):
                if process.name() == "raylet":
                    process.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        first = go(cells, home)
        thread.join()
        states = [json.loads(path.read_text())["state"] for path in home.results.rglob("record.json")]
        print("told", json.dumps([first, states, go(cells, home)]))
    """
    program = TOY + textwrap.dedent(body)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=240)
    told = [line for line in done.stdout.splitlines() if line.startswith("told ")]
    assert done.returncode == 0 and told, done.stdout[-3000:] + done.stderr[-3000:]
    first, states, second = json.loads(told[0].removeprefix("told "))
    assert first == 1 and "failed" not in states
    assert second == 0, "the same command, in the same process too, ends the work"


def test_an_sqlite_file_is_refused_on_several_nodes(on_a_cluster: OnACluster, tmp_path: Path) -> None:
    said, left = on_a_cluster(
        tmp_path,
        """
        from bench import BenchError

        def test():
            said = []
            for store in (None, "sqlite:///runs.db"):
                try:
                    go([Cell("cpu", device="cpu")], home, mlflow=store)
                except BenchError as error:
                    said.append(str(error))
            return said, [str(path) for path in home.root.rglob("*.db")] + [str(path) for path in home.results.rglob("seen")]
        """,
    )
    assert len(said) == 2 and all("this Ray has 3 nodes" in one and "mlflow=off" in one for one in said)
    assert not left, "nothing was started and nothing was made"
