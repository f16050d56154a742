"""Score a small fixed sample of the validation pairs while training: the score curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

import numpy as np
import torch

from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader
from zerovl.data.split_reader import ANY_PIXELS
from zerovl.engine.sharding import is_sharded
from zerovl.engine.trainer import PeriodicEvaluation
from zerovl.evaluation.bootstrap import Clusters, mean_interval
from zerovl.evaluation.metrics import HEADLINE, POOL
from zerovl.evaluation.retrieval import retrieval_metrics
from zerovl.images import decode_rgb
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.preprocess import EvaluationTransform
from zerovl.params import Params
from zerovl.training.run_spec import Run
from zerovl.training.valid_sets import Towers, read_checks

_PASS = 100  # pairs embedded at once
_RESAMPLES = 200  # of the curve's interval

# Columns of the log: the mean over sources with its 95% interval, what chance gets, and all sources searched as one.
COLUMN = f"valid_{HEADLINE.name}"
LOW, HIGH = f"{COLUMN}_low", f"{COLUMN}_high"
CHANCE, IN_POOL = f"valid_{HEADLINE.chance}", f"valid_{POOL}_{HEADLINE.name}"
SCORES = (COLUMN, LOW, HIGH, CHANCE, IN_POOL)


def make_periodic_evaluation(run: Run, model: DualEncoder) -> PeriodicEvaluation | None:
    """Return what scores the sample, None where `train.valid_checks` is 0 or no source has a validation split."""
    params, manifest = run.params, run.spec.manifest
    sources = manifest.sources("valid")
    if not params.train.valid_checks or not sources:
        return None
    images, captions, counts = _sample(params, manifest, run.shards.direct_reader(), sources)
    input_ids, attention_mask = (torch.from_numpy(array) for array in run.spec.tokenizer(captions))
    activity = run.ranks.activity
    # Between passes the watchdog is told: scoring many pairs is progress too.
    alive = partial(activity.mark, "scoring validation pairs")
    embed = _embedder(model, images, input_ids, attention_mask, alive)
    checks, towers = read_checks(params), Towers(model, run.spec.tokenizer, alive)

    def score() -> dict[str, float]:
        found = scores(*embed(), counts)
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # as `_embedder`
            for check in checks:
                found |= check.score(towers)
        return found

    return PeriodicEvaluation(max(1, run.spec.steps // params.train.valid_checks), score, is_sharded(model))


def _sample(
    params: Params, manifest: Manifest, shards: ShardReader, sources: list[str]
) -> tuple[torch.Tensor, list[str], list[int]]:
    """Return pixels (n, 3, H, W) and first captions of pairs evenly spread over the sources' validation splits.

    Source after source; the last value says how many pairs each has.
    """
    transform = EvaluationTransform(params.model.image_size, params.model.resize_size)
    wanted = max(1, params.train.valid_pairs // len(sources))
    pixels, captions, counts = [], [], []
    for source in sources:
        index = manifest.index(source, "valid")
        rows = np.unique(np.linspace(0, len(index) - 1, min(wanted, len(index))).astype(int))
        files = manifest.splits[source, "valid"].shards
        counts.append(len(rows))
        for record in index[rows]:
            sample = shards.read(files[record["shard"]].path, int(record["offset"]), int(record["size"]))
            pixels.append(transform(decode_rgb(sample.image, ANY_PIXELS)))
            captions.append(sample.captions[0])
    return torch.stack(pixels), captions, counts


def scores(image_emb: torch.Tensor, text_emb: torch.Tensor, counts: Sequence[int]) -> dict[str, float]:
    """Return the columns of the log for embeddings (n, D) of n pairs; `counts` says how many each source has."""
    ids = np.arange(len(image_emb))
    parts = zip(image_emb.split(list(counts)), text_emb.split(list(counts)), strict=True)
    found = [retrieval_metrics(images, texts, ids[: len(images)], ids[: len(images)]) for images, texts in parts]
    mean = mean_interval([Clusters.of(its) for its in found], _RESAMPLES, seed=0)
    return {
        COLUMN: mean.value,
        LOW: mean.low,
        HIGH: mean.high,
        CHANCE: fmean(its.chance[HEADLINE.name] for its in found),
        IN_POOL: retrieval_metrics(image_emb, text_emb, ids, ids).rsum,
    }


def _embedder(
    model: DualEncoder,
    images: torch.Tensor,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    alive: Callable[[], None],
) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Return what embeds the sample with the model as it is: pictures and captions (n, D), on the CPU."""

    def embed(encode: Callable[..., torch.Tensor], *parts: torch.Tensor) -> torch.Tensor:
        alive()
        return encode(*(part.to(model.temperature.device) for part in parts))

    @torch.no_grad()  # inference mode would leave a sharded tower with weights that no backward accepts
    def embed_all() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.compiler.set_stance("force_eager"):  # to compile for these shapes takes longer than to score
            image_emb = torch.cat([embed(model.encode_image, part) for part in images.split(_PASS)])  # (n, D)
            parts = zip(input_ids.split(_PASS), attention_mask.split(_PASS), strict=True)
            text_emb = torch.cat([embed(model.encode_text, *part) for part in parts])  # (n, D)
        return image_emb.float().cpu(), text_emb.float().cpu()

    return embed_all
