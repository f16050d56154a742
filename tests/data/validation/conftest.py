import pytest

from tests.support.validation_runs import by_bounds, no_data_docs, refuse_connections  # noqa: F401 - fixtures
from zerovl import log


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_connections(monkeypatch)


@pytest.fixture(autouse=True)
def log_as_in_a_command() -> None:
    log.setup()
