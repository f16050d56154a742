"""Pairs in the order of their captions' lengths: the same ones, each with what belongs to it, and less padding."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.support.loader_batches import BATCH, SIZES, batches_of
from tests.support.shard_fixture import write
from tests.support.towers import CPU, RANKS, decoupled_step, gradients, model
from zerovl.data.batches.arrangement import ByCaptionLength, arrange_by, as_drawn
from zerovl.data.batches.loader import MicroBatch
from zerovl.engine.precision import Precision
from zerovl.errors import ZeroVLError
from zerovl.objective.mixup import Mix

PAD = 9


def micro_batch(lengths: list[int], first: int) -> MicroBatch:
    """Pairs whose pixels, tokens and identities all hold their number, `first` and on."""
    numbers = torch.arange(first, first + len(lengths))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return MicroBatch(
        images=numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous(),
        input_ids=torch.where(mask == 1, numbers[:, None] + 100, PAD),
        attention_mask=mask,
        keys=[f"s-{number}" for number in numbers.tolist()],
        source="s",
        identities=numbers[:, None].expand(-1, 2).contiguous(),
    )


BATCHES = [micro_batch([5, 1, 3], 0), micro_batch([2, 7, 1], 3), micro_batch([4, 4, 6], 6)]


def test_from_the_shortest_to_the_longest() -> None:
    arranged = list(ByCaptionLength(PAD)(iter(BATCHES)))
    assert [part.keys for part in arranged] == [["s-1", "s-5", "s-3"], ["s-2", "s-6", "s-7"], ["s-0", "s-8", "s-4"]]
    assert [part.attention_mask.sum(1).tolist() for part in arranged] == [[1, 1, 2], [3, 4, 4], [5, 6, 7]]
    assert [part.input_ids.shape[1] for part in arranged] == [2, 4, 7]  # each padded to its own longest


def test_each_pair_keeps_what_belongs_to_it() -> None:
    for part in ByCaptionLength(PAD)(iter(BATCHES)):
        for row, key in enumerate(part.keys):
            number = int(key.removeprefix("s-"))
            tokens = part.input_ids[row]
            attended = part.attention_mask[row] == 1
            assert (part.images[row] == number).all()
            assert (tokens[attended] == number + 100).all()
            assert (tokens[~attended] == PAD).all()
            assert part.identities is not None
            assert part.identities[row].tolist() == [number, number]
        assert part.source == "s"


def test_stored_captions_and_absent_identities_stay() -> None:
    features = MicroBatch(torch.rand(2, 4), torch.rand(2, 5), torch.empty(2, 0), ["a", "b"], "s")
    assert list(ByCaptionLength(PAD)(iter([features]))) == [features]
    drawn = micro_batch([2, 1], 0)
    plain = MicroBatch(drawn.images, drawn.input_ids, drawn.attention_mask, drawn.keys, "s")
    assert next(ByCaptionLength(PAD)(iter([plain]))).identities is None


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_the_same_pairs_in_that_order(tmp_path: Path, workers: int) -> None:
    written = write(tmp_path, SIZES)
    with batches_of(written) as batches:
        drawn = {step.step: _rows(step.micro_batches) for step in batches}
    with batches_of(written, workers=workers, arrange=ByCaptionLength(0)) as batches:
        for step in batches:
            lengths = [length for part in step.micro_batches for length in part.attention_mask.sum(1).tolist()]
            assert len(lengths) == BATCH
            assert lengths == sorted(lengths)
            assert sorted(_rows(step.micro_batches)) == sorted(drawn[step.step])


def test_loss_and_gradient_do_not_know_the_order() -> None:
    drawn = [_captions([3, 8, 1, 5], 0), _captions([8, 2, 2, 6], 1)]
    arranged = list(ByCaptionLength(0)(iter(drawn)))
    assert sum(part.input_ids.numel() for part in arranged) < sum(part.input_ids.numel() for part in drawn)
    found = []
    for batch in (drawn, arranged):
        dual = model().double().eval()  # without dropout, whose masks belong to the places in a batch
        step = decoupled_step(dual, RANKS, Precision("float32", CPU), kept_graphs=1)
        found.append((step(batch, Mix(), 0), gradients(dual)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def _captions(lengths: list[int], seed: int) -> MicroBatch:
    """Random pictures of 32 pixels with random captions of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(lengths), 3, 32, 32), generator=generator, dtype=torch.uint8)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 40, mask.shape, generator=generator) * mask
    return MicroBatch(images, ids, mask, [f"{seed}-{place}" for place in range(len(lengths))], "s")


def _rows(parts: Sequence[MicroBatch]) -> list[tuple[str, bytes, tuple[int, ...]]]:
    return [
        (key, image.numpy().tobytes(), tuple(ids[mask == 1].tolist()))
        for part in parts
        for key, image, ids, mask in zip(part.keys, part.images, part.input_ids, part.attention_mask, strict=True)
    ]


def test_names() -> None:
    assert arrange_by("drawn", PAD) is as_drawn
    assert arrange_by("caption_length", PAD) == ByCaptionLength(PAD)
    with pytest.raises(ZeroVLError, match=r"train\.pair_order 'size': unknown; set it to drawn or caption_length"):
        arrange_by("size", PAD)
