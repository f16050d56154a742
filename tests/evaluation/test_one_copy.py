"""An evaluation holds each embedding once: nothing beside them is as large as the captions' embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.fake_world import WIDTH, FakeEncoder, World
from zerovl.evaluation import retrieval
from zerovl.evaluation.metrics import OVERALL
from zerovl.evaluation.report import gallery
from zerovl.evaluation.scores import score


class _Allocations(TorchDispatchMode):
    """Notes operations that take new memory, of so many bytes or more."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.found: list[str] = []
        self._least = least

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and compare the memory of what it takes and gives."""
        result = func(*args, **(kwargs or {}))
        taken = {its.untyped_storage().data_ptr() for its in tree_leaves((args, kwargs)) if _is_tensor(its)}
        for given in filter(_is_tensor, tree_leaves(result)):
            storage = given.untyped_storage()
            if storage.data_ptr() not in taken and storage.nbytes() >= self._least:
                self.found.append(func.name())
        return result


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def test_each_embedding_is_there_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "_SCORED_AT_ONCE", 4)
    monkeypatch.setattr(retrieval, "_CHECKED_AT_ONCE", 4)
    pictures = sum(len(rows) for rows in world.samples.values())
    with _Allocations(pictures * WIDTH * 4) as allocations:
        pool, embeddings = world.encoded(FakeEncoder(), FakeEncoder(seed=1))
        scores = score(pool, *embeddings, chunk=16, resamples=10, seed=0)
        gallery.choose(pool, embeddings[0], scores[OVERALL], 4, 0)
    assert allocations.found == ["aten::zeros"] * 4  # pictures and captions of two models


def test_a_gallery_does_not_depend_on_how_many_pairs_are_scored_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, embeddings = world.encoded(FakeEncoder(), FakeEncoder(seed=1))
    scores = score(pool, *embeddings, chunk=1024, resamples=10, seed=0)
    at_once = gallery.choose(pool, embeddings[0], scores[OVERALL], 8, 0)
    monkeypatch.setattr(gallery, "_SCORED_AT_ONCE", 3)
    assert gallery.choose(pool, embeddings[0], scores[OVERALL], 8, 0) == at_once
