"""Prefect's settings: a run of a worker has those of a run from a terminal."""

import asyncio
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest
import yaml
from prefect.settings import Settings, get_current_settings

from flows import PREFECT_SETTINGS, SERVER_SETTINGS
from tests.support.paths import ROOT


def test_runs_of_a_worker_have_the_settings_of_runs_from_a_terminal() -> None:
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        environment = deployment["work_pool"]["job_variables"]["env"]
        assert {name: environment.get(name) for name in PREFECT_SETTINGS} == PREFECT_SETTINGS, deployment["name"]


def test_prefect_knows_them() -> None:
    """A name that it does not know would change nothing and say nothing."""
    settings = get_current_settings()
    assert settings.client.max_retries == 8
    assert settings.client.retry_extra_codes == {500}
    assert settings.api.request_timeout == 90
    assert settings.flows.heartbeat_frequency == 30
    assert settings.server.ephemeral.startup_timeout_seconds == 180


def test_a_server_of_its_own_is_told_the_settings_of_make_ui(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "flows" / "README.md").read_text()
    for name, value in SERVER_SETTINGS.items():
        assert f"\n{name}={value}\n" in text
        monkeypatch.setenv(name, value)
    server = Settings().server
    assert server.concurrency.lease_storage == SERVER_SETTINGS["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]
    assert not server.services.repossessor.enabled
    assert not server.ui.v2_enabled


def test_a_lease_in_files_outlives_its_server(tmp_path: Path) -> None:
    """Why the setting is there: Prefect ends a run whose lease the server that came back does not know."""
    storage = import_module(SERVER_SETTINGS["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]).ConcurrencyLeaseStorage
    renewed: list[bool] = []

    async def outlive() -> None:
        made = await storage(tmp_path).create_lease([uuid4()], ttl=timedelta(seconds=-60))  # away for long
        renewed.append(await storage(tmp_path).renew_lease(made.id, timedelta(seconds=300)))

    # In a thread of its own: a browser of another test may keep an event loop in this one.
    thread = Thread(target=lambda: asyncio.run(outlive()))
    thread.start()
    thread.join()
    assert renewed == [True]
