"""The HTML pages in a real Chromium: sorted by keyboard, no fault that axe finds, phone and desktop, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from record_factory import put, record
from test_pages import ODD, a_table

from bench.home import Home
from bench.reports.leaderboard import write
from tests.browser import browser_page

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Leaderboards with tied, failed and missing rows, foreign text, pictures, printed results and refused records."""
    home = Home(tmp_path_factory.mktemp("home"))
    a_table(home, dataset="msrvtt_toy")
    made = {"dataset": "msrvtt_toy", "title": ODD}
    put(home.results, record("failed", method="mplstm", **made), record("unscored", method="s2vt", **made))
    [path] = put(home.results, record(method="etenet", variant="step1", **made))
    path.write_text(path.read_text().replace('"cider": 25.0', '"cider": 2500.0'))
    write(home)
    return home.leaderboards


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
@pytest.mark.parametrize("name", ["index", "msrvtt_toy", "published"])
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


@pytest.mark.parametrize("name", ["index", "msrvtt_toy", "published"])
def test_a_phone_scrolls_tables_and_not_the_page(browser: Any, folder: Path, name: str) -> None:
    open_page(browser, folder, name, PHONE)
    wide, seen = browser.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= seen
    inside = browser.evaluate(
        "[...document.querySelectorAll('.wide')].every(one => one.getBoundingClientRect().right <= innerWidth)"
    )
    assert inside


def test_columns_are_sorted_by_keyboard_and_say_so(browser: Any, folder: Path) -> None:
    open_page(browser, folder, "msrvtt_toy", DESKTOP)
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
        open_page(browser, folder, "msrvtt_toy", DESKTOP, scheme)
        seen[scheme] = browser.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector('svg text')).fill]"""
        )
    assert seen == {
        "light": ["rgb(255, 255, 255)", "rgb(26, 26, 26)"],
        "dark": ["rgb(21, 23, 28)", "rgb(233, 234, 236)"],
    }


def test_pictures_have_words_and_are_seen(browser: Any, folder: Path) -> None:
    open_page(browser, folder, "msrvtt_toy", DESKTOP)
    pictures = browser.get_by_role("img")
    assert pictures.count() == 2
    for number in range(2):
        box = pictures.nth(number).bounding_box()
        assert box["width"] > 600 and box["height"] > 100
        assert "recnet:local" in pictures.nth(number).get_attribute("aria-label")


def test_links_lead_to_files_that_are_there(browser: Any, folder: Path) -> None:
    for name in ("index", "msrvtt_toy", "published"):
        open_page(browser, folder, name, DESKTOP)
        targets = browser.evaluate("[...document.querySelectorAll('a')].map(one => one.href)")
        assert targets
        lost = [target for target in targets if not Path(target.removeprefix("file://")).is_file()]
        assert lost == []
