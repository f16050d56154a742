"""The ablation's peer: open_clip's own trainer on the same stored features of the same frozen towers.

`open_clip_train.train.train_one_epoch`, its loss, its schedule and its AdamW (betas 0.9 and 0.98, weight decay 0.2 but
on the temperature, which begins at 0.07) train the two projections that open_clip puts on towers of timm and of Hugging
Face: linear, without bias. Batches are drawn over all sources at once, each picture with one of its captions at random,
so that a pair is as probable as it is with `sampling: shuffled`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.ablation_runs import Fold, score
from benchmarks.peers import peer
from zerovl.data.batches.features import COMPLETE, StoredFeatures
from zerovl.files import read_json
from zerovl.model.dual_encoder import l2_normalise
from zerovl.workspace import Workspace

BATCH, EMBED_DIM, WARMUP = 128, 256, 0.1  # of the ablation's own variants


class Projections(nn.Module):
    """Two linear projections, with what open_clip's trainer asks of a model."""

    def __init__(self, image_width: int, text_width: int) -> None:
        super().__init__()
        self.image = nn.Linear(image_width, EMBED_DIM, bias=False)
        self.text = nn.Linear(text_width, EMBED_DIM, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, images: Tensor, texts: Tensor) -> dict[str, Tensor]:
        """Features of the towers (B, w) each to embeddings (B, D) and the factor of the logits."""
        return {
            "image_features": l2_normalise(self.image(images)),
            "text_features": l2_normalise(self.text(texts)),
            "logit_scale": self.logit_scale.exp(),
        }


class FeatureLoader:
    """Batches of stored features in the form of open_clip's data: shuffled epochs, one after the other."""

    def __init__(self, fold: Fold, steps: int, seed: int) -> None:
        self.num_batches, self.num_samples = steps, steps * BATCH
        self.dataloader = self
        self._random = np.random.default_rng(seed)
        self._sides = [_stored(fold, side) for side in ("image", "text")]
        keys = {path.name.removesuffix(".keys.npy"): np.load(path) for path in self._sides[0].folder.glob("*.keys.npy")}
        self._pairs = [(source, row) for source in sorted(keys) for row in range(len(keys[source]))]
        self.widths = [int(side.feature(*self._pairs[0]).shape[0]) for side in self._sides]

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: all steps are one epoch to the trainer."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = np.concatenate(
            [self._random.permutation(len(self._pairs)) for _ in range(self.num_samples // len(self._pairs) + 1)]
        )
        for step in range(self.num_batches):
            chosen = [self._pairs[number] for number in order[step * BATCH : (step + 1) * BATCH]]
            images, texts = ([self._drawn(side, *pair) for pair in chosen] for side in self._sides)
            yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(texts))  # (B, w) each

    def _drawn(self, side: StoredFeatures, source: str, row: int) -> Any:
        return side.feature(source, int(self._random.choice(side.rows_of(source, row))))


@dataclass(frozen=True)
class Trained:
    """What the trainer made: both projections."""

    image: nn.Linear
    text: nn.Linear


def train(fold: Fold, rate: float, seed: int, steps: int) -> Trained:
    """Train projections on the fold's pairs; raises `NotMeasured` where open_clip is not installed."""
    trainer = peer("open_clip_train.train", "open_clip_torch")
    loss = peer("open_clip.loss", "open_clip_torch").ClipLoss()
    cosine_lr = peer("open_clip_train.scheduler", "open_clip_torch").cosine_lr
    torch.manual_seed(seed)
    data = FeatureLoader(fold, steps, seed)
    model = Projections(*data.widths)
    optimizer = torch.optim.AdamW(
        [
            {"params": [model.logit_scale], "weight_decay": 0.0},
            {"params": [model.image.weight, model.text.weight], "weight_decay": 0.2},
        ],
        lr=rate,
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    scheduler = cosine_lr(optimizer, rate, round(WARMUP * steps), steps)
    trainer.train_one_epoch(model, {"train": data}, loss, 0, optimizer, None, scheduler, None, _arguments())
    return Trained(model.image, model.text)


def measure(fold: Fold, rate: float, seed: int, steps: int) -> dict[str, Any]:
    """Train, and return RSUM of each source's validation pairs, as `ablation_runs.measure` does."""
    trained = train(fold, rate, seed, steps)
    return {"steps": steps, "pairs_seen": steps * BATCH, "sources": score(fold, trained.image, trained.text)}


def _stored(fold: Fold, side: str) -> StoredFeatures:
    """Return the features of a side that the fold's own runs with frozen towers have stored."""
    found = [path.parent for path in (Workspace(fold.folder).runs / "features").glob(f"{side}-*/{COMPLETE}")]
    fitting = [folder for folder in found if read_json(folder / COMPLETE)["data"] == fold.digest]
    if not fitting:
        raise SystemExit(f"no stored features of the {side} side in {fold.folder}: run a variant of `frozen` first")
    return StoredFeatures(max(fitting, key=lambda folder: (folder / COMPLETE).stat().st_mtime))


def _arguments() -> argparse.Namespace:
    """What `train_one_epoch` reads of open_clip's command line."""
    return argparse.Namespace(
        device="cpu",
        precision="fp32",
        distill=False,
        accum_freq=1,
        skip_scheduler=False,
        horovod=False,
        grad_clip_norm=None,
        rank=0,
        local_rank=0,
        world_size=1,
        batch_size=BATCH,
        log_every_n_steps=100,
        wandb=False,
    )
