"""MLflow's server over PostgreSQL, as a cluster uses it: several commands write at once, and it may go away and come back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from front import bench
from servers import mlflow_server, postgresql

from bench.conformance.workplace import write_corpus
from bench.home import Home
from bench.plan.stores import check_store
from bench.records.store import all_records
from bench.tracking.mlflow_runs import MlflowTracker

pytestmark = pytest.mark.slow

SMALL = ("model.width=12", "model.embedding=12", "dataset=dataset.yaml", "executor=inline")
# Three commands that write at once, forked: what each of them would import takes longer than what it does. Each prints what it
# had to say as a line of JSON.
DRIVERS = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from record_factory import record
from functools import partial
from bench.cell.job import Job
from bench.tracking.background import open_tracking
from bench.tracking.content import of_record, run_of
from bench.home import Home

uri, home = sys.argv[2], Home(Path(sys.argv[3]))

def drive(me):
    said = []
    tracking = open_tracking(uri, home, "toy", said.append)
    for seed in range(3):  # seed 0 is the same cell for all drivers, the others are each driver's own
        done = record(seed=seed and 100 * me + seed)
        tracking.start(partial(run_of, done.key, done.config))
        for epoch in range(5):
            row = {"phase": "base", "epoch": epoch, "captions": epoch, "seconds": float(epoch), "name": "loss", "value": 1.0}
            tracking.curves(Job(done.key, "toy", "", str(home.root), done.config), [row])
        tracking.finish(partial(of_record, done, home))
    tracking.close()
    print(json.dumps(said) + "\\n", end="", flush=True)

children = []
for me in (1, 2, 3):
    child = os.fork()
    if child == 0:
        drive(me)
        os._exit(0)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql() as address:
        yield address


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("home")
    write_corpus(place, ["frames"])
    return place


def runs_of(uri: str, home: Path, dataset: str) -> list[Any]:
    client = MlflowTracker(uri, Home(home))._client
    return client.search_runs([client.get_experiment_by_name(f"bench/{dataset}").experiment_id])


def await_run(client: Any, dataset: str) -> None:
    """Wait until a cell of a data set is being trained, as MLflow sees it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        experiment = client.get_experiment_by_name(f"bench/{dataset}")
        if experiment and client.search_runs([experiment.experiment_id], "tags.`bench.kind` = 'cell'"):
            return
        time.sleep(0.1)
    raise AssertionError("no run was begun")


def test_several_commands_at_once_and_a_server_that_goes_away(database: str, home: Path, tmp_path: Path) -> None:
    check_store(database, Home(home))
    with mlflow_server(database, tmp_path / "server") as (uri, process):
        check_store(uri, Home(home))
        here = str(Path(__file__).resolve().parents[1] / "unit")
        words = [sys.executable, "-c", DRIVERS, here, uri, str(home)]
        drivers = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=240, check=True)
        assert [json.loads(line) for line in drivers.stdout.splitlines()] == [[]] * 3
        runs = runs_of(uri, home, "toy")
        assert len({run.data.tags["bench.key"] for run in runs}) == len(runs) == 7, "six of their own, one of all"
        assert {run.info.status for run in runs} == {"FINISHED"}
        client = MlflowTracker(uri, Home(home))._client
        for run in runs:
            if run.data.params["seed"] != "0":
                assert len(client.get_metric_history(run.info.run_id, "base/loss")) == 5

        # A command whose server dies under it: the cell is trained and scored all the same.
        words = ["run", "methods=mplstm", *SMALL, "train.epochs=150", f"mlflow={uri}"]
        command = subprocess.Popen(
            [sys.executable, "-m", "bench", *words],
            env={**os.environ, "BENCH_HOME": str(home)},
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        await_run(client, "tiny")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        told, _ = command.communicate(timeout=200)
        assert command.returncode == 0 and told.count("MLflow is not kept up in this run") == 1, told
    assert [record.state for record in all_records(Home(home).results)] == ["done"]

    # With the server gone the next command stops before it starts anything, in a sentence.
    done = bench(home, "run", "methods=salstm", *SMALL, f"mlflow={uri}")
    assert done.returncode == 2 and "does not answer" in done.stderr and "Traceback" not in done.stderr, done
    assert [record.method for record in all_records(Home(home).results)] == ["mplstm"]

    # When it is back, what it missed is written from the record, into the run that was begun.
    with mlflow_server(database, tmp_path / "server") as (uri, _):
        done = bench(home, "mlflow", "sync", f"mlflow={uri}", "dataset=dataset.yaml")
        assert done.returncode == 0 and "1 written" in done.stdout, done
        runs = runs_of(uri, home, "tiny")
        (cell,) = [run for run in runs if "bench.key" in run.data.tags]
        assert cell.info.status == "FINISHED" and "test/cider" in cell.data.metrics
        client = MlflowTracker(uri, Home(home))._client
        assert {"captions.json", "record.json"} <= {item.path for item in client.list_artifacts(cell.info.run_id)}
