"""Prefect's UI in a real browser. `SCREENSHOTS=folder` keeps pictures of what the tests look at.

Those of docs/ are made by `python -m benchmarks.ui_pictures`.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.support.prefect_api import PrefectApi, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = os.environ.get("SCREENSHOTS", "")
WIDTH, HEIGHT = 1280, 860  # pixels
_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# A run's page draws a graph of its tasks by WebGL, again and again: without a GPU that takes more than a core as long
# as the page is open. No test looks at the graph, pictures have it.
WITHOUT_GRAPH = ("--disable-3d-apis",)


@contextmanager
def open_browser(more_flags: Sequence[str] = () if SCREENSHOTS else WITHOUT_GRAPH) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS, *more_flags])
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.set_default_timeout(120_000)
            expect.set_options(timeout=120_000)
            yield page
        finally:
            browser.close()


def keep(page: Page, name: str, folder: str = SCREENSHOTS) -> None:
    """Keep a picture of the page as FOLDER/ui-NAME.png; none where no folder is named."""
    if folder:
        page.wait_for_timeout(1500)  # animations
        Path(folder).mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        picture.quantize(256, dither=Image.Dither.NONE).save(Path(folder, f"ui-{name}.png"), optimize=True)


def open_deployment(factory: PrefectApi, page: Page, name: str) -> None:
    page.goto(f"{factory.url}/deployments")
    page.get_by_role("link", name=name, exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).wait_for()


def open_form(factory: PrefectApi, page: Page) -> None:
    """Open the form of a custom run of the deployment `train`."""
    open_deployment(factory, page, "train")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run", exact=True).click()


def choose_setting(page: Page, word: str, line: str) -> Locator:
    """Add a setting to the form, found by a word of its sentence; returns the field of its value."""
    offered = page.locator(".schema-form-property-array-list").first
    offered.get_by_role("button", name="Add item").click()
    offered.locator(".p-select-button__control").click()
    page.keyboard.type(word)
    page.get_by_text(line).locator("visible=true").click()
    return offered.locator("textarea")


def progress_of_training(factory: PrefectApi, run: str) -> str:
    return str(factory.artifacts(run).get("progress-train", {}).get("description"))


def press(page: Page, request: str, *clicks: Callable[[], None]) -> None:
    """Click until the server takes the request that follows: a page does not ask again for what a busy one refused."""
    for _ in range(3):
        with page.expect_response(lambda answer: answer.request.method == "POST" and request in answer.url) as answer:
            for click in clicks:
                click()
        if answer.value.ok:
            return
    raise AssertionError(f"the server refused {request}: {answer.value.status} {answer.value.text()}")


def press_quick_run(factory: PrefectApi, page: Page) -> str:
    """Start the deployment `train` by its button; returns the run."""
    known = {row["id"] for row in factory.api("POST", "/flow_runs/filter", {})}
    open_deployment(factory, page, "train")
    run_button, quick = page.get_by_role("button", name="Run", exact=True), page.get_by_text("Quick run", exact=True)
    press(page, "create_flow_run", run_button.click, quick.click)

    def started() -> str | None:
        rows = factory.api("POST", "/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"})
        new = [row["id"] for row in rows if row["id"] not in known and not row["auto_scheduled"]]
        return str(new[0]) if new else None

    run = wait_for("a run that the browser started", started)
    page.goto("about:blank")  # what moves on the page costs a core without a GPU
    return run


def press_cancel(factory: PrefectApi, page: Page, run: str) -> None:
    page.goto(f"{factory.url}/runs/flow-run/{run}")
    confirm = page.get_by_role("dialog").get_by_role("button", name="Confirm", exact=True)
    press(page, "set_state", page.get_by_role("button", name="Cancel", exact=True).first.click, confirm.click)


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


def open_artifact(factory: PrefectApi, page: Page, run: str, key: str) -> None:
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
