"""The real UI in a real browser: what someone sees and presses. `SCREENSHOTS=folder` keeps the pictures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.support.factory import Factory, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs one"),
]
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    made = Factory(tmp_path_factory.mktemp("browser"), overrides=())  # the demo recipe itself
    try:
        made.start_server()
        made.command("-m", "flows.server.deploy")
        made.start_worker()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.set_default_timeout(60_000)
            expect.set_options(timeout=60_000)
            yield page
        finally:
            browser.close()


def keep(page: Page, name: str) -> None:
    page.wait_for_timeout(1500)  # animations
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder, f"{name}.png")))


def open_deployment(factory: Factory, page: Page, name: str) -> None:
    page.goto(f"{factory.url}/deployments")
    page.get_by_role("link", name=name, exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).wait_for()


def shows(page: Page, text: str, exact: bool = False) -> None:
    """The page has the text somewhere where it can be seen; others may be hidden behind tabs."""
    expect(page.get_by_text(text, exact=exact).locator("visible=true").first).to_be_visible()


def scroll_to(page: Page, text: str) -> None:
    """The list of artifacts loads as one scrolls."""
    page.mouse.move(760, 700)
    card = page.get_by_text(text, exact=True).locator("visible=true").first
    for _ in range(30):
        if card.count():
            break
        page.mouse.wheel(0, 600)
        page.wait_for_timeout(500)
    expect(card).to_be_visible()
    page.mouse.wheel(0, -20_000)


def open_tab(page: Page, name: str) -> None:
    page.get_by_text(name, exact=True).locator("visible=true").first.click()


def newest_run(factory: Factory, known: set[str]) -> str:
    def look() -> str | None:
        rows = factory.api("POST", "/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"})
        started = [row["id"] for row in rows if row["id"] not in known and not row["auto_scheduled"]]
        return str(started[0]) if started else None

    return wait_for("a run that the browser started", look, 60)


def test_deployments_with_their_schedule(factory: Factory, page: Page) -> None:
    page.goto(f"{factory.url}/deployments")
    for name in ("train", "retrain-weekly", "retrain-on-new-data", "promote", "rollback", "reproduce"):
        expect(page.get_by_role("link", name=name, exact=True).first).to_be_visible()
    keep(page, "deployments")
    open_deployment(factory, page, "retrain-weekly")
    shows(page, "mondays-3-00-utc")
    keep(page, "schedule")


def test_custom_run_is_a_form_with_descriptions(factory: Factory, page: Page) -> None:
    open_deployment(factory, page, "train")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run", exact=True).click()
    for text in (
        "params.yaml: as it stands at the revision; demo: the defaults; else a file of recipes/",
        "what becomes of the model: nothing, a version, or also the alias if the gate passes it",
        "branch, tag or commit of code, parameters and data",
    ):
        shows(page, text)
    keep(page, "custom-run")


def test_quick_run_to_the_end_with_its_artifacts(factory: Factory, page: Page) -> None:
    open_deployment(factory, page, "train")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Quick run", exact=True).click()
    run = newest_run(factory, set())
    factory.wait_for_steps(20)
    page.goto(f"{factory.url}/runs/flow-run/{run}")
    keep(page, "running")
    open_tab(page, "Artifacts")
    shows(page, "progress-train")
    keep(page, "progress")
    page.goto("about:blank")  # what moves on the page costs a core without a GPU
    factory.completed(run, 1800)
    page.goto(f"{factory.url}/runs/flow-run/{run}")
    shows(page, "Completed")
    open_tab(page, "Artifacts")
    for key in ("gallery", "validation-rules", "summary", "progress-train", "curves"):
        scroll_to(page, key)
    keep(page, "artifacts")
    shown = factory.artifacts(run)
    for key, width in (("gallery", 300), ("curves", 400)):
        page.goto(f"{factory.url}/artifacts/artifact/{shown[key]['id']}")
        picture = page.locator("img[src^='data:image']").first
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.naturalWidth") > width
        keep(page, key)
    page.goto(f"{factory.url}/artifacts/artifact/{shown['summary']['id']}")
    shows(page, "promoted to")
    keep(page, "summary")
    page.goto(f"{factory.url}/artifacts/artifact/{shown['validation-rules']['id']}")
    shows(page, "leaked")
    keep(page, "validation")


def test_the_cancel_button(factory: Factory, page: Page) -> None:
    known = {row["id"] for row in factory.api("POST", "/flow_runs/filter", {})}
    before = len(list(factory.paths.runs.glob("*/metrics.jsonl")))
    factory.run("train/train", overrides=["train.epochs=600"], after="nothing")
    run = newest_run(factory, known)
    wait_for("training", lambda: len(list(factory.paths.runs.glob("*/metrics.jsonl"))) > before, 300)
    page.goto(f"{factory.url}/runs/flow-run/{run}")
    page.get_by_role("button", name="Cancel", exact=True).first.click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm", exact=True).click()
    factory.gone(30)
    assert factory.wait(run, 60)["name"] == "Cancelled"
    page.goto(f"{factory.url}/runs/flow-run/{run}")
    shows(page, "Cancelled")
    keep(page, "cancelled")
