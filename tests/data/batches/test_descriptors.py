"""A step of many micro-batches needs no descriptor for each of its tensors."""

import subprocess
import sys

from tests.support.paths import ROOT

# Not to be raised: a scheduler may set both limits.
HELD = """
import resource
import torch
from torch.utils.data import Dataset
from zerovl.data.batches.workers import OrderedLoader


class Tensors(Dataset):
    def __len__(self):
        return 1024

    def __getitem__(self, index):
        return torch.full((3,), index), torch.full((2,), -index), torch.zeros(1)


resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
with OrderedLoader(Tensors(), 1, 1024, lower="") as loader:
    step = [next(loader) for _ in range(1024)]
    assert [int(first[0]) for first, _, _ in step] == list(range(1024))
    assert [int(second[1]) for _, second, _ in step] == [-index for index in range(1024)]
print("held")
"""

RAISED = """
import resource
from zerovl.descriptors import open_files_limit, raise_open_files_limit

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
most = 128 if hard == resource.RLIM_INFINITY else min(hard, 128)
resource.setrlimit(resource.RLIMIT_NOFILE, (most // 2, most))
before = open_files_limit()
raise_open_files_limit()
print(before * 2 == open_files_limit() == most)
raise_open_files_limit()
print(open_files_limit() == most)
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_1024_micro_batches_within_1024_descriptors() -> None:
    assert run(HELD) == "held\n"


def test_the_limit_is_raised_to_what_is_allowed() -> None:
    assert run(RAISED) == "True\nTrue\n"
