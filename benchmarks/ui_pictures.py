"""The pictures of Prefect's UI in docs/: what someone sees who presses Run, and then Cancel.

    make ui                                                    # in a project whose `make demo` is committed
    python -m benchmarks.ui_pictures --url http://127.0.0.1:4200

Quick run takes from DVC's cache what is there. The run that is cancelled trains with another learning rate.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from playwright.sync_api import Page

from benchmarks.readme_places import ROOT
from tests.support import browser
from tests.support.prefect_api import PrefectApi

CANCELLED = "train.lr=0.0003"
ARTIFACTS = ("summary", "gallery", "curves")
_ABOVE_PATHS = 783  # pixels: the cards below name folders of this machine
PICTURES = ("deployments", "custom-run", "artifacts", *ARTIFACTS, "progress", "cancelled")


def take(server: PrefectApi, page: Page, folder: Path) -> None:
    """Start two runs of the deployment `train` on a server with a worker, and keep PICTURES as folder/ui-NAME.png.

    Raises:
        AssertionError: a run came to another end than it should.
    """

    def keep(name: str) -> None:
        browser.keep(page, name, str(folder))

    page.goto(f"{server.url}/deployments")
    browser.shows(page, "retrain-weekly", exact=True)
    keep("deployments")
    browser.open_form(server, page)
    browser.choose_setting(page, "learning rate", "train.lr: peak learning rate (demo: 0.001)").fill("3e-4")
    page.mouse.wheel(0, -20_000)
    keep("custom-run")
    run = browser.press_quick_run(server, page)
    server.completed(run)
    page.goto(f"{server.url}/runs/flow-run/{run}")
    browser.shows(page, "Completed")
    browser.open_tab(page, "Artifacts")
    browser.shows(page, "summary", exact=True)
    page.set_viewport_size({"width": browser.WIDTH, "height": _ABOVE_PATHS})
    keep("artifacts")
    page.set_viewport_size({"width": browser.WIDTH, "height": browser.HEIGHT})
    for name in ARTIFACTS:
        browser.open_artifact(server, page, run, name)
        keep(name)
    run = server.run("train/train", overrides=[CANCELLED], after="nothing")
    server.wait_while(run, "a bar that moves", lambda: "step" in browser.progress_of_training(server, run))
    page.goto(f"{server.url}/runs/flow-run/{run}")
    browser.open_tab(page, "Artifacts")
    browser.shows(page, "progress-train", exact=True)
    keep("progress")
    browser.press_cancel(server, page, run)
    state = server.wait(run)
    assert state["name"] == "Cancelled", f"{state['name']}: {state['message']}"
    browser.shows(page, "Cancelled")
    keep("cancelled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="of the UI, as `make ui` prints it")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="default: docs/ of this checkout")
    arguments = parser.parse_args()
    with browser.open_browser(more_flags=()) as page:  # with the graph of a run's tasks
        take(PrefectApi(arguments.url.rstrip("/")), page, arguments.out)


if __name__ == "__main__":
    main()
