import pytest

from tests.support.children import Children, started_from_now_on


@pytest.fixture
def children() -> Children:
    """Gives the processes that the test has started and that are alive."""
    return started_from_now_on()
