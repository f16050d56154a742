"""What the workers of a loader make ahead is bounded in bytes, and nothing waits for ever."""

import ctypes
import time
from multiprocessing.sharedctypes import RawArray
from operator import attrgetter
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tests.support.loader_batches import SIZES, batches_of
from tests.support.shard_fixture import write
from zerovl.data.batches.augmentation import Cut
from zerovl.data.batches.encoded_pictures import EncodedPicture, pack
from zerovl.data.batches.loader import MicroBatch
from zerovl.data.batches.prefetch_bound import ByteBound
from zerovl.data.batches.workers import OrderedLoader
from zerovl.params import MachineParams

COUNT, SIZE, WORKERS = 60, 1 << 16, 2


class Noted(Dataset[Tensor]):
    """Items of `SIZE` bytes; notes how much was ahead when each was begun."""

    def __init__(self, bound: ByteBound) -> None:
        self.begun = RawArray(ctypes.c_uint64, COUNT)
        self._bound = bound

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Tensor:
        self.begun[index] = self._bound.ahead
        return torch.full((SIZE,), index, dtype=torch.uint8)


def test_workers_stop_where_enough_lies_ready() -> None:
    limit = 5 * SIZE
    bound = ByteBound(limit, WORKERS, attrgetter("nbytes"))
    noted = Noted(bound)
    deadline = time.monotonic() + 120
    found = []
    with OrderedLoader(noted, WORKERS, COUNT, lower="", bound=bound) as loader:
        for item in loader:
            found.append(int(item[0]))
            while bound.ahead < min(limit, (COUNT - len(found)) * SIZE):  # else they might have had no time for more
                assert time.monotonic() < deadline
                time.sleep(0.001)
    assert found == list(range(COUNT))
    assert max(noted.begun) < limit + (WORKERS - 1) * SIZE
    assert bound.ahead == 0


@pytest.mark.parametrize("workers", [0, 1, WORKERS])
def test_an_item_that_is_waited_for_is_made_however_large(workers: int) -> None:
    bound = ByteBound(1, workers, attrgetter("nbytes"))
    with OrderedLoader(Noted(bound), workers, COUNT, lower="", bound=bound) as loader:
        assert [int(item[0]) for item in loader] == list(range(COUNT))


def test_batches_are_those_of_a_loader_without_bound(tmp_path: Path) -> None:
    written = write(tmp_path, SIZES)
    keys = []
    for prefetch_bytes in (1, 1 << 30):
        with batches_of(written, workers=2, prefetch_bytes=prefetch_bytes) as batches:
            keys.append([[part.keys for part in step.micro_batches] for step in batches])
    assert keys[0] == keys[1]
    assert len(keys[0]) > 1


def test_bytes_are_those_that_travel() -> None:
    token_ids = torch.zeros(2, 7, dtype=torch.int64)
    pixels = MicroBatch(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), token_ids, token_ids, ["a", "b"], "web")
    assert pixels.nbytes == 2 * 3 * 8 * 8 + 2 * 2 * 7 * 8
    jpeg = EncodedPicture(torch.zeros(100, dtype=torch.uint8), (400, 300), Cut((0, 0, 9, 9), False), "there")
    packed = pack({0: jpeg}, {1: torch.zeros(3, 8, 8, dtype=torch.uint8)}, 8)
    identities = torch.zeros(2, 2, dtype=torch.int64)
    encoded = MicroBatch(packed, token_ids, token_ids, ["a", "b"], "web", identities)
    assert encoded.nbytes == 100 + 2 * 10 * 8 + 3 * 8 * 8 + 2 * 2 * 7 * 8 + 2 * 2 * 8


def test_the_setting_is_a_size() -> None:
    assert MachineParams().prefetch_bytes == 2 << 30
    with pytest.raises(ValueError, match="'many' is not a size"):
        MachineParams(prefetch="many")
