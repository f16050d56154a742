"""One factory and one browser for all tests that need them, started by the first and ended after the last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Page

from flows.runtime.told_to_end import forget
from tests.conftest import FACTORY_FILES
from tests.support import prefect_database
from tests.support.browser import CHROMIUM, SCREENSHOTS, open_browser, press_quick_run
from tests.support.factory import Factory
from tests.support.paths import ROOT
from tests.support.project_copy import SMALL

_started: list[Factory] = []
_browser = ExitStack()
_pages: list[Page] = []


@pytest.fixture(autouse=True)
def told_nothing() -> Iterator[None]:
    """What ends a command in a test ends no run of this process."""
    yield
    forget()


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    """A factory of which nothing runs yet."""
    overrides = () if SCREENSHOTS else SMALL  # pictures for the README are of the demo as it is
    made = Factory(tmp_path_factory.mktemp("factory"), overrides)
    _started.append(made)
    made.start_warm()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the database of a new server is kept (`tests.support.prefect_database`)."""
    return prefect_database.place(tmp_path_factory)


@pytest.fixture(scope="session")
def factory(project: Factory, new_database: Path) -> Factory:
    """Project, server, worker and deployments; each test leaves server and worker running and no run."""
    with prefect_database.new_database(new_database, project.prefect_home):
        project.start_server()
    assert "deployment train/train: created" in project.command("-m", "flows.server.deploy")
    project.start_worker()
    return project


@pytest.fixture(scope="session")
def page(factory: Factory) -> Iterator[Page | None]:
    """The UI in a browser; None on a machine without one."""
    if CHROMIUM is None:
        yield None
        return
    _pages.append(_browser.enter_context(open_browser()))
    yield _pages[0]
    _browser.close()


@pytest.fixture(scope="session")
def first_run(factory: Factory) -> str:
    """A run in the middle of its training, which is slow until someone lets it go on.

    Started by the UI's button where a browser is open, as the server starts it else.
    """
    factory.slow_from(5)
    run = press_quick_run(factory, _pages[0]) if _pages else factory.run("train/train")
    factory.wait_for_steps(run, 3)
    return run


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Factory and browser must not run on beside the tests of other files; an open one has an event loop that runs."""
    files = {ROOT / file for file in FACTORY_FILES}
    if item.path in files and (nextitem is None or nextitem.path not in files):
        _browser.close()
        for made in _started:
            made.stop()
