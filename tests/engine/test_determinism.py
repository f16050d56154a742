"""`machine.deterministic` turns on what PyTorch has, and off leaves all as it is."""

from collections.abc import Iterator

import pytest
import torch

from zerovl.engine.determinism import set_determinism
from zerovl.params import MachineParams


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "before")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill


def test_off_changes_nothing() -> None:
    set_determinism(MachineParams())
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_kernel_is_refused_by_name() -> None:
    set_determinism(MachineParams(deterministic=True))
    values = torch.zeros(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
        values.detach().put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]), accumulate=False)
