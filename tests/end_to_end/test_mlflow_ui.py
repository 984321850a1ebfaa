"""MLflow's own pages over records of msrvtt1000's first table, opened from what `bench ui` prints, seen by a real browser."""

from __future__ import annotations

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

from bench.home import Home
from bench.records.store import all_records, cell_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAPERS = {"etenet", "glrg", "hail", "mplstm", "recnet", "s2vt", "salstm", "vre:no_audio"}
MEGABYTES = 900  # of the server and its worker together; with its job runner it took 2.6 GB
PATIENCE = 60_000.0  # ms for a page on a machine that does other work

# A panel that opens itself on the first visit and takes a quarter of the page.
NO_ASSISTANT = """localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");"""
CURVES = """() => {
    const chart = [...document.querySelectorAll(".js-plotly-plot")].find(one => one.querySelector(".scatterlayer .trace"));
    const strokes = [...chart.querySelectorAll(".scatterlayer .trace path.js-line")].map(path => path.style.stroke);
    return [strokes, Math.max(...chart.data.filter(line => line.x.length > 2).flatMap(line => line.x))];
}"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Home:
    """A copy of the records, so that nothing is drawn beside the committed ones."""
    home = Home(tmp_path_factory.mktemp("home"))
    home.work.mkdir()
    shutil.copy(mlflow_database, home.work)
    for record in all_records(ROOT / "results", "msrvtt1000"):
        if record.config["splits"] == "default":
            shutil.copytree(cell_folder(ROOT / "results", record), cell_folder(home.results, record))
    return home


@pytest.fixture(scope="module")
def pages(home: Home) -> Iterator[dict[str, str]]:
    """The addresses that `bench ui` prints. It is lean, on loopback alone, and ends with Ctrl-C."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "bench", "ui", "dataset=msrvtt1000", f"port={port}"],
        env={**os.environ, "BENCH_HOME": str(home.root), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    said = ""
    try:
        while "captions" not in said or not said.endswith("\n"):
            line = server.stdout.readline()
            assert line, said
            said += line
        said += server.stdout.readline()
        assert "msrvtt1000: 10 runs written" in said, said
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        assert len(family) <= 3 and sum(one.memory_info().rss for one in family) < MEGABYTES * 2**20
        listening = {
            at.laddr.ip for one in family for at in one.net_connections("inet") if at.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        yield dict(re.findall(r"^  (\w[\w ]*?) +(http://127\.0\.0\.1:\S+)$", said, re.MULTILINE))
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) in (0, 130)
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def shot(page: Any, name: str) -> None:
    """Keep a screenshot where BENCH_SHOTS says, for people who look at it."""
    if os.environ.get("BENCH_SHOTS"):
        page.screenshot(path=str(Path(os.environ["BENCH_SHOTS"]) / f"{name}.png"))


def test_all_papers_are_seen_without_a_click(pages: dict[str, str]) -> None:
    assert list(pages) == ["papers", "every run", "captions", "table"]
    with browser_page(1400, 900) as page:
        page.set_default_timeout(PATIENCE)
        page.add_init_script(NO_ASSISTANT)
        # The papers: one curve each over the same captions, in colours that can be told apart, each named in the legend.
        page.goto(pages["papers"])
        page.locator(".js-plotly-plot .scatterlayer .trace").nth(len(PAPERS) - 1).wait_for(state="attached")
        strokes, last = page.evaluate(CURVES)
        assert last == 160_000
        assert len(set(strokes) - {"", "none"}) >= len(PAPERS)
        for paper in PAPERS:
            page.get_by_text(f"{paper} (val/cider)", exact=True).first.wait_for()
        shot(page, "papers")

        # Every run, in the colour of its paper: three seeds of one.
        page.goto("about:blank")
        page.goto(pages["every run"])
        for name in ("recnet s0", "salstm s0", "salstm s1", "salstm s2"):
            page.get_by_text(name, exact=True).first.wait_for()
        shot(page, "every_run")

        # What they say of each clip: a column for each paper.
        page.goto("about:blank")
        page.goto(pages["captions"])
        page.get_by_text("video850", exact=True).first.wait_for()
        heads = page.get_by_role("columnheader").filter(has_text=re.compile(r" s\d"))
        heads.first.wait_for()
        seen: set[str] = set()
        for _ in range(12):  # columns that are out of sight are not drawn
            seen |= {found[1] for text in heads.all_inner_texts() if (found := re.search(r"(\S+) s\d", text))}
            page.mouse.move(1100, 600)
            page.mouse.wheel(400, 0)
            page.wait_for_timeout(200)
        assert seen >= PAPERS, seen
        shot(page, "captions")

        # Scores, and the papers' letters as columns.
        page.goto("about:blank")
        page.goto(pages["table"])
        for head in ("λ", "β", "γ", "test/cider"):
            page.get_by_text(head, exact=True).first.wait_for()
        for value in ("0.70602", "0.03", "28.161"):
            page.get_by_text(re.compile(rf"^{value}")).first.wait_for()
        shot(page, "table")
