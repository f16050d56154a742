"""Pairs to evaluate on where no source brings any: how many `prepare` is to draw, and what is left to train on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from statistics import fmean

from zerovl.data.survey import Survey

_WANTED, _LEAST_WANTED = 1000, 20  # pictures of a source: as many as Flickr30K is evaluated on, if its size allows
_MOST, _MOST_DRAWN = 0.2, 20_000  # of a source: a share, and pairs
_LEAST_PAIRS = 100  # of a source: a draw from fewer may come out empty, which `prepare` refuses
_MOST_PAIRS = 1_000_000  # of a source: `prepare` writes all of its shards once more for a draw


def share_to_draw(data: Survey, refused: Collection[str]) -> float:
    """Return the `prepare.draw_valid.fraction` for data without validation pairs; 0.0 where nothing is to be drawn.

    Args:
        data: the sources as they are.
        refused: those that say themselves that they have no valid split, so that none is drawn for them.
    """
    sizes = [pairs for name, pairs in data.train.items() if name not in refused]
    if data.valid or not sizes or min(sizes) < _LEAST_PAIRS or max(sizes) > _MOST_PAIRS:
        return 0.0
    share = float(f"{min(_MOST, max(_WANTED / fmean(sizes), _LEAST_WANTED / min(sizes))):.2g}")
    return share if share * max(sizes) <= _MOST_DRAWN else 0.0  # what the smallest source wants is too much of others


def set_aside(data: Survey, share: float, refused: Collection[str]) -> Survey:
    """Return what about is left once that share is drawn from each source that has no valid split and may have one."""
    drawn = {
        name: round(share * pairs)
        for name, pairs in data.train.items()
        if name not in data.valid and name not in refused
    }
    train = {name: pairs - drawn.get(name, 0) for name, pairs in data.train.items()}
    return replace(data, train=train, valid=data.valid | {name: pairs for name, pairs in drawn.items() if pairs})
