"""Compare a release by the ranks by query that it was published with; nothing is scored again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from zerovl.errors import ZeroVLError
from zerovl.evaluation.bootstrap import paired_difference
from zerovl.evaluation.comparable import DIGEST
from zerovl.evaluation.items import read_items
from zerovl.evaluation.metrics import MEAN, Interval
from zerovl.evaluation.paired import difference
from zerovl.evaluation.query_ranks import clusters_of, pool_clusters_of, read_queries
from zerovl.params import EvaluateParams
from zerovl.registry import release_files, transfer
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.registry.transfer import DamagedError


def fetch_queries(registry: Registry, version: Version, other: Mapping[str, Any]) -> pa.Table | str:
    """Return a release's ranks by query, or why they cannot be held against those of another evaluation.

    Args:
        registry: has the release.
        version: the release.
        other: the content of the other evaluation's `metrics.json`.

    Raises:
        ZeroVLError: the store or the disk fails for now, which says nothing about the release.
    """
    digests = version.metrics.get(DIGEST), other.get(DIGEST)
    if None in digests:
        return "it is not known what data they were evaluated on"
    if digests[0] != digests[1]:
        return "its evaluation was of other data"
    if release_files.QUERIES not in version.files:
        return f"{version.reference} was released without its ranks by query"
    return _fetch(registry, version, release_files.QUERIES, read_queries)


def fetch_items(registry: Registry, version: Version) -> pa.Table | str:
    """Return what further metrics of a release count of each item, or why it is not to be had.

    Raises:
        ZeroVLError: the store or the disk fails for now, which says nothing about the release.
    """
    if release_files.ITEMS not in version.files:
        return f"{version.reference} was made before figures by item were kept"
    return _fetch(registry, version, release_files.ITEMS, read_items)


def _fetch(registry: Registry, version: Version, name: str, read: Callable[[Path], pa.Table]) -> pa.Table | str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        try:
            transfer.fetch_file(registry.store, version, name, path)
        except DamagedError as error:
            return str(error)
        try:
            return read(path)
        except ZeroVLError as error:
            return str(error).replace(str(path), f"{name} of {version.reference}")


def released_difference(registry: Registry, version: Version, other: Version) -> Interval | str:
    """Return version - other of the headline on the same queries, with the 95% interval of the pairs.

    It is the mean over sources; of two releases of before there was one the pool, which both are shown with. The
    interval is drawn as the evaluation of `version` drew its own. Or return why there is none: other data, a release
    without ranks by query, a file that the store does not give.
    """
    try:
        ours = fetch_queries(registry, version, other.metrics)
        if isinstance(ours, str):
            return ours
        theirs = fetch_queries(registry, other, version.metrics)
        if isinstance(theirs, str):
            return theirs
        if MEAN not in version.metrics and MEAN not in other.metrics:
            return paired_difference(pool_clusters_of(ours), pool_clusters_of(theirs), *_draws(version))
        return difference(clusters_of(ours), clusters_of(theirs), *_draws(version)).mean
    except ZeroVLError as error:
        return str(error)


def _draws(version: Version) -> tuple[int, int]:
    """Return the number of resamples and the seed that a release was evaluated with."""
    default = EvaluateParams()
    section = (version.provenance.get("params") or {}).get("evaluate") or {}
    return section.get("bootstrap", default.bootstrap), section.get("seed", default.seed)
