"""Cores are those that this process may use, whatever the machine has."""

import os
from pathlib import Path

import pytest

from zerovl import cores

NAMED = 16  # by the affinity


@pytest.fixture(autouse=True)
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(NAMED)))
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "_OWN_GROUPS", tmp_path / "own")
    return tmp_path


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/pod/job", {"pod/job/cpu.max": "250000 100000"}, 3),
        ("0::/pod/job", {"pod/job/cpu.max": "max 100000"}, NAMED),
        ("0::/pod/job", {"pod/job/cpu.max": "max 100000", "pod/cpu.max": "800000 100000"}, 8),
        ("0::/pod/job", {"pod/job/cpu.max": "6400000 100000"}, NAMED),
        ("0::/", {"cpu.max": "10000 100000"}, 1),
        ("0::/../../pod/job", {"cpu.max": "400000 100000"}, 4),  # as seen from inside of a container
        ("4:memory:/job\n2:cpu,cpuacct:/job", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "50000"}, 4),
        ("2:cpu,cpuacct:/job", {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, NAMED),
        ("0::/", {}, NAMED),
        ("0::/", {"cpu.max": "what is this"}, NAMED),
        ("", {}, NAMED),
    ],
)
def test_a_quota_bounds_them(groups: Path, own: str, files: dict[str, str], expected: int) -> None:
    (groups / "own").write_text(own)
    for name, text in files.items():
        path = groups / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert cores.core_count() == expected


def test_without_control_groups_the_affinity_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores.core_count() == NAMED
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores.core_count() == 7
