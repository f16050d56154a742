"""Where a release comes from: code, parameters, data, machine, and by whom."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from zerovl.files import read_json, sha256_file
from zerovl.release.record import experiment_name

RUN_VARIABLE = "ZEROVL_RUN"

_PACKAGES = ("torch", "torchvision", "timm", "transformers", "webdataset", "numpy")
_OF_A_SET = ("digest", "templates", "linear_probe", "paper_probe", "paper_probe_augmented")  # kept of its details


@dataclass(frozen=True)
class Source:
    """The commit that a release is made from (see `git_state`), and the experiment of DVC, where it is one."""

    git: dict[str, Any] | None
    experiment: str = ""

    @classmethod
    def of_checkout(cls, root: Path) -> Source:
        """Return the source of a checkout as it is."""
        return cls(git_state(root), experiment_name())


def gather(root: Path, params: dict[str, Any], manifest: dict[str, Any], source: Source) -> dict[str, Any]:
    """Return what is needed to make the release again, as JSON.

    Args:
        root: the checkout, or what was fetched of a revision.
        params: all sections, by the names of `params.yaml`.
        manifest: `data/manifest/manifest.json`.
        source: where `root` comes from.
    """
    lock = root / "dvc.lock"
    return {
        "git": source.git,
        **({"experiment": source.experiment} if source.experiment else {}),
        "dvc_lock": sha256_file(lock) if lock.is_file() else None,
        "data_manifest": manifest.get("digest"),
        "params": params,
        "environment": environment(),
    }


def git_state(root: Path) -> dict[str, Any] | None:
    """Return the commit, and whether files differ from it (not `dvc.lock`, which a run writes); None without git."""
    commit = _output(["git", "-C", str(root), "rev-parse", "HEAD"])
    if not commit:
        return None
    changes = _output(["git", "-C", str(root), "status", "--porcelain", "--", ".", ":(exclude,glob)**/dvc.lock"])
    return {"commit": commit, "dirty": bool(changes)}


def why_not_again(origin: Mapping[str, Any]) -> str:
    """Return why a release of this provenance cannot be made again, to follow its name; "" where it can."""
    state = origin.get("git") or {}
    if not state.get("commit"):
        return "was made outside git: nobody knows of which code"
    if state.get("dirty"):
        return (
            f"was made with files that differ from commit {state['commit'][:12]}; only a release of a committed state "
            "can be made again: commit before `dvc repro` (each run of a flow commits first)"
        )
    return ""


def environment() -> dict[str, Any]:
    """Return the versions of what computes the numbers, and the machine that registers."""
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "gpus": gpu_names(),
    }


def gpu_names() -> list[str]:
    """Return the GPUs as the driver names them; empty without a driver. No torch: it takes seconds to import."""
    return _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]).splitlines()


def who() -> str:
    """Return who acts, for the history: the run that `ZEROVL_RUN` names, else git's user, else the login name."""
    if run := os.environ.get(RUN_VARIABLE):
        return run
    if name := _output(["git", "config", "user.name"]):
        address = _output(["git", "config", "user.email"])
        return f"{name} <{address}>" if address else name
    return _account()


def who_and_where() -> str:
    """Return who moves an alias by hand: as `who`, and user and host, which neither a run nor git's settings tell."""
    name, account = who(), _account()
    return name if name == account else f"{name} ({account})"


def report(path: Path) -> dict[str, Any]:
    """Return what a stage reported as JSON; empty where it did not, or not as a mapping."""
    values = read_json(path) if path.is_file() else {}
    return values if isinstance(values, dict) else {}


def classification_sets(path: Path) -> dict[str, Any]:
    """Return digest of each set that was classified, and how, by name, from the evaluation's `details.json`."""
    return {
        name: {key: its[key] for key in _OF_A_SET if key in its}
        for name, its in report(path).items()
        if isinstance(its, dict) and "digest" in its
    }


def _account() -> str:
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}@{platform.node()}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()  # not Linux
    return platform.processor() or platform.machine()


def _output(command: list[str]) -> str:
    """What a program prints; empty where it is missing, fails or hangs."""
    if not shutil.which(command[0]):
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
