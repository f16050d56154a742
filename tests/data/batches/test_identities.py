"""Equal captions and equal pictures have equal integers, in every process and before any token is masked."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.loader_batches import SIZES, batches_of
from tests.support.shard_fixture import WordTokenizer, write
from zerovl.data.batches.identities import hashed_identities, identify_by
from zerovl.errors import ZeroVLError
from zerovl.params import AugmentParams


def test_padding_does_not_count_and_every_token_does() -> None:
    ids = np.array([[2, 5, 6, 3, 0], [2, 5, 6, 3, 0], [2, 5, 7, 3, 0], [2, 5, 6, 6, 3]])
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    found = hashed_identities(ids, mask, [b"a", b"b", b"a", b"c"])
    assert found.shape == (4, 2)
    assert found.dtype == torch.int64
    captions, pictures = found.T.tolist()
    assert captions[0] == captions[1]
    assert len(set(captions)) == 3
    assert pictures[0] == pictures[2]
    assert len(set(pictures)) == 3
    wider = np.pad(ids[:1], ((0, 0), (0, 4)))
    assert hashed_identities(wider, np.pad(mask[:1], ((0, 0), (0, 4))), [b"a"]).tolist() == found[:1].tolist()


def test_an_unknown_name_is_an_error_with_the_names() -> None:
    with pytest.raises(ZeroVLError, match=r"train.equal_pairs 'masked': unknown; set it to negatives or positives"):
        identify_by("masked", WordTokenizer())


def test_batches_carry_them_where_asked_for_on_any_number_of_ranks_and_workers(tmp_path: Path) -> None:
    written = write(tmp_path, SIZES)
    masked = AugmentParams(mask_probability=0.5)

    def identities(**changes: object) -> list[torch.Tensor]:
        identify = identify_by("positives", WordTokenizer())
        with batches_of(written, augment=masked, identify=identify, epochs=1.0, **changes) as batches:
            parts = [[part.identities for part in batch.micro_batches] for batch in batches]
            return [torch.cat([each for each in part if each is not None]) for part in parts]

    alone = identities()
    assert [len(each) for each in alone] == [16] * len(alone)
    assert all(torch.equal(a, b) for a, b in zip(alone, identities(workers=1), strict=True))
    ranks = [identities(rank=rank, world_size=2) for rank in (0, 1)]
    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(alone, zip(*ranks, strict=True), strict=True))
    with batches_of(written) as batches:
        assert all(part.identities is None for part in next(batches).micro_batches)
