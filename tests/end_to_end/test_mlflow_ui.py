"""MLflow's own pages over the runs of `bench`, served by `bench ui`, seen by a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from browser import browser_page
from servers import free_port
from unit.record_factory import record

from bench.cell.traces import keep_traces
from bench.home import Home
from bench.method import Caption
from bench.records.clip_scores import SCORES, write_scores
from bench.records.store import PREDICTIONS, Prediction, cell_folder, write_predictions, write_record

pytestmark = pytest.mark.slow

METHODS = (("salstm", "xe"), ("recnet", "local"), ("vre", "full"))
MEGABYTES = 900  # of the server and its worker together; with its job runner it took 2.6 GB
PATIENCE = 60_000.0  # ms for a page on a machine that does other work

# A panel that opens itself on the first visit and takes a quarter of the page.
NO_ASSISTANT = """localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");"""
# Both pictures of the run are there, fetched from the server and not an empty frame.
SEEN = """() => ["clips", "curves"].every(name => [...document.images].some(image =>
    image.src.includes(`images%2F${name}`) && image.naturalWidth > 100))"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Home:
    """A finished cell of each of three methods: records, curves, captions, what was attended to."""
    home = Home(tmp_path_factory.mktemp("home"))
    home.work.mkdir()
    shutil.copy(mlflow_database, home.work)
    for number, (method, variant) in enumerate(METHODS):
        made = {"cider": 20.0 + 5 * number, "weights_sha256": "a" * 64}
        done = record(method=method, variant=variant, dataset="shapes", made=made)
        folder = cell_folder(home.results, done)
        write_record(folder, done)
        ids = [f"shape{clip:04d}" for clip in range(1100, 1104)]
        words = ("a", "red", "square", "moves")
        attention = [[1.0 if frame == word else 0.02 for frame in range(20)] for word in range(len(words))]
        write_predictions(folder / PREDICTIONS, [Prediction(clip, " ".join(words)) for clip in ids])
        write_scores(folder / SCORES, ids, {"cider": dict.fromkeys(ids, 0.2 + 0.05 * number)})
        (folder / "work").mkdir()
        keep_traces(
            folder / "work", [Caption(clip, words, -1.0, (), {"attention": attention, "key_frame": 3}) for clip in ids]
        )
        rows = [f"base,{epoch},{100 * epoch},{epoch}.0,{name},{value / (epoch + 1 + number)}"
                for epoch in range(6) for name, value in (("loss", 9.0), ("val_cider_tokens", -40.0))]  # fmt: skip
        (folder / "curves.csv").write_text("\n".join(["phase,epoch,captions,seconds,name,value", *rows]) + "\n")
    return home


def command(home: Home, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "BENCH_HOME": str(home.root), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def address(home: Home) -> Iterator[str]:
    """Where `bench ui` serves the runs that `bench mlflow sync` wrote. It is lean, on loopback alone, and ends with Ctrl-C."""
    told, _ = command(home, "mlflow", "sync").communicate(timeout=170)
    assert "3 written" in told, told
    port = free_port()
    server = command(home, "ui", f"port={port}")
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        assert f"at http://127.0.0.1:{port} " in line, line + server.stdout.read()
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        assert len(family) <= 3 and sum(one.memory_info().rss for one in family) < MEGABYTES * 2**20
        listening = {
            at.laddr.ip for one in family for at in one.net_connections("inet") if at.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) in (0, 130)
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def shot(page: Any, name: str) -> None:
    """Keep a screenshot where BENCH_SHOTS says, for people who look at it."""
    if os.environ.get("BENCH_SHOTS"):
        page.screenshot(path=str(Path(os.environ["BENCH_SHOTS"]) / f"{name}.png"))


def test_list_comparison_chart_and_image_are_seen(home: Home, address: str) -> None:
    from bench.tracking.client import MlflowTracker

    client = MlflowTracker(home.mlflow_uri, home)._client
    experiment = client.get_experiment_by_name("bench/shapes").experiment_id
    cells = client.search_runs([experiment], "tags.`bench.kind` = 'cell'")
    runs = f"{address}/#/experiments/{experiment}/runs"
    with browser_page(1600, 1000) as page:
        page.set_default_timeout(PATIENCE)
        page.add_init_script(NO_ASSISTANT)
        # The list: a run for each method, and below it its cells with the data set that they read.
        page.goto(runs)
        for method, variant in METHODS:
            row = page.get_by_role("row").filter(has_text=f"records {method}").first
            row.get_by_role("button").first.click()
            page.get_by_text(f"{method}:{variant} seed 0", exact=True).first.wait_for()
        page.get_by_text(re.compile(r"^shapes \(c+")).first.wait_for()
        shot(page, "list")

        # Charts of the cells: a curve drawn for each of the three.
        page.goto(f"{runs}?compareRunsMode=CHART")
        page.locator(".js-plotly-plot .scatterlayer .trace").nth(2).wait_for(state="attached")
        shot(page, "charts")

        # What they say of each clip, side by side.
        page.goto(f"{runs}?compareRunsMode=ARTIFACT")
        page.get_by_text("a red square moves").nth(1).wait_for()
        shot(page, "captions")

        # Three runs compared: settings and scores.
        chosen = json.dumps([run.info.run_id for run in cells])
        page.goto(f"{address}/#/compare-runs?runs={chosen}&experiments={json.dumps([experiment])}")
        page.get_by_text("Comparing 3 Runs from 1 Experiment").wait_for()
        for word in ("test/cider", "train.epochs", "method"):
            page.get_by_text(word, exact=True).first.wait_for(state="attached")
        for score in ("20", "25", "30"):
            page.get_by_text(re.compile(rf"^{score}(\.0+)?$")).first.wait_for(state="attached")
        shot(page, "compare")

        # One run: its curves as charts, and below them its pictures.
        run = next(run for run in cells if run.data.params["method"] == "vre").info.run_id
        page.goto(f"{runs}/{run}/model-metrics")
        page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for(state="attached")
        shot(page, "run")
        page.mouse.move(800, 600)
        for _ in range(40):
            page.mouse.wheel(0, 500)
            page.wait_for_timeout(150)
            if page.evaluate(SEEN):
                break
        page.wait_for_function(SEEN)
        shot(page, "pictures")
