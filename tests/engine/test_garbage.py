"""Collections of garbage come at steps of the run's choosing, and all is as before afterwards."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from zerovl.engine.garbage import collected_every


class Ring:
    """Refers to itself: only a collection ends it."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture(autouse=True)
def nothing_is_frozen() -> Iterator[None]:
    """As in a process of its own: pytest's has frozen what it imported (tests/conftest.py)."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    yield
    if frozen:
        gc.freeze()


def test_collects_after_every_so_many_steps_alone() -> None:
    with collected_every(3) as collect:
        assert not gc.isenabled()
        ring = weakref.ref(Ring())
        for step in (1, 2):
            collect(step)
            assert ring() is not None
        collect(3)
        assert ring() is None
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_an_error_leaves_python_as_it_was() -> None:
    with pytest.raises(RuntimeError, match="step 1"), collected_every():
        raise RuntimeError("step 1")
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_who_collects_himself_stays_in_charge() -> None:
    gc.disable()
    try:
        with collected_every():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_a_process_has_frozen_stays_so() -> None:
    held = Ring()
    frozen = weakref.ref(held)
    gc.freeze()
    del held
    with collected_every(1) as collect:
        ring = weakref.ref(Ring())
        collect(1)
        assert ring() is None
        assert frozen() is not None
    gc.collect()
    assert frozen() is not None
    gc.unfreeze()
    gc.collect()
    assert frozen() is None
