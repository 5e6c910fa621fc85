"""The report in a real browser, offline: it draws, sorts, downloads and says nothing wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hwnas.report import build_report

pytestmark = pytest.mark.browser

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        yield launched
        launched.close()


def open_page(browser: Any, file: Path, width: int = 1280, scheme: str = "light") -> Any:
    """Open a file without network; the page keeps what went wrong in `problems`."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    page.problems = []
    page.requests = []
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    return page


def test_the_report_works_in_a_browser_without_network(
    browser: Any, make_folder: Callable[..., Path]
) -> None:
    page = open_page(browser, build_report(make_folder()))

    drawn = page.locator(".plot .main-svg").count()
    assert drawn > 0
    assert page.locator(".plot .plotly .point, .plot .plotly .js-line").count() > 50

    trials = page.locator("#trials_table table").first
    heading = trials.locator("th", has_text="Latency")
    read = "rows => rows.map(row => Number(row.cells[5].dataset.sort || 'NaN'))"
    heading.get_by_role("button").click()
    ascending = trials.locator("tbody tr").evaluate_all(read)[:195]
    assert ascending == sorted(ascending)
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").click()
    descending = trials.locator("tbody tr").evaluate_all(read)[:195]
    assert descending == ascending[::-1]

    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSON").click()
    content = json.loads(Path(download.value.path()).read_text())
    assert len(content) == 200

    page.locator("#search_progress summary").click()
    page.locator("#search_progress details .plot .main-svg").first.wait_for()

    assert page.problems == []
    assert [url for url in page.requests if not url.startswith(("file:", "blob:", "data:"))] == []


def test_nothing_is_wider_than_a_phone(browser: Any, make_folder: Callable[..., Path]) -> None:
    page = open_page(browser, build_report(make_folder()), width=400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.problems == []


def test_dark_and_light_differ_in_page_and_figures(
    browser: Any, make_folder: Callable[..., Path]
) -> None:
    page = open_page(browser, build_report(make_folder()), scheme="dark")
    read = (
        "() => [getComputedStyle(document.body).backgroundColor,"
        " document.querySelector('.plot .xtick text').style.fill]"
    )
    dark = page.evaluate(read)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(read)
    for _ in range(100):  # The page redraws; its policy forbids Playwright's own way to wait.
        if light[1] != dark[1]:
            break
        page.wait_for_timeout(50)
        light = page.evaluate(read)
    assert light[1] != dark[1]
    assert light[0] != dark[0]
    assert page.problems == []


def test_names_with_markup_run_nothing(browser: Any, make_folder: Callable[..., Path]) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    folder = make_folder(command=evil, notes=[evil], chosen="knee", device={evil: evil})
    page = open_page(browser, build_report(folder))
    page.wait_for_timeout(200)
    assert "owned" not in page.title()
    assert page.problems == []
