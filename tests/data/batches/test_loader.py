"""Batches are those of the sampler, in its order, whatever the workers; what is damaged is named."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.children import Children
from tests.support.loader_batches import BATCH, SIZES, batches_of
from tests.support.shard_fixture import WordTokenizer, Written, captions_of, write
from zerovl.data.batches.augmentation import to_tensor
from zerovl.data.batches.evaluation import evaluation_batches
from zerovl.data.batches.loader import MicroBatch, TrainBatches
from zerovl.data.batches.sampling import make_sampler
from zerovl.data.shards import ShardReader, locate
from zerovl.data.split_reader import read_image
from zerovl.errors import ZeroVLError
from zerovl.images import decode_rgb
from zerovl.params import AugmentParams


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write(tmp_path, SIZES)


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


@pytest.mark.parametrize(("workers", "auto_augment"), [(1, False), (2, False), (2, True)])
def test_order_and_bytes_do_not_depend_on_workers(written: Written, workers: int, auto_augment: bool) -> None:
    augment = AugmentParams(auto_augment=auto_augment)
    found, alone = (all_rows(batches_of(written, workers=count, augment=augment)) for count in (workers, 0))
    assert found == alone


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
def test_a_picture_that_no_longer_decodes(written: Written, workers: int, children: Children) -> None:
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
    def whole(self, captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
        raise ZeroDivisionError


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
