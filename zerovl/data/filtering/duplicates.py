"""Pictures that are there already: of equal ones, or of alike ones, the first stays.

Equal are pictures of equal bytes (sha256). Alike are those whose 64-bit perceptual hashes differ in few bits; one is
left out where one that stays is that near, so that no two that stay are near each other.

In memory there are one bucket (`zerovl.data.bucket_files`) and the near pairs: some 100 bytes for each two distinct
hashes that are near. On disk each picture takes 24 bytes for equal ones, and for alike ones 32 and another 24 for each
part of the hash.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from zerovl.data.bucket_files import BucketFiles
from zerovl.data.filtering.disk_arrays import disk_array
from zerovl.data.filtering.fates import SAME_BYTES, Fates
from zerovl.data.filtering.near_pairs import (
    ALL_BITS,
    Places,
    Words,
    masked,
    pairs_in_groups,
    parts_of,
    unique_pairs,
)
from zerovl.data.filtering.usable_rows import Numbers, UsableRows


def leave_out_equal(rows: UsableRows, fates: Fates, scratch: Path) -> None:
    """Leave out pictures with the bytes of an earlier one."""
    with BucketFiles(scratch, "digests", rows.samples) as files:
        for numbers, batch in rows.batches(["sha256"]):
            stays = fates.stays(numbers)
            files.add_strings(batch.column("sha256").filter(stays).to_pylist(), numbers[stays])
        for group, numbers in files.groups():
            later, first = _later(group, numbers)
            fates.leave_out("duplicates", later, first, np.full(len(later), SAME_BYTES, np.uint8))


def leave_out_alike(rows: UsableRows, fates: Fates, scratch: Path, distance: int) -> None:
    """Leave out pictures within `distance` bits of the perceptual hash of an earlier one that stays."""
    hashes: Words = disk_array(scratch / "hashes", np.uint64, rows.samples)  # (N,)
    with ExitStack() as stack:
        same = stack.enter_context(BucketFiles(scratch, "same-hash", rows.samples))
        for numbers, batch in rows.batches(["phash"]):
            hashes[numbers] = batch.column("phash").to_numpy(zero_copy_only=False)
            stays = numbers[fates.stays(numbers)]
            same.add_integers(hashes[stays].view(np.int64), 0, stays)
        parts = parts_of(ALL_BITS, distance)
        by_part = [stack.enter_context(BucketFiles(scratch, f"part-{n}", rows.samples)) for n in range(len(parts))]
        for group, numbers in same.groups():
            later, first = _later(group, numbers)
            fates.leave_out("duplicates", later, first, np.zeros(len(later), np.uint8))
            distinct = numbers[fates.stays(numbers)]
            for bits, files in zip(parts, by_part, strict=True):
                files.add_integers(masked(hashes[distinct], bits).view(np.int64), 0, distinct)
        found = [np.empty((0, 2), np.int64)]
        for bits, files in zip(parts, by_part, strict=True):
            rest = np.setdiff1d(ALL_BITS, bits)
            for group, numbers in files.groups():
                found += [numbers[pairs] for pairs in pairs_in_groups(hashes[numbers], group, rest, distance)]
    _keep_first(unique_pairs(np.concatenate(found)), hashes, fates)
    for numbers, _ in rows.batches([]):  # a picture whose twin went itself is like the one that stays instead of it
        twinned = numbers[fates.samples[numbers] > 0]
        twins = fates.twins[twinned]
        moved = fates.samples[twins] > 0
        again = twinned[moved]
        fates.twins[again] = fates.twins[twins[moved]]
        fates.apart[again] = np.bitwise_count(hashes[again] ^ hashes[fates.twins[again]])


def _later(group: Places, numbers: Numbers) -> tuple[Numbers, Numbers]:
    """Numbers of all but the first of each group, and the first of the group of each."""
    repeated = np.append(False, group[1:] == group[:-1])
    return numbers[repeated], numbers[~repeated][group[repeated]]


def _keep_first(pairs: Places, hashes: Words, fates: Fates) -> None:
    """Go through near pairs (p, 2) by their later picture: it is left out where its earlier one stays."""
    order = np.lexsort((pairs[:, 0], pairs[:, 1]))
    gone: dict[int, int] = {}  # picture -> the one that stays
    for earlier, later in pairs[order].tolist():
        if later not in gone and earlier not in gone:
            gone[later] = earlier
    left, twins = (np.fromiter(of, np.int64, len(gone)) for of in (gone.keys(), gone.values()))
    fates.leave_out("duplicates", left, twins, np.bitwise_count(hashes[left] ^ hashes[twins]))
