"""Score retrieval in folds while training, where a check embeds all validation pictures anyway: another curve.

Shapes: `I` pictures of the sample, `M` all their captions, `D` embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from zerovl.data.manifest import Manifest
from zerovl.distributed.ranks import Ranks
from zerovl.evaluation.fold_ranking import Fold, folds_of, rank_fold
from zerovl.evaluation.metrics import HEADLINE
from zerovl.evaluation.pool import Embeddings, Facts, Pool, pool_of
from zerovl.model.text import CaptionTokenizer
from zerovl.params import Params
from zerovl.text_format import plural
from zerovl.training.passes import Passes, Towers

COLUMN = f"valid_folds_{HEADLINE.name}"


@dataclass(frozen=True)
class FoldCheck:
    """The folds of all sources, with their captions."""

    pool: Pool  # of the sample
    folds: tuple[tuple[Fold, ...], ...]  # of each source that has one
    captions: Passes  # the distinct ones, as equal captions are to tie
    places: Tensor  # (M,) of the pool's captions among them
    chunk: int

    def score(self, images: Tensor, towers: Towers) -> dict[str, float]:
        """Return the mean over sources of the means over folds of RSUM, by column of the log; a collective.

        `images` are the sample's embeddings, (I, D).
        """
        embeddings = Embeddings(images, towers.captions(self.captions)[self.places])

        def rsum(fold: Fold) -> float:
            return rank_fold(self.pool, embeddings, fold, self.chunk, towers.ranks).rsum

        return {COLUMN: fmean(fmean(map(rsum, folds)) for folds in self.folds)}


def read_check(
    params: Params, manifest: Manifest, facts: Mapping[str, Sequence[Facts]], tokenizer: CaptionTokenizer, ranks: Ranks
) -> FoldCheck | None:
    """Return what scores the folds, None where none are asked for or there are not all of a source's pictures.

    `facts` has what `pool.pool_of` takes, of the sample's pictures.
    """
    if not scores_folds(params, manifest):
        return None
    pool = pool_of(facts)
    found = (tuple(folds_of(pool, source, params.evaluate.folds)) for source in _sources(params, manifest))
    if not (folds := tuple(its for its in found if its)):
        return None
    distinct = sorted(set(pool.captions), key=lambda text: (len(text), text))  # in an order that pads little
    place = {text: row for row, text in enumerate(distinct)}
    places = torch.tensor([place[text] for text in pool.captions])
    return FoldCheck(pool, folds, Passes.of_captions(distinct, tokenizer, ranks), places, params.evaluate.chunk)


def scores_folds(params: Params, manifest: Manifest) -> bool:
    """Tell whether `train.valid_pairs` has all pairs of every source that may have a fold."""
    return bool(_sources(params, manifest)) and params.train.valid_pairs >= _wanted(params, manifest)


def describe(params: Params, manifest: Manifest) -> list[str]:
    """Return for the block at the start what folds cost a check, or what they wait for."""
    if not params.train.valid_checks or not (sources := _sources(params, manifest)):
        return []
    folds, pairs = f"folds of {params.evaluate.folds:,}", sum(manifest.pairs(source, "valid") for source in sources)
    if scores_folds(params, manifest):
        times = plural(params.train.valid_checks, "check")
        return [f"retrieval in {folds} too: each of {times} embeds all captions of {plural(pairs, 'validation pair')}"]
    return [
        f"{folds} wait for `zerovl evaluate`: they need all validation pairs; train.valid_pairs "
        f"{params.train.valid_pairs}, divided over the sources, has them from {_wanted(params, manifest)} on"
    ]


def _sources(params: Params, manifest: Manifest) -> list[str]:
    """Sources that may have a fold: a picture with several rows counts once, so one of these may have none."""
    folds = params.evaluate.folds
    return [source for source in manifest.sources("valid") if folds and manifest.pairs(source, "valid") >= folds]


def _wanted(params: Params, manifest: Manifest) -> int:
    """`train.valid_pairs` with which the sample has all pairs of these sources."""
    most = max(manifest.pairs(source, "valid") for source in _sources(params, manifest))
    return most * len(manifest.sources("valid"))
