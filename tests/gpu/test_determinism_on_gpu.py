"""Under `machine.deterministic` the same steps leave the same bits on a GPU."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.gpu

# In a process of its own: cuBLAS reads its setting once, and the setting is of the whole process.
_STEPS = """
import hashlib, sys
import torch
from tests.support.device_runs import precision_of, ragged_batch
from tests.support.towers import decoupled_step, model
from zerovl.device import own_device
from zerovl.distributed.collectives import OneRank
from zerovl.distributed.ranks import Ranks
from zerovl.engine.determinism import set_determinism
from zerovl.objective.mixup import Mix
from zerovl.params import MachineParams

set_determinism(MachineParams(deterministic=True))
device = own_device()
dual = model(depth=2, embed_dim=64).to(device).train()
step = decoupled_step(dual, Ranks(0, 1, device, OneRank()), precision_of("bf16", device), 3, kept_graphs=1)
optimiser = torch.optim.AdamW(dual.parameters(), lr=1e-3, fused=True)
for number in range(5):
    optimiser.zero_grad(set_to_none=True)
    step(ragged_batch(device), Mix("text", 0.4), number)
    optimiser.step()
print(device.type, hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in dual.parameters())).hexdigest())
"""


def test_two_processes_leave_the_same_weights(device: object) -> None:
    runs = [
        subprocess.run([sys.executable, "-c", _STEPS], cwd=ROOT, capture_output=True, text=True, check=False)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr[-2000:]
    assert runs[0].stdout.startswith(str(device).split(":")[0])
    assert runs[0].stdout == runs[1].stdout
