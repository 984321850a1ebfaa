"""The HTML pages in a real Chromium: sorted by keyboard, no fault that axe finds, phone and desktop, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from record_factory import config, put, record
from test_pages import ODD, a_table

from bench.home import Home
from bench.reports.leaderboard import write
from bench.reproduction import answers as asked
from bench.reproduction import pages as reproductions
from bench.tuning import pages as searches
from bench.tuning.study import Report, Trial
from tests.browser import browser_page

PAGES = (
    "index",
    "msrvtt_clips",
    "published",
    "reproductions/index",
    "reproductions/ideas",
    "reproductions/recnet/table4",
    "reproductions/recnet/fig6",
    "tuning/index",
    "tuning/msrvtt_clips",
)
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Leaderboards with tied, failed and missing rows, foreign text, pictures, printed results and refused records."""
    home = Home(tmp_path_factory.mktemp("home"))
    a_table(home, dataset="msrvtt_clips")
    made = {"dataset": "msrvtt_clips", "title": ODD}
    put(home.results, record("failed", method="mplstm", **made), record("unscored", method="s2vt", **made))
    [path] = put(home.results, record(method="etenet", variant="step1", **made))
    path.write_text(path.read_text().replace('"cider": 25.0', '"cider": 2500.0'))
    reproduced(home)
    searched(home)
    for page in (write, reproductions.write, searches.write):
        page(home)
    return home.leaderboards


def reproduced(home: Home) -> None:
    """A table and a figure of RecNet in small, and one idea beside its control."""
    made: dict[str, dict[str, list[str]]] = {"recnet/table4": {}, "recnet/fig6": {}, "ideas/reconstructor": {}}
    for number, weight in enumerate((0.1, 0.3)):
        cell = record(
            method="recnet",
            variant="local",
            dataset="shapes",
            settings={"reconstruction_weight": weight},
            made={"cider": 20.0 + number},
        )
        put(home.results, cell)
        made["recnet/fig6"][f"local {weight}"] = [f"shapes/recnet/{cell.key}"]
    for number, method in enumerate(("salstm", "recnet")):
        cells = [record(method=method, dataset="shapes", seed=n, made={"cider": 20.0 + n * number}) for n in (1, 2)]
        put(home.results, *cells)
        keys = [f"shapes/{method}/{one.key}" for one in cells]
        made["recnet/table4"][f"table4: row {number + 3}"] = keys
        made["ideas/reconstructor"][("control", "idea")[number]] = keys
    for target, answers in made.items():
        section = asked.Section(small=target != "ideas", dataset="shapes", protocol="standard", cells=answers)
        asked.note(home, target, "study" if target.startswith("ideas/") else "small", section)


def searched(home: Home) -> None:
    """A search of lambda with one trial of each state."""
    trials = [
        Trial(number=0, point={"reconstruction_weight": 0.1}, key="a", state="completed", value=21.0),
        Trial(number=1, point={"reconstruction_weight": 0.3}, key="b", state="stopped", value=19.0),
        Trial(number=2, point={"reconstruction_weight": 0.5}, key="c", state="failed", message=ODD),
    ]
    report = Report(
        row="recnet:local",
        how={"search": "grid", "scheduler": "asha", "trials": 3, "seed": 0},
        space={"reconstruction_weight": [0.1, 0.3, 0.5]},
        config=config("recnet", "local", dataset="msrvtt_clips", split="val"),
        budget=1000,
        trials=trials,
        chosen=0,
    )
    path = home.results / "tuning" / "msrvtt_clips" / "recnet" / "local-0123.json"
    path.parent.mkdir(parents=True)
    path.write_text(report.model_dump_json(by_alias=True), encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_page() as page:
        yield page


def open_page(browser: Any, folder: Path, name: str, size: dict[str, int], scheme: str = "light") -> list[str]:
    """Open a page of the folder; returns what the browser complained of, and what it asked the network for."""
    told: list[str] = []
    browser.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
    browser.on("request", lambda request: told.append(request.url) if not request.url.startswith("file:") else None)
    browser.emulate_media(color_scheme=scheme)
    browser.set_viewport_size(size)
    browser.goto((folder / f"{name}.html").as_uri())
    return told


def column(browser: Any, name: str) -> list[str]:
    """The cells of a column of the first table, as they stand."""
    return list(
        browser.evaluate(
            """name => { const table = document.querySelector('table');
            const place = [...table.tHead.rows[0].cells].findIndex(head => head.textContent === name);
            return [...table.tBodies[0].rows].map(row => row.cells[place].textContent) }""",
            name,
        )
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_serious_fault(browser: Any, folder: Path, name: str, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="no axe: pip install axe-playwright-python"
    )
    assert open_page(browser, folder, name, DESKTOP, scheme) == []
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = axe.Axe().run(browser).response["violations"]
    told = [
        f"{one['id']}: {[node['html'][:90] for node in one['nodes'][:3]]}" for one in found if one["impact"] in SERIOUS
    ]
    assert told == []


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_scrolls_tables_and_not_the_page(browser: Any, folder: Path, name: str) -> None:
    open_page(browser, folder, name, PHONE)
    wide, seen = browser.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= seen
    inside = browser.evaluate(
        "[...document.querySelectorAll('.wide')].every(one => one.getBoundingClientRect().right <= innerWidth)"
    )
    assert inside


def test_columns_are_sorted_by_keyboard_and_say_so(browser: Any, folder: Path) -> None:
    open_page(browser, folder, "msrvtt_clips", DESKTOP)
    assert column(browser, "#") == ["1", "2", "3", "—", "—"]
    button = browser.locator("table").first.locator("thead button", has_text="CIDEr")
    head = browser.locator("table").first.locator("thead th", has_text="CIDEr")
    button.focus()
    browser.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    browser.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(browser, "#") == ["3", "2", "1", "—", "—"], "what has no number stays last"
    browser.locator("table").first.locator("thead button", has_text="variant").click()
    names = column(browser, "variant")
    assert names == sorted(names)
    assert head.get_attribute("aria-sort") is None
    browser.locator("table").first.locator("thead button", has_text="#").click()
    assert column(browser, "#") == ["1", "2", "3", "—", "—"]


def test_dark_is_dark_and_pictures_follow(browser: Any, folder: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        open_page(browser, folder, "msrvtt_clips", DESKTOP, scheme)
        seen[scheme] = browser.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector('svg text')).fill]"""
        )
    assert seen == {
        "light": ["rgb(255, 255, 255)", "rgb(26, 26, 26)"],
        "dark": ["rgb(21, 23, 28)", "rgb(233, 234, 236)"],
    }


def test_pictures_have_words_and_are_seen(browser: Any, folder: Path) -> None:
    open_page(browser, folder, "msrvtt_clips", DESKTOP)
    pictures = browser.get_by_role("img")
    assert pictures.count() == 2
    for number in range(2):
        box = pictures.nth(number).bounding_box()
        assert box["width"] > 600 and box["height"] > 100
        assert "recnet:local" in pictures.nth(number).get_attribute("aria-label")


def test_links_lead_to_files_that_are_there(browser: Any, folder: Path) -> None:
    """Files, and headings of the page."""
    for name in PAGES:
        open_page(browser, folder, name, DESKTOP)
        targets = browser.evaluate("[...document.querySelectorAll('a')].map(one => one.href)")
        assert targets
        lost = [target for target in targets if not Path(target.removeprefix("file://").partition("#")[0]).is_file()]
        assert lost == []
        missed = browser.evaluate(
            """() => [...document.querySelectorAll('a[href^="#"]')]
            .filter(one => !document.getElementById(decodeURIComponent(one.hash.slice(1)))).map(one => one.href)"""
        )
        assert missed == []


def test_a_list_of_contents_leads_to_every_section(browser: Any, folder: Path) -> None:
    for name in ("published", "reproductions/ideas"):
        open_page(browser, folder, name, DESKTOP)
        sections = browser.evaluate("[...document.querySelectorAll('h2')].map(one => one.textContent)")
        jumps = browser.evaluate("[...document.querySelectorAll('nav a')].map(one => one.textContent)")
        assert jumps == sections and len(sections) > 1
    browser.locator("nav a").last.press("Enter")
    assert browser.evaluate("document.querySelector('h2:target').textContent") == sections[-1]


def test_every_page_is_found_from_the_first(browser: Any, folder: Path) -> None:
    found, waiting = set(), [(folder / "index.html").as_uri()]
    while waiting:
        page = waiting.pop()
        found.add(page)
        browser.goto(page)
        targets = browser.evaluate("[...document.querySelectorAll('a')].map(one => one.href.split('#')[0])")
        waiting += {one for one in targets if one.endswith(".html")} - found - {*waiting}
    assert found == {path.as_uri() for path in folder.rglob("*.html")}
