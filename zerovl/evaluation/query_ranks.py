"""The places of the right items by query, as evaluations keep them in a file, and what the bootstrap takes of them.

`scores.write_queries` writes the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zerovl.errors import ZeroVLError
from zerovl.evaluation.bootstrap import Clusters
from zerovl.evaluation.metrics import HEADLINE, KS, OVERALL

_SOURCE = "source:"  # in the names of pools, so that a source may be called "overall"

QUERIES_SCHEMA = pa.schema(
    [
        ("pool", pa.string()),  # what was searched: "source:<name>", or "overall"
        ("direction", pa.string()),  # i2t | t2i
        ("source", pa.string()),
        ("image_id", pa.int64()),  # of the query, or of the caption's picture
        ("caption", pa.int32()),  # which of the picture's captions, from 0; null for i2t
        ("rank", pa.float64()),  # expected place of the first right item over random orders of ties, from 1
        *((f"r{k}", pa.float64()) for k in KS),  # probability that a right item is among the first k
    ]
)


def pool_of(source: str) -> str:
    """Return the name of the pool of a source alone."""
    return f"{_SOURCE}{source}"


def read_queries(path: Path) -> pa.Table:
    """Read a file of `scores.write_queries`: a row of `QUERIES_SCHEMA` a query and pool.

    Raises:
        ZeroVLError: there is no such file, or it is not a table of queries.
    """
    try:
        return pq.read_table(path, schema=QUERIES_SCHEMA)
    except FileNotFoundError:
        raise ZeroVLError(f"{path}: no such file; run `dvc repro evaluate`") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ZeroVLError(f"{path}: not a table of queries ({error}); run `dvc repro -f evaluate`") from None


def clusters_of(found: pa.Table, metric: str = HEADLINE.name) -> dict[str, Clusters]:
    """Return what `bootstrap.paired_mean_difference` needs, by source, of the headline or of one of its six recalls.

    Images stand in the order of (source, image_id), so files of two models fit each other.
    """
    pools = [name for name in found["pool"].unique().to_pylist() if name != OVERALL]
    return {name.removeprefix(_SOURCE): _clusters(found, name, metric) for name in pools}


def pool_clusters_of(found: pa.Table, metric: str = HEADLINE.name) -> Clusters:
    """Return the same of the pool of all sources, whose images are drawn among all of them."""
    return _clusters(found, OVERALL, metric)


def _clusters(found: pa.Table, pool: str, metric: str) -> Clusters:
    direction, _, k = metric.partition("_r")
    columns = [f"r{k}"] if k else [f"r{k}" for k in KS]
    found = found.filter(pc.equal(found["pool"], pool))
    sources, ids = found["source"].to_numpy().astype(str), found["image_id"].to_numpy().astype(str)
    names = np.char.add(np.char.add(sources, "/"), ids)
    is_image = found["direction"].to_numpy() == "i2t"
    hits = sum(found[column].to_numpy() for column in columns)
    if k:  # the other direction counts for nothing
        hits = np.where(is_image == (direction == "i2t"), hits, 0.0)
    order = np.argsort(names[is_image])
    owners = np.searchsorted(names[is_image][order], names[~is_image])
    return Clusters.of_hits(hits[is_image][order], hits[~is_image], owners)
