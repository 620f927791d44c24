"""The page as a browser shows it: no errors, filter, keyboard, two widths, and nothing a model wrote is run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import NASTY
from unlearn_hf.cli.main import main

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED: no Chromium here; apt-get install chromium")
LAPTOP, PHONE = {"width": 1366, "height": 768}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any, make_run: Callable[..., Path], tmp_path: Path) -> Iterator[tuple[Any, list[str]]]:
    """A page with two runs, one of which answers with script tags; and what the console says."""
    record = {"configuration": {"method": "npo"}, "problem": NASTY}
    runs = [make_run("plain", 2.0, record), make_run("nasty", 3.0, record, answer=NASTY)]
    assert main(["report", *map(str, runs), "--output_dir", str(tmp_path / "out")]) == 0
    page, told = browser.new_page(viewport=LAPTOP), []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda problem: told.append(str(problem)))
    page.on("request", lambda asked: told.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto((tmp_path / "out" / "report.html").as_uri())
    yield page, told
    page.close()


def test_no_errors_and_no_script_of_an_answer_runs(opened: tuple[Any, list[str]]) -> None:
    page, told = opened
    assert told == []
    assert page.evaluate("typeof window.broken") == "undefined"
    assert page.evaluate("document.querySelectorAll('.answer script, .answer img').length") == 0
    assert NASTY in page.text_content("#rows")
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 100)")
    # What slipped through all the same would be refused by the browser.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data:x onerror=\"window.broken = 3\">')")
    page.wait_for_timeout(200)
    assert page.evaluate("typeof window.broken") == "undefined"


def test_filter_and_keyboard(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    assert page.inner_text("#count") == "48 of 48 rows"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.type("AUTHOR 7 forget")
    assert page.inner_text("#count") == "1 of 48 rows"
    assert page.locator(".answer:visible").count() == 1
    page.keyboard.press("Escape")
    assert page.inner_text("#count") == "48 of 48 rows"
    page.keyboard.press("Tab")
    page.keyboard.type("retain")
    assert page.inner_text("#count") == "12 of 48 rows"
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    visited = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        visited.add(page.evaluate("document.activeElement.tagName"))
    assert {"A", "DIV", "SUMMARY", "INPUT", "SELECT"} <= visited


@pytest.mark.parametrize("viewport", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_nothing_is_wider_than_the_screen(opened: tuple[Any, list[str]], viewport: dict[str, int]) -> None:
    page, told = opened
    page.set_viewport_size(viewport)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    widths = page.evaluate("[...document.querySelectorAll('th .name')].map((each) => each.offsetWidth)")
    assert min(filter(None, widths)) > 60  # those in closed parts have none
    assert page.locator("#filter").bounding_box()["width"] > 150
    assert told == []
