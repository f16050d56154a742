import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.paths import ROOT
from tests.support.shard_fixture import WordTokenizer, Written, captions_of, write
from zerovl.data.batches.augmentation import TrainTransform, to_tensor
from zerovl.data.batches.evaluation import evaluation_batches
from zerovl.data.batches.loader import MicroBatch, TrainBatches, train_batches
from zerovl.data.batches.sampling import make_sampler
from zerovl.data.shards import ShardReader, locate
from zerovl.data.split_reader import read_image
from zerovl.errors import ZeroVLError
from zerovl.images import decode_rgb
from zerovl.params import AugmentParams

SIZES = {"web": 40, "art": 24}
BATCH = 16


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write(tmp_path, SIZES)


def batches_of(written: Written, **changes: Any) -> TrainBatches:
    options: dict[str, Any] = {"kind": "debiased", "epochs": 2.0, "seed": 7, "tokenize": WordTokenizer()} | changes
    kind, epochs, seed = options.pop("kind"), options.pop("epochs"), options.pop("seed")
    augment = options.pop("augment", AugmentParams())
    defaults: dict[str, Any] = {"micro_batch": 4, "rank": 0, "world_size": 1}
    return train_batches(
        manifest=written.manifest,
        shards=ShardReader(written.shards),
        sampler=make_sampler(kind, SIZES, BATCH, epochs, seed),
        transform=TrainTransform(24, augment),
        augment=augment,
        seed=seed,
        **(defaults | options),
    )


Row = tuple[str, bytes, tuple[int, ...]]


def rows_of(micro: MicroBatch) -> list[Row]:
    """Each pair without its padding, which depends on its neighbours."""
    return [
        (key, image.numpy().tobytes(), tuple(ids[mask == 1].tolist()))
        for key, image, ids, mask in zip(micro.keys, micro.images, micro.input_ids, micro.attention_mask, strict=True)
    ]


def all_rows(batches: TrainBatches) -> list[list[Row]]:
    """For each step its pairs in order."""
    with batches:
        return [[row for micro in step.micro_batches for row in rows_of(micro)] for step in batches]


def test_shapes_types_and_sources(written: Written) -> None:
    with batches_of(written) as batches:
        steps = list(batches)
    assert [step.step for step in steps] == list(range(8))
    for step in steps:
        assert len(step.micro_batches) == 4
        for micro in step.micro_batches:
            assert micro.images.shape == (4, 3, 24, 24)
            assert micro.images.dtype == torch.uint8
            assert micro.input_ids.shape == micro.attention_mask.shape
            assert micro.input_ids.dtype == micro.attention_mask.dtype == torch.int64
            assert micro.source == step.source
            assert all(key.startswith(f"{step.source}-") for key in micro.keys)


@pytest.mark.parametrize("kind", ["debiased", "shuffled", "sequential"])
def test_pairs_are_those_of_the_sampler(written: Written, kind: str) -> None:
    sampler = make_sampler(kind, SIZES, BATCH, 2.0, 7)
    for step, rows in enumerate(all_rows(batches_of(written, kind=kind))):
        batch = sampler.batch(step)
        expected = [f"{batch.sources[i]}-{row}" for i, row in zip(batch.source_ids, batch.rows, strict=True)]
        assert [key for key, _, _ in rows] == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_order_and_bytes_do_not_depend_on_workers(written: Written, workers: int) -> None:
    assert all_rows(batches_of(written, workers=workers)) == all_rows(batches_of(written, workers=0))


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 16), (1, 8), (2, 4), (2, 8), (4, 2), (4, 4)])
def test_order_and_bytes_do_not_depend_on_world_size(written: Written, world_size: int, micro_batch: int) -> None:
    whole = all_rows(batches_of(written, kind="shuffled"))
    ranks = [
        all_rows(batches_of(written, kind="shuffled", rank=rank, world_size=world_size, micro_batch=micro_batch))
        for rank in range(world_size)
    ]
    assert [[row for part in parts for row in part] for parts in zip(*ranks, strict=True)] == whole


@pytest.mark.parametrize("workers", [0, 1])
def test_start_step_equals_skipping(written: Written, workers: int) -> None:
    whole = all_rows(batches_of(written))
    for start in (1, 5, 8):
        assert all_rows(batches_of(written, start_step=start, workers=workers)) == whole[start:]


def test_visits_and_seeds_differ(written: Written) -> None:
    """The same pair gets another crop and another caption at its next visit, or with another seed."""
    rows = [row for step in all_rows(batches_of(written, kind="sequential", epochs=6.0)) for row in step]
    visits = [row for row in rows if row[0] == "web-5"]  # three captions
    assert len(visits) == 6
    assert len({image for _, image, _ in visits}) == 6
    assert len({ids for _, _, ids in visits}) > 1
    assert all_rows(batches_of(written, seed=7, kind="sequential")) != all_rows(
        batches_of(written, seed=8, kind="sequential")
    )


def test_all_captions_are_drawn_and_unmasked_ones_are_whole(written: Written) -> None:
    augment = AugmentParams(mask_probability=0.0)
    steps = all_rows(batches_of(written, kind="sequential", epochs=40.0, augment=augment))
    drawn = [ids for step in steps for key, _, ids in step if key == "web-5"]
    expected = [tuple(WordTokenizer()([caption])[0][0].tolist()) for caption in captions_of("web", 5)]
    assert len(expected) == 3
    counts = [drawn.count(ids) for ids in expected]
    assert sum(counts) == len(drawn) == 40
    assert min(counts) >= 5


def test_torchs_global_generator_is_left_alone(written: Written) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for workers in (0, 1):
        all_rows(batches_of(written, workers=workers))
        assert torch.equal(torch.get_rng_state(), before)


def test_sizes_that_do_not_divide(written: Written) -> None:
    with pytest.raises(ZeroVLError, match=r"batch_size 16 is not a multiple of ranks x train\.micro_batch = 2 x 3"):
        batches_of(written, world_size=2, micro_batch=3)


def damage_picture(written: Written, row: int) -> tuple[str, int]:
    """Zeros over the picture's bytes, its tar header left whole."""
    record = written.manifest.index("web", "train")[row]
    path, offset, _ = locate(written.manifest, record, "web", "train")
    with open(written.shards / path, "r+b") as file:
        file.seek(offset + 512)
        file.write(bytes(200))
    return path, offset


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_no_longer_decodes(written: Written, workers: int) -> None:
    path, offset = damage_picture(written, 9)
    with pytest.raises(ZeroVLError) as raised:
        all_rows(batches_of(written, kind="shuffled", workers=workers))
    message = str(raised.value)
    assert message.startswith(
        f"{written.shards}/{path}: the picture of sample web-9 at byte {offset} no longer decodes"
    )
    assert "Traceback" not in message
    assert not children()


def test_other_exceptions_of_a_worker_are_no_users_fault(written: Written) -> None:
    with pytest.raises(ZeroDivisionError):
        all_rows(batches_of(written, workers=1, tokenize=BrokenTokenizer()))


class BrokenTokenizer(WordTokenizer):
    def __call__(self, captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
        raise ZeroDivisionError


# Other tests of this process leave helpers of multiprocessing behind (a resource tracker): not ours.
STRANGERS: set[int] = set()


@pytest.fixture(autouse=True)
def _known_strangers() -> None:
    STRANGERS.clear()
    STRANGERS.update(children_of(os.getpid()))


def children() -> list[int]:
    """Processes that this test has started and that are alive, zombies left out."""
    return [pid for pid in children_of(os.getpid()) if pid not in STRANGERS]


def children_of(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, its_parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_parent) == parent and state != "Z":
            found.append(int(folder.name))
    return found


def test_close_in_the_middle_ends_the_workers(written: Written) -> None:
    batches = batches_of(written, workers=2)
    next(batches)
    assert len(children()) == 2
    batches.close()
    assert not children()
    batches.close()
    with batches_of(written, workers=1) as batches:
        next(batches)
    assert not children()
    with pytest.raises(StopIteration):
        next(batches)


def test_a_killed_worker_is_an_error_with_advice(written: Written) -> None:
    with batches_of(written, workers=1, epochs=200.0) as batches:
        next(batches)
        os.kill(children()[0], signal.SIGKILL)
        with pytest.raises(ZeroVLError, match=r"a loader process died .*machine\.loader_workers"):
            list(batches)
    assert not children()


def test_a_worker_that_dies_while_the_loader_closes_is_no_error(written: Written) -> None:
    batches = batches_of(written, workers=2, epochs=200.0)
    next(batches)
    stuck = children()[0]
    os.kill(stuck, signal.SIGSTOP)  # so that closing still waits for it when it is killed
    killer = threading.Timer(0.5, os.kill, (stuck, signal.SIGKILL))
    killer.start()
    batches.close()
    killer.join()
    assert not children()


# Imports once, and forks a process for each request; a forked one goes on to the end of the script, so that it ends
# as any Python does.
PARENTS = """
import json, os, signal, sys
from pathlib import Path
from tests.data.batches import test_loader
from tests.support.shard_fixture import Written
from zerovl.data.manifest import Manifest
for request in iter(sys.stdin.readline, ""):
    root, ending = json.loads(request)
    said, go = os.open(f"{root}/said", os.O_WRONLY), os.open(f"{root}/go", os.O_RDONLY)
    pid = os.fork()
    if pid == 0:
        break
    os.close(said), os.close(go)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
os.setsid()
os.dup2(go, 0), os.dup2(said, 1), os.close(go), os.close(said)
root = Path(root)
batches = test_loader.batches_of(Written(Manifest.load(root / "manifest"), root / "shards"), workers=2, epochs=500.0)
next(batches)
print(os.getpid(), flush=True)
sys.stdin.readline()
exec(ending)
"""


class Parent:
    """A process with two workers that waits for a line, then does `ending`."""

    def __init__(self, parents: subprocess.Popen[str], root: Path, ending: str) -> None:
        self._parents = parents
        for name in ("said", "go"):
            os.mkfifo(root / name)
        assert parents.stdin is not None
        parents.stdin.write(json.dumps([str(root), ending]) + "\n")
        parents.stdin.flush()
        self.said, self.go = open(root / "said"), open(root / "go", "w")  # noqa: SIM115 - closed by `end`
        self.pid = int(self.said.readline())

    def tell(self) -> None:
        """Give it the line that it waits for."""
        self.go.write("\n")
        self.go.flush()

    def status(self) -> int:
        """The exit status, when it has ended."""
        assert self._parents.stdout is not None
        return int(self._parents.stdout.readline())

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.said.close()
        with contextlib.suppress(BrokenPipeError):
            self.go.close()


@pytest.fixture(scope="module")
def parents() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENTS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("ending", ["raise SystemExit(0)", "raise ValueError", "SIGTERM", "SIGKILL"])
def test_no_orphans_however_the_parent_ends(
    parents: subprocess.Popen[str], written: Written, ending: str, tmp_path: Path
) -> None:
    parent = Parent(parents, tmp_path, ending)
    try:
        workers = children_of(parent.pid)
        assert len(workers) == 2
        if ending.startswith("SIG"):
            os.kill(parent.pid, getattr(signal, ending))
        else:
            parent.tell()
        expected = {"raise SystemExit(0)": 0, "raise ValueError": 1}
        assert parent.status() == (expected[ending] if ending in expected else -getattr(signal, ending))
    finally:
        parent.end()
    deadline = time.monotonic() + 30
    while (alive := [pid for pid in workers if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive


def is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_outlive_a_signal_to_the_group(
    parents: subprocess.Popen[str], written: Written, tmp_path: Path
) -> None:
    """A scheduler may signal every process of a job; the trainer needs its batches until it has saved."""
    parent = Parent(
        parents,
        tmp_path,
        "for name in (signal.SIGINT, signal.SIGTERM): signal.signal(name, lambda *_: None)\n"
        "print('deaf', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(sum(1 for _ in zip(range(100), batches)))\n"
        "batches.close()",
    )
    try:
        parent.tell()
        assert parent.said.readline() == "deaf\n"
        os.killpg(parent.pid, signal.SIGINT)
        os.killpg(parent.pid, signal.SIGTERM)
        parent.tell()
        assert parent.status() == 0
        assert parent.said.read() == "100\n"
    finally:
        parent.end()


def test_dataset_can_be_pickled_for_spawned_workers(written: Written) -> None:
    with batches_of(written) as batches:
        rows = rows_of(batches._dataset[3])
        data = pickle.dumps(batches._dataset)
        assert rows_of(pickle.loads(data)[3]) == rows
    assert len(data) < 20_000


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_batches_in_index_order(tmp_path: Path, workers: int) -> None:
    written = write(tmp_path, {"web": 11}, split="valid")
    shards = ShardReader(written.shards)
    with evaluation_batches(written.manifest, shards, "web", "valid", to_tensor, 4, workers) as batches:
        found = list(batches)
    assert [len(batch.keys) for batch in found] == [4, 4, 3]
    assert [number for batch in found for number in batch.image_ids] == list(range(11))
    assert [key for batch in found for key in batch.keys] == [f"web-{i}" for i in range(11)]
    assert [texts for batch in found for texts in batch.captions] == [captions_of("web", i) for i in range(11)]
    images = torch.cat([batch.images for batch in found])
    for row in range(11):
        sample = read_image(written.manifest, shards, "web", "valid", row)
        assert sample.key == f"web-{row}"
        assert torch.equal(images[row], to_tensor(decode_rgb(sample.image)))
