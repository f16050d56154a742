"""Compare two models on the same queries: the mean over sources, and source by source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zerovl.errors import ZeroVLError
from zerovl.evaluation.bootstrap import Clusters, paired_difference, paired_mean_difference
from zerovl.evaluation.metrics import Interval


@dataclass(frozen=True)
class Difference:
    """A metric of one model minus that of another, each with the 95% interval of the paired difference."""

    mean: Interval  # over sources
    sources: Mapping[str, Interval]


def difference(
    candidate: Mapping[str, Clusters], holder: Mapping[str, Clusters], resamples: int, seed: int
) -> Difference:
    """Return candidate - holder; both are clusters by source.

    Raises:
        ZeroVLError: they are not of the same sources, or a source of one is not the same queries as that of the other.
    """
    if candidate.keys() != holder.keys():
        raise ZeroVLError(
            f"the candidate was measured on the sources {', '.join(sorted(candidate))}, the holder on "
            f"{', '.join(sorted(holder))}; run `dvc repro -f evaluate`"
        )
    names = sorted(candidate)
    mean = mean_difference(candidate, holder, resamples, seed)
    return Difference(mean, {name: paired_difference(candidate[name], holder[name], resamples, seed) for name in names})


def mean_difference(
    candidate: Mapping[str, Clusters], holder: Mapping[str, Clusters], resamples: int, seed: int
) -> Interval:
    """Return candidate - holder of the mean over sources alone, which both must have the same of."""
    names = sorted(candidate)
    return paired_mean_difference(
        [candidate[name] for name in names], [holder[name] for name in names], resamples, seed
    )
