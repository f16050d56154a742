"""Fit the fast linear probe of a set while training: as `zerovl evaluate` does, on the image tower as it is now.

Shapes: `n` pictures of the set, `w` width of the image tower.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zerovl.evaluation.classification.linear_probe import probe
from zerovl.evaluation.pool import Ints
from zerovl.evaluation.sharing import facts_of_all
from zerovl.training.passes import Passes, Towers

MEASURE = "linear_probe"


@dataclass(frozen=True)
class LabelledPasses:
    """Pictures for the image tower, with their classes."""

    labels: Ints  # (n,)
    pictures: Passes


@dataclass(frozen=True)
class ProbeCheck:
    """What a probe of a set learns from, and how folds are drawn."""

    training: LabelledPasses | None  # the set's own training split; None: folds of the set
    seed: int

    def top1(self, labels: Ints, features: Tensor, towers: Towers) -> float:
        """Return the share of pictures, in percent, whose class the probe says; a collective.

        The first rank fits, since the fit takes all of a processor, and tells the others.

        Args:
            labels: (n,).
            features: (n, w), of the image tower.
            towers: embed the training split.
        """
        training = None
        if self.training is not None:
            training = towers.image_features(self.training.pictures), self.training.labels
        share = self._fitted(labels, features, training, towers) if towers.ranks.is_first else None
        found: float = facts_of_all([share], towers.ranks)[0]  # type: ignore[assignment]
        return found

    def _fitted(self, labels: Ints, features: Tensor, training: tuple[Tensor, Ints] | None, towers: Towers) -> float:
        device = towers.model.temperature.device
        towers.alive()
        learned = None if training is None else (training[0].to(device), training[1])
        with torch.enable_grad():  # scores are made without
            found = probe(features.to(device), labels, learned, self.seed)
        return 100.0 * float(found.right(labels).mean())
