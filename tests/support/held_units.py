"""Units whose packing stops in the middle, with half of a shard written, until someone lets it go on."""

import os
from pathlib import Path
from unittest import mock

from zerovl.data.raw.kept_units import KeptUnits
from zerovl.data.raw.pack import Packed, Unit
from zerovl.data.shard_writing import Members, ShardWriter

PIPE = "hold"  # in the folder that the shards lie in


class HeldUnits(KeptUnits):
    """Packs as its base does, in any process, but the second shard of each split stops after its first sample."""

    def pack(self, unit: Unit, shards: str | None = None) -> Packed:
        add, pipe = ShardWriter.add, Path(os.path.dirname(unit.shards), PIPE)

        def add_and_stop(writer: ShardWriter, members: Members) -> tuple[int, int]:
            start, size = add(writer, members)
            if start == 0 and pipe.is_fifo():
                pipe.read_bytes()
            return start, size

        if unit.number != 1:
            return super().pack(unit, shards)
        with mock.patch.object(ShardWriter, "add", add_and_stop):
            return super().pack(unit, shards)
