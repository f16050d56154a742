"""Registries without settings of the machine's user; their fixtures are those of tests/support."""

import pytest


@pytest.fixture(autouse=True)
def _clean_environment(registry_environment: None) -> None: ...
