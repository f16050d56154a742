import socket
from typing import Any

import pytest

from tests.support.validation_runs import by_bounds, no_data_docs  # noqa: F401 - fixtures
from zerovl import log


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError(f"validate opened a connection: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def log_as_in_a_command() -> None:
    log.setup()
