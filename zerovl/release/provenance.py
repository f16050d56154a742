"""Where a release comes from: code, parameters, data, machine, and by whom."""

from __future__ import annotations

import getpass
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from zerovl import code_closure
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
    def of_checkout(cls, root: Path, params: Mapping[str, Any]) -> Source:
        """Return the source of a checkout as it is; `params` are all sections, by the names of `params.yaml`."""
        return cls(git_state(root, params), experiment_name())


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


def git_state(root: Path, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the commit, and whether something that a stage reads differs from it; None without git.

    That is the modules that the stages import, params.yaml, dvc.yaml, DVC's `.dvc` files, and what params.yaml names.
    A note, a page of docs/ or an editor's file is in no release, and `dvc.lock` is written by a run.

    Args:
        params: all sections, by the names of `params.yaml`.
    """
    commit = _output(["git", "-C", str(root), "rev-parse", "HEAD"])
    if not commit:
        return None
    named = (f":(literal){path}" for path in _named(root, params))
    told = _differing(root, ["params.yaml", "dvc.yaml", "*.dvc", *named])
    code = _differing(root, [code_closure.PACKAGE.name])
    return {"commit": commit, "dirty": bool(told) or any(_is_run(root, path) for path in code)}


def _differing(root: Path, paths: Sequence[str]) -> list[str]:
    """Return files, relative to `root`, that differ from the commit or that it lacks; what git ignores is left out.

    Where git does not answer, `root` itself: nobody knows then.
    """
    found: list[str] = []
    for words in (
        ("diff", "--name-only", "--no-renames", "--no-ext-diff", "--relative", "-z", "HEAD"),
        ("ls-files", "--others", "--exclude-standard", "-z"),
    ):
        answer = _answer(["git", "-C", str(root), *words, "--", *paths])
        found += ["."] if answer is None else answer.split("\0")[:-1]
    return found


def _is_run(root: Path, path: str) -> bool:
    """Return whether a stage runs a file of the package; yes where nobody can say.

    That is so for a file that is gone, and for a package that is not the one in use.
    """
    file = root / path
    if root.resolve() != code_closure.PACKAGE.parent or not file.is_file():
        return True
    return file.resolve() in code_closure.files()


def _named(root: Path, params: Mapping[str, Any]) -> Iterator[str]:
    """Give the files and folders below `root` that the parameters name, for a pattern the folder that it begins with.

    Not those of `register` and `machine`: where a release goes, and where the work is done, shapes none.
    """
    top = root.resolve()
    for text in _texts([value for name, value in params.items() if name not in ("register", "machine")]):
        fixed = re.split(r"[*?{\[]", text)[0]
        path = (top / (fixed if fixed == text else os.path.dirname(fixed))).resolve()
        if top in path.parents and os.path.exists(path):
            yield path.relative_to(top).as_posix()


def _texts(value: Any) -> Iterator[str]:
    """Give all texts in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for its in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(its)


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
    return (_answer(command) or "").strip()


def _answer(command: list[str]) -> str | None:
    """What a program prints, to the byte; None where it is missing, fails or hangs."""
    if not shutil.which(command[0]):
        return None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="surrogateescape", timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None
