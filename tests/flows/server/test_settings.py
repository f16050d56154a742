"""Prefect's settings: a run of a worker has those of a run from a terminal."""

import yaml

from flows import PREFECT_SETTINGS
from tests.support.paths import ROOT


def test_runs_of_a_worker_have_the_settings_of_runs_from_a_terminal() -> None:
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        environment = deployment["work_pool"]["job_variables"]["env"]
        assert {name: environment.get(name) for name in PREFECT_SETTINGS} == PREFECT_SETTINGS, deployment["name"]


def test_prefect_knows_them() -> None:
    """A name that it does not know would change nothing and say nothing."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    assert settings.client.max_retries == 8
    assert settings.client.retry_extra_codes == {500}
    assert settings.api.request_timeout == 90
    assert settings.flows.heartbeat_frequency == 30
    assert settings.server.ephemeral.startup_timeout_seconds == 180
