"""How many of the training captions are longer than `model.max_tokens`, which cuts them.

Shapes: m captions of a call, L tokens.
"""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from zerovl.data.batches.sides import CaptionTokenizer
from zerovl.data.manifest import Manifest
from zerovl.parquet_files import open_parquet

LOOKED_AT = 10_000  # captions of a source: the share is known to a percent, in a second
_ROW_GROUPS = 5  # of a table that are read
_AT_ONCE = 256  # captions that are padded to one length


def describe_cut(manifest: Manifest, tokenize: CaptionTokenizer) -> str:
    """Say which share of the training captions is cut; of large sources by a sample that is spread over them."""
    cut, looked_at, total = 0.0, 0, 0
    for source in manifest.sources("train"):
        captions, count = sampled_captions(manifest, source), manifest.splits[source, "train"].captions
        cut += count * share_cut(captions, tokenize)
        looked_at += len(captions)
        total += count
    seen = "" if looked_at == total else f" ({looked_at:,} of {total:,} looked at)"
    return f"{100 * cut / total:.3g}% are longer than model.max_tokens {tokenize.max_tokens} and are cut there{seen}"


def share_cut(captions: list[str], tokenize: CaptionTokenizer) -> float:
    """Return the share of captions with more than `max_tokens` tokens, beginning and end included."""
    longer = 0
    for start in range(0, len(captions), _AT_ONCE):
        _, mask = tokenize.whole(captions[start : start + _AT_ONCE])  # (m, L)
        longer += int((mask.sum(axis=1) > tokenize.max_tokens).sum())
    return longer / max(1, len(captions))


def sampled_captions(manifest: Manifest, source: str) -> list[str]:
    """Return all training captions of a source, or about `LOOKED_AT` from all over it."""
    with open_parquet(manifest.table_path(source, "train")) as table:
        groups = np.unique(np.linspace(0, table.num_row_groups - 1, _ROW_GROUPS).round().astype(int))
        rows = table.read_row_groups(groups.tolist(), columns=["error", "captions"])
    captions = pc.list_flatten(rows.filter(pc.is_null(rows.column("error"))).column("captions"))
    step = -(-len(captions) // LOOKED_AT)
    found: list[str] = captions.take(np.arange(0, len(captions), max(1, step))).to_pylist()
    return found
