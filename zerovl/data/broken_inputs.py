"""Inputs that cannot be used, by their reasons, for messages; the table of a split keeps each with its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from zerovl.data.manifest import Manifest
from zerovl.parquet_files import open_parquet
from zerovl.text_format import names, plural

BROKEN_CSV = "broken.csv"  # of the validation's report: every quarantined input with its reason
# A picture counts as one and takes its captions with it; of one that is whole each caption may be broken.
MEANING = "an input is a picture with its captions, or one caption that cannot be used"
_KINDS = 50
_REASONS = 5  # that a line names
_BATCH = 65_536  # rows


def broken_reasons(manifest: Manifest, source: str, split: str) -> Counter[str]:
    """Count the quarantined inputs of a split by the kind of their reason, as `Kinds` calls it."""
    kinds = Kinds()
    found: Counter[str] = Counter()
    with open_parquet(manifest.table_path(source, split)) as file:
        for batch in file.iter_batches(_BATCH, columns=["error"]):
            found.update(kinds.add(error) for error in batch.column("error").drop_null().to_pylist())
    return Counter({kinds.called(kind): count for kind, count in found.items()})


class Kinds:
    """Sorts reasons by kind, and calls a kind of which one reason alone came by that reason, numbers and all."""

    def __init__(self) -> None:
        self._called: dict[str, str] = {}

    def add(self, reason: str) -> str:
        """Return the kind of a reason."""
        kind = kind_of(reason, self._called)
        if self._called.setdefault(kind, reason) != reason:
            self._called[kind] = kind
        return kind

    def called(self, kind: str) -> str:
        """Return how messages call a kind."""
        return self._called[kind]


def kind_of(reason: str, known: Collection[str]) -> str:
    """Return a reason without its numbers: "9000x9000 pixels" and "8000x9000 pixels" are one kind.

    A new kind beside many that are known is one of "other reasons", so that their number stays small.
    """
    kind = re.sub(r"(?<![a-z]{3})\d+", "#", reason)  # that of "img2dataset" is none of them
    return kind if kind in known or len(known) < _KINDS else "other reasons"


def tell_broken(manifest: Manifest, report: Path) -> None:
    """Print a line for each split with quarantined inputs: how many for which reason, and where each will be listed.

    Args:
        manifest: whose tables are written.
        report: folder in which the validation lists them.
    """
    for (source, split), info in sorted(manifest.splits.items()):
        if info.broken:
            counted = broken_reasons(manifest, source, split).most_common()
            reasons = names([f"{count:,} {reason}" for reason, count in counted], _REASONS)
            print(
                f"{source}/{split}: {plural(info.broken, 'broken input')} ({reasons}); `zerovl validate` lists each in "
                f"{report / BROKEN_CSV}"
            )
