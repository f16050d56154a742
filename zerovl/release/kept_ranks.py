"""Compare two releases by the ranks by query that both were published with; nothing is scored again."""

from __future__ import annotations

import tempfile
from pathlib import Path

from zerovl.errors import ZeroVLError
from zerovl.evaluation.bootstrap import Clusters
from zerovl.evaluation.metrics import Interval
from zerovl.evaluation.paired import difference
from zerovl.evaluation.scores import clusters_of, read_queries
from zerovl.params import EvaluateParams
from zerovl.registry import release_files, transfer
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry


def released_difference(registry: Registry, version: Version, other: Version) -> Interval | str:
    """Return version - other of the headline's mean on the same queries, with the 95% interval of the pairs.

    Or why there is none: other data, a release without ranks by query, a file that the store does not give.
    """
    digest = version.metrics.get("evaluation_digest")
    if digest is None or digest != other.metrics.get("evaluation_digest"):
        return "they were evaluated on other data"
    if lacking := [each.reference for each in (version, other) if release_files.QUERIES not in each.files]:
        return f"{lacking[0]} was released without its ranks by query"
    draws = EvaluateParams()
    try:
        ours, theirs = (_clusters(registry, each) for each in (version, other))
        return difference(ours, theirs, draws.bootstrap, draws.seed).mean
    except ZeroVLError as error:
        return str(error)


def _clusters(registry: Registry, version: Version) -> dict[str, Clusters]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / release_files.QUERIES
        transfer.fetch_file(registry.store, version, release_files.QUERIES, path)
        return clusters_of(read_queries(path))
