"""What memory is free: the host's, within the limits of a container, shared by the ranks of a node."""

from pathlib import Path

import pytest
import torch

from zerovl import memory

GIB = 1 << 30


def write_group(folder: Path, limit: str, used: int, cached: int, version: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    limit_name, use_name = (
        ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / use_name).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_respects_the_container(tmp_path: Path, version: int) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   16777216 kB\n")
    assert memory.free_host_memory(tmp_path) == 16 * GIB
    line, mount = ("4:cpu,memory:/a/b", "sys/fs/cgroup/memory") if version == 1 else ("0::/a/b", "sys/fs/cgroup")
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"9:pids:/x\n{line}\n")
    write_group(tmp_path / mount / "a" / "b", "max" if version == 2 else str(2**63 - 4096), GIB, 0, version)
    assert memory.free_host_memory(tmp_path) == 16 * GIB
    write_group(tmp_path / mount / "a", str(4 * GIB), 2 * GIB, GIB, version)
    assert memory.free_host_memory(tmp_path) == 3 * GIB
    write_group(tmp_path / mount, str(3 * GIB), 3 * GIB, 0, version)  # the mount itself, as a container sees it
    assert memory.free_host_memory(tmp_path) == 0


def test_local_ranks_share_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_host_memory", lambda: 8 * GIB)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.free_memory(torch.device("cpu")) == 2 * GIB
