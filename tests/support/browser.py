"""Prefect's UI in a real browser. `SCREENSHOTS=folder` keeps pictures of what the tests look at.

Those of docs/ are made again by

    SCREENSHOTS=docs pytest -n 0 --basetemp=/tmp/zerovl tests/flows/test_browser.py tests/flows/test_killed_runs.py \\
        -k "deployments or custom_run or quick_run or cancelled_run_and"
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.support.factory import Factory
from tests.support.prefect_api import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = os.environ.get("SCREENSHOTS", "")
_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


def in_a_thread(look: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a thread: Playwright can be open once in each, and the page of the flows stays open in the main."""

    @wraps(look)
    def run(*arguments: Any, **named: Any) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(look, *arguments, **named).result()

    return run


@contextmanager
def open_browser() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.set_default_timeout(120_000)
            expect.set_options(timeout=120_000)
            yield page
        finally:
            browser.close()


def keep(page: Page, name: str) -> None:
    if SCREENSHOTS:
        page.wait_for_timeout(1500)  # animations
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        picture.quantize(256, dither=Image.Dither.NONE).save(Path(SCREENSHOTS, f"ui-{name}.png"), optimize=True)


def open_deployment(factory: Factory, page: Page, name: str) -> None:
    page.goto(f"{factory.url}/deployments")
    page.get_by_role("link", name=name, exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).wait_for()


def press_quick_run(factory: Factory, page: Page) -> str:
    """Start the deployment `train` by its button; returns the run."""
    known = {row["id"] for row in factory.api("POST", "/flow_runs/filter", {})}
    open_deployment(factory, page, "train")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Quick run", exact=True).click()

    def started() -> str | None:
        rows = factory.api("POST", "/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"})
        new = [row["id"] for row in rows if row["id"] not in known and not row["auto_scheduled"]]
        return str(new[0]) if new else None

    run = wait_for("a run that the browser started", started)
    page.goto("about:blank")  # what moves on the page costs a core without a GPU
    return run


def press_cancel(factory: Factory, page: Page, run: str) -> None:
    page.goto(f"{factory.url}/runs/flow-run/{run}")
    page.get_by_role("button", name="Cancel", exact=True).first.click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm", exact=True).click()


def submit(page: Page, answer: str) -> None:
    """Press Submit until the page shows an answer: what a busy server refuses, the form does not ask again."""
    shown = page.get_by_text(answer).locator("visible=true").first
    for last in (False, False, True):
        page.get_by_role("button", name="Submit", exact=True).click()
        try:
            return expect(shown).to_be_visible(timeout=40_000)
        except AssertionError:
            if last:
                raise


def shows(page: Page, text: str, exact: bool = False) -> None:
    """The page has the text somewhere where it can be seen; others may be hidden behind tabs."""
    expect(page.get_by_text(text, exact=exact).locator("visible=true").first).to_be_visible()


def open_artifact(factory: Factory, page: Page, run: str, key: str) -> None:
    """Open the page of a run's newest artifact of this name; the tab of a run shows more cards only as one scrolls."""
    artifact = wait_for(f"the artifact {key}", lambda: factory.artifacts(run).get(key))
    for last in (False, False, True):
        page.goto(f"{factory.url}/artifacts/artifact/{artifact['id']}")
        try:
            return shows(page, key)
        except AssertionError:  # the page does not ask again for what a busy server refused
            if last:
                raise


def open_tab(page: Page, name: str) -> None:
    page.get_by_text(name, exact=True).locator("visible=true").first.click()
