"""The real UI in a real browser: what someone sees and presses. `SCREENSHOTS=folder` keeps the pictures.

The Cancel button is pressed in test_killed_runs.py.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import (
    CHROMIUM,
    choose_setting,
    keep,
    open_artifact,
    open_deployment,
    open_form,
    open_tab,
    progress_of_training,
    shows,
    submit,
)
from tests.support.factory import Factory
from tests.support.prefect_api import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs one"),
]


def test_deployments_with_their_schedule(factory: Factory, page: Page) -> None:
    def looked_at() -> bool:
        rows = factory.api("POST", "/deployments/filter", {})
        return all(each["status"] == "READY" for each in rows)

    wait_for("a worker that looks for runs of all", looked_at)
    elsewhere: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url) if "//127.0.0.1" not in request.url else None)
    page.goto(factory.url)  # as `make ui` says: the UI of README's pictures, which tells nobody of its users
    page.locator("a[href='/deployments']").click()
    shows(page, "retrain-weekly", exact=True)
    expect(page).to_have_url(f"{factory.url}/deployments")
    assert [url for url in elsewhere if url.startswith("http")] == []
    for name in ("train", "retrain-weekly", "retrain-on-new-data", "promote", "rollback", "reproduce", "retention"):
        expect(page.get_by_role("link", name=name, exact=True).first).to_be_visible()
    keep(page, "deployments")
    open_deployment(factory, page, "retrain-weekly")
    shows(page, "mondays-3-00-utc")
    keep(page, "schedule")


def test_custom_run_is_a_form_with_descriptions(factory: Factory, page: Page) -> None:
    open_form(factory, page)
    for text in (
        "params.yaml: as it stands at the revision; demo: the defaults; else a file of recipes/",
        "what becomes of the model: nothing, a version, or also the alias if the gate passes it",
        "branch, tag or commit of code, parameters and data",
    ):
        shows(page, text)
    field = choose_setting(page, "learning rate", "train.lr: peak learning rate (demo: 0.001)")
    for value in ("much", "3e-4"):
        field.fill(value)
        if value == "much":
            submit(page, "'much' does not match")  # beside its field, and no run is made
    page.mouse.wheel(0, -20_000)
    keep(page, "custom-run")
    assert not factory.runs_of("train")


def test_quick_run_to_the_end_with_its_artifacts(factory: Factory, page: Page, first_run: str) -> None:
    page.goto(f"{factory.url}/runs/flow-run/{first_run}")
    keep(page, "running")
    factory.wait_while(first_run, "a bar that moves", lambda: "step" in progress_of_training(factory, first_run))
    open_artifact(factory, page, first_run, "progress-train")  # a page that does not look again
    shows(page, "step")
    keep(page, "progress")
    page.goto("about:blank")  # what moves on the page costs a core without a GPU
    factory.slow_from(None)
    factory.completed(first_run)
    page.goto(f"{factory.url}/runs/flow-run/{first_run}")
    shows(page, "Completed")
    open_tab(page, "Artifacts")
    expect(page.locator("a[href*='/artifacts/artifact/']").locator("visible=true").first).to_be_visible()
    keep(page, "artifacts")
    for key, width in (("gallery", 300), ("curves", 400)):
        open_artifact(factory, page, first_run, key)
        picture = page.locator("img[src^='data:image']").first
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.naturalWidth") > width
        keep(page, key)
    for key, text in (
        ("summary", "promoted to"),
        ("validation-rules", "leaked"),
        ("evaluation-report", "Evaluation: scores"),
    ):
        open_artifact(factory, page, first_run, key)
        shows(page, text)
        keep(page, key)
    page.goto("about:blank")
