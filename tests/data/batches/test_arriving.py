"""A step begins with its first micro-batch: what is there is used while the rest is made, and is the same as ever."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.loader_batches import BATCH, SIZES, batches_of
from tests.support.shard_fixture import WordTokenizer, Written, write
from tests.support.towers import CPU, RANKS, decoupled_step, gradients, model
from zerovl.data.batches.arrangement import ByCaptionLength
from zerovl.data.batches.arriving import Arriving
from zerovl.data.batches.loader import MicroBatch, TrainBatches, size_key_of
from zerovl.data.batches.sides import Pictures
from zerovl.engine.precision import Precision
from zerovl.errors import ZeroVLError
from zerovl.objective.mixup import Mix

STEPS = 2 * sum(SIZES.values()) // BATCH


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write(tmp_path, SIZES)


class Counting(WordTokenizer):
    """Knows how many micro-batches were made."""

    made = 0

    def whole(self, captions: list[str]):  # type: ignore[no-untyped-def]
        self.made += 1
        return super().whole(captions)


def test_items_are_taken_when_they_are_looked_at_and_kept() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(9):
            taken.append(number)
            yield number

    items = Arriving(source(), 4)
    assert len(items) == 4
    assert taken == []
    assert items[1] == 1
    assert taken == [0, 1]
    assert items[:2] == [0, 1]
    assert taken == [0, 1]
    assert list(items) == list(items) == [0, 1, 2, 3]
    assert items[-1] == 3
    assert taken == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        items[4]
    with pytest.raises(RuntimeError, match="2 of 3 items had arrived"):
        Arriving(iter([1, 2]), 3).complete()


def test_an_index_error_of_the_source_is_not_the_end() -> None:
    with pytest.raises(IndexError, match="no row"):
        list(Arriving(breaking(), 3))


def breaking() -> Iterator[int]:
    """A source with a fault of its own behind its first item."""
    yield 0
    raise IndexError("no row 1")


def test_a_step_is_there_with_its_first_micro_batch(written: Written) -> None:
    counted = Counting()
    with batches_of(written, tokenize=counted) as batches:
        step = next(batches)
        assert (counted.made, len(step.micro_batches)) == (1, 4)
        _ = step.micro_batches[2]
        assert counted.made == 3
        following = next(batches)  # the rest of the first is not lost
        assert counted.made == 5
        assert [len(part.keys) for part in step.micro_batches] == [4] * 4
        assert following.step == 1
    with batches_of(written, tokenize=(counted := Counting()), arrange=ByCaptionLength(0)) as batches:
        next(batches)  # the shortest caption may be in the last one
        assert counted.made == 4


def waiting(batches: TrainBatches) -> list[list[MicroBatch]]:
    """The reference: each step when all its micro-batches are there."""
    with batches:
        return [list(step.micro_batches) for step in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_micro_batches_and_gradients_are_those_of_a_step_that_waits(written: Written, workers: int) -> None:
    expected = waiting(batches_of(written))
    assert len(expected) == STEPS
    with batches_of(written, workers=workers) as batches:
        steps = list(batches)  # complete by then, though nobody has looked at them
    for step, parts in zip(steps, expected, strict=True):
        for found, part in zip(step.micro_batches, parts, strict=True):
            assert found.keys == part.keys
            assert torch.equal(found.images, part.images)
            assert torch.equal(found.input_ids, part.input_ids)
    results = []
    options = {"start_step": 5, "workers": workers, "images": Pictures(Pixels32()), "tokenize": FewWords()}
    for arrived in (False, True):
        dual = model().train()
        step_of = decoupled_step(dual, RANKS, Precision("float32", CPU), seed=3, kept_graphs=1)
        with batches_of(written, **options) as batches:
            batch = next(batches)
            parts = list(batch.micro_batches) if arrived else batch.micro_batches
            results.append((step_of(parts, Mix("image", 0.3), 5), gradients(dual)))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(results[0][1][name], gradient) for name, gradient in results[1][1].items())


class FewWords(WordTokenizer):
    """Ids that the small towers know."""

    special = replace(WordTokenizer.special, vocab_size=40)

    def whole(self, captions: list[str]):  # type: ignore[no-untyped-def]
        ids, mask = super().whole(captions)
        return ids % 40, mask


class Pixels32:
    """Pictures for the small towers."""

    def __call__(self, _data: bytes, seed: int) -> torch.Tensor:
        return torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_a_loader_that_was_closed_in_the_middle_of_a_step_says_so(written: Written) -> None:
    with batches_of(written) as batches:
        step = next(batches)
    assert step.micro_batches[0].keys
    with pytest.raises(RuntimeError, match="1 of 4 items had arrived"):
        list(step.micro_batches)
    with pytest.raises(StopIteration):
        next(batches)


class NoMemory(WordTokenizer):
    """A tokenizer for which there is no memory."""

    def whole(self, captions: list[str]):  # type: ignore[no-untyped-def]
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize(
    ("workers", "step", "lower"),
    [
        (0, "decoupled", r"train\.micro_batch"),
        (1, "decoupled", r"machine\.loader_workers or train\.micro_batch"),
        (0, "plain", r"train\.batch_size"),  # it takes its pairs in one piece, whatever train.micro_batch says
    ],
)
def test_memory_that_runs_out_in_the_loader_is_no_matter_of_the_step(
    written: Written, workers: int, step: str, lower: str
) -> None:
    with (
        batches_of(written, tokenize=NoMemory(), workers=workers, size_key=size_key_of(step)) as batches,
        pytest.raises(ZeroVLError, match=rf"out of memory while .*; set {lower} lower"),
    ):
        next(batches)
