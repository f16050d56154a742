"""Prefect's settings: a run of a worker has those of a run from a terminal."""

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
