"""What tests import, also inside of them, is looked through by no collection of garbage of the tests after them."""

from __future__ import annotations

import gc
import sys

import pytest

from tests import conftest


@pytest.mark.parametrize(("modules", "is_frozen"), [(conftest._MANY_MODULES + 1, True), (1, False)])
def test_objects_of_many_new_modules_are_frozen_after_a_test(
    modules: int, is_frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "_frozen_modules", len(sys.modules) - modules)
    objects: list[list[int]] = [[] for _ in range(10_000)]
    before = gc.get_freeze_count()
    conftest.pytest_runtest_logfinish()
    assert (gc.get_freeze_count() >= before + len(objects) // 2) == is_frozen
