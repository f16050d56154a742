"""Memory that runs out is recognised by whoever says it, and becomes a message with status 2."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed import DistBackendError

from tests.support.towers import RANKS, MicroInputs, batch, model
from zerovl.distributed.late_values import Moment
from zerovl.engine.average import LastWeights
from zerovl.engine.precision import Precision
from zerovl.engine.trainer import Trainer
from zerovl.errors import ZeroVLError
from zerovl.memory import is_out_of_memory
from zerovl.objective.mixup import Mixup

NCCL = (
    "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:94, unhandled cuda error (run with NCCL_DEBUG=INFO "
    "for details), NCCL version 2.27.5\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
)
RAN_OUT = {
    "allocator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "kernel": torch.AcceleratorError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
    "driver": RuntimeError("CUDA driver error: out of memory"),
    "cuDNN": RuntimeError("GET was unable to find an engine to execute this computation"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "NCCL": DistBackendError(NCCL + "Cuda failure 2 'out of memory'"),
    "NCCL's buffer": DistBackendError(NCCL + "Failed to CUDA calloc async 6291456 bytes"),
    "host": RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you ..."),
}
OTHERS = {
    "shapes": RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    "kernel": torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    "NCCL": DistBackendError(NCCL + "Cuda failure 1 'invalid argument'"),
    "no error of the machine": ValueError("out of memory"),
}


@pytest.mark.parametrize("error", RAN_OUT.values(), ids=RAN_OUT)
def test_every_library_says_it_its_own_way(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS.values(), ids=OTHERS)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


@dataclass
class StepBatch:
    step: int
    source: str
    micro_batches: list[MicroInputs]


BATCH = StepBatch(12, "board", batch(2))


class Failing(torch.optim.AdamW):
    """Its first step has no room for the moments."""

    error: Exception

    def step(self, *_: Any, **__: Any) -> None:  # type: ignore[override]
        raise self.error


def update(in_step: Exception | None = None, in_optimiser: Exception | None = None) -> None:
    """One update of a trainer in which one of the two may fail."""
    dual = model()
    optimiser = torch.optim.AdamW(dual.parameters())
    if in_optimiser:
        optimiser = Failing(dual.parameters())
        optimiser.error = in_optimiser

    def step(*_: Any) -> Tensor:
        if in_step:
            raise in_step
        return torch.tensor(1.0)

    precision = Precision("float32", RANKS.device)
    state = SimpleNamespace(model=dual, optimiser=optimiser, average=LastWeights())
    unused: Any = None
    trainer = Trainer(state, step, unused, Mixup("none", 0.2, 0), precision, RANKS, *[unused] * 2, 0.0, *[unused] * 3)  # type: ignore[arg-type]
    trainer._update(BATCH, 1e-3, Moment(RANKS.device))


@pytest.mark.parametrize("error", RAN_OUT.values(), ids=RAN_OUT)
def test_in_a_step_it_is_a_message_with_the_fix(error: Exception) -> None:
    with pytest.raises(ZeroVLError, match=r"out of memory in step 12 with .* at once .*train.micro_batch to 3") as said:
        update(in_step=error)
    assert str(error).splitlines()[0] in str(said.value)


@pytest.mark.parametrize("error", RAN_OUT.values(), ids=RAN_OUT)
def test_in_the_optimisers_first_step_too(error: Exception) -> None:
    with pytest.raises(ZeroVLError, match=r"out of memory in the optimiser of step 12 .*machine.shard_model"):
        update(in_optimiser=error)


@pytest.mark.parametrize("place", ["in_step", "in_optimiser"])
def test_other_errors_stay_what_they_are(place: str) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot"):
        update(**{place: OTHERS["shapes"]})
    update()
