"""Score a small fixed sample of the validation pairs while training: the score curve."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from zerovl.data.manifest import Manifest
from zerovl.data.shards import ShardReader
from zerovl.data.split_reader import ANY_PIXELS
from zerovl.engine.sharding import is_sharded
from zerovl.engine.trainer import PeriodicEvaluation
from zerovl.evaluation.retrieval import retrieval_metrics
from zerovl.images import decode_rgb
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.preprocess import EvaluationTransform
from zerovl.params import Params
from zerovl.training.run_spec import Run

_PASS = 100  # pairs embedded at once


def make_periodic_evaluation(run: Run, model: DualEncoder) -> PeriodicEvaluation | None:
    """Return what scores the sample, None where `train.valid_checks` is 0 or no source has a validation split."""
    params, manifest = run.params, run.spec.manifest
    sources = manifest.sources("valid")
    if not params.train.valid_checks or not sources:
        return None
    images, captions = _sample(params, manifest, ShardReader(run.workspace.shards), sources)
    input_ids, attention_mask = (torch.from_numpy(array) for array in run.spec.tokenizer(captions))
    activity = run.ranks.activity
    # Between passes the watchdog is told: scoring many pairs is progress too.
    score = _scorer(model, images, input_ids, attention_mask, lambda: activity.mark("scoring validation pairs"))
    return PeriodicEvaluation(max(1, run.spec.steps // params.train.valid_checks), score, is_sharded(model))


def _sample(
    params: Params, manifest: Manifest, shards: ShardReader, sources: list[str]
) -> tuple[torch.Tensor, list[str]]:
    """Return pixels (n, 3, H, W) and first captions of pairs evenly spread over the sources' validation splits."""
    transform = EvaluationTransform(params.model.image_size, params.model.resize_size)
    wanted = max(1, params.train.valid_pairs // len(sources))
    pixels, captions = [], []
    for source in sources:
        index = manifest.index(source, "valid")
        rows = np.unique(np.linspace(0, len(index) - 1, min(wanted, len(index))).astype(int))
        files = manifest.splits[source, "valid"].shards
        for record in index[rows]:
            sample = shards.read(files[record["shard"]].path, int(record["offset"]), int(record["size"]))
            pixels.append(transform(decode_rgb(sample.image, ANY_PIXELS)))
            captions.append(sample.captions[0])
    return torch.stack(pixels), captions


def _scorer(
    model: DualEncoder,
    images: torch.Tensor,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    alive: Callable[[], None],
) -> Callable[[], float]:
    ids = np.arange(len(images))

    def embed(encode: Callable[..., torch.Tensor], *parts: torch.Tensor) -> torch.Tensor:
        alive()
        return encode(*(part.to(model.temperature.device) for part in parts))

    @torch.no_grad()  # inference mode would leave a sharded tower with weights that no backward accepts
    def score() -> float:
        with torch.compiler.set_stance("force_eager"):  # to compile for these shapes takes longer than to score
            image_emb = torch.cat([embed(model.encode_image, part) for part in images.split(_PASS)])  # (n, D)
            parts = zip(input_ids.split(_PASS), attention_mask.split(_PASS), strict=True)
            text_emb = torch.cat([embed(model.encode_text, *part) for part in parts])  # (n, D)
        return retrieval_metrics(image_emb.float().cpu(), text_emb.float().cpu(), ids, ids).rsum

    return score
