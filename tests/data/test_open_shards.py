"""Where shards are read, by what params.yaml says."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerovl.data.open_shards import shard_root
from zerovl.errors import ZeroVLError
from zerovl.params import MachineParams
from zerovl.workspace import Workspace


def test_a_copy_that_is_not_there_is_told_by_its_key(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert shard_root(MachineParams(), workspace) == str(workspace.shards)
    assert shard_root(MachineParams(shards=str(tmp_path)), workspace) == str(tmp_path)
    assert shard_root(MachineParams(shards="s3://bucket/copy/"), workspace) == "s3://bucket/copy"
    for wrong in (f"{tmp_path}/none", "s3:/bucket/copy"):
        with pytest.raises(ZeroVLError, match=rf"^machine\.shards: {wrong}: no such folder; .* s3://bucket/prefix"):
            shard_root(MachineParams(shards=wrong), workspace)
