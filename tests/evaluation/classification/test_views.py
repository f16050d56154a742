"""Views of the paper's linear probe: what each epoch shows of a picture, and that ranks share them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.fake_world import png
from tests.support.thread_ranks import ThreadRank, on_ranks
from zerovl.data.batches.augmentation import PillowTransform
from zerovl.data.batches.randomness import keys64
from zerovl.data.raw.records import Picture
from zerovl.distributed.ranks import ALONE, Ranks
from zerovl.errors import ZeroVLError
from zerovl.evaluation.classification.views import AUGMENT, AugmentedViews
from zerovl.images import decode_rgb

SIDE = 16
CONTENTS = [png((40 * number, 250 - 40 * number, 90), side=24 + number) for number in range(5)]


def flat(pixels: torch.Tensor) -> torch.Tensor:
    """Stand for a tower: pixels (m, 3, H, W) as they are, (m, 3 H W)."""
    return pixels.flatten(1).float()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    """Five pictures: whole files, and one in the middle of another file."""
    for number, content in enumerate(CONTENTS):
        (tmp_path / f"{number}.png").write_bytes(content)
    (tmp_path / "4.png").write_bytes(b"before" + CONTENTS[4] + b"behind")
    whole = [Picture(str(tmp_path / f"{number}.png")) for number in range(4)]
    return [*whole, Picture(str(tmp_path / "4.png"), 6, len(CONTENTS[4]))]


def views(pictures: list[Picture], batch_size: int = 2, ranks: Ranks = ALONE) -> AugmentedViews:
    return AugmentedViews(pictures, flat, SIDE, batch_size, 7, ranks)


def test_augmentation_is_that_of_the_paper_s_probe() -> None:
    assert (AUGMENT.crop_scale, AUGMENT.auto_augment, AUGMENT.flip_probability) == ((0.08, 1.0), True, 0.0)


def test_a_view_is_one_draw_of_a_picture_and_an_epoch(pictures: list[Picture]) -> None:
    shown = views(pictures)(3)
    transform = PillowTransform(SIDE, AUGMENT)
    for place, content in enumerate(CONTENTS):
        expected = transform(decode_rgb(content), keys64(1, "view", 7, 3, place)[0])
        assert torch.equal(shown[place], flat(expected[None])[0])
    assert torch.equal(views(pictures, batch_size=3)(3), shown)
    assert not torch.equal(views(pictures)(4), shown)


def test_ranks_share_the_batches_and_all_have_every_view(pictures: list[Picture]) -> None:
    expected = views(pictures)(0)

    def share(rank: ThreadRank) -> torch.Tensor:
        return views(pictures, ranks=Ranks(rank.rank, rank.world_size, ALONE.device, rank))(0)

    for found in on_ranks(2, share):
        assert torch.equal(found, expected)


def test_a_picture_that_is_gone_meanwhile_is_named(pictures: list[Picture]) -> None:
    Path(pictures[1].path).unlink()
    with pytest.raises(ZeroVLError, match=r"1\.png: could be read before and cannot now"):
        views(pictures)(0)
