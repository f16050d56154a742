"""`zerovl doctor`: is this machine ready? One line a check: ok, note, or FAIL with the fix."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from zerovl import gpu_leases, gpu_names
from zerovl.errors import ZeroVLError
from zerovl.shared_folder import denied
from zerovl.text_format import plural
from zerovl.workspace import Workspace

_OLDEST_PYTHON, _NEXT_PYTHON = (3, 11), (3, 14)
_OLDEST_TORCH = (2, 11)
_LOW_DISK_GB = 20.0


@dataclass(frozen=True)
class Finding:
    """What one check came to, in a line."""

    level: str  # ok | note | FAIL
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:<5} {self.subject:<12} {self.text}"


Check = Callable[[], Iterator[Finding]]


def run(params_path: Path) -> int:
    """Print all findings as they come; returns 1 if one is FAIL, else 0.

    The parameters come first: a misspelt key is told at once, and what takes seconds to import, or is named by them,
    is looked at only once they are right. A check that breaks is a FAIL, not a crash.
    """
    # Imports happen inside the checks: a missing package is a finding too.
    cheap: list[tuple[str, Check]] = [
        ("python", check_python),
        ("params", lambda: check_params(params_path)),
        ("disk", lambda: check_disk(Path.cwd())),
        ("tools", check_tools),
        ("leases", check_leases),
        ("cache", lambda: check_dvc(Path.cwd())),
        ("prefect", lambda: check_prefect(os.environ.get("PREFECT_API_URL", ""))),
    ]
    later: list[tuple[str, Check]] = [
        ("inputs", lambda: check_inputs(params_path, Workspace())),
        ("gate", lambda: check_gate(params_path, Workspace())),
        ("store", lambda: check_store(store_of(params_path))),
        ("copies", lambda: check_copies(params_path)),
        ("shards", lambda: check_shard_cache(params_path)),
        ("torch", check_torch),
    ]
    failed = [finding.subject for subject, check in cheap for finding in _told(subject, check)]
    for subject, check in later:
        if "params" in failed:
            print(Finding("note", subject, f"not looked at: fix {params_path} first, then run it again"))
        else:
            failed += [finding.subject for finding in _told(subject, check)]
    print(f"{len(failed)} to fix" if failed else "no problems found")
    return 1 if failed else 0


def _told(subject: str, check: Check) -> Iterator[Finding]:
    """Print the findings of a check as they come, and give those that are FAIL."""
    for finding in _guarded(subject, check):
        print(finding, flush=True)
        if finding.level == "FAIL":
            yield finding


def check_python() -> Iterator[Finding]:
    """Look whether this Python is one that is tested."""
    version, found = platform.python_version(), sys.version_info[:2]
    if _OLDEST_PYTHON <= found < _NEXT_PYTHON:
        yield Finding("ok", "python", version)
    else:
        yield Finding("FAIL", "python", f"{version}; use 3.11, 3.12 or 3.13")


def check_torch() -> Iterator[Finding]:
    """Look at torch, the torchvision built for it, and the GPUs that it sees."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library is missing
        yield Finding("FAIL", "torch", f"cannot be imported ({_first_line(error)}); run `make setup`")
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if release < _OLDEST_TORCH:
        yield Finding("FAIL", "torch", f"{torch.__version__}; 2.11 or newer is needed, run `make setup`")
    else:
        yield Finding("ok", "torch", f"{torch.__version__} ({build})")
    try:
        import torchvision

        yield Finding("ok", "torchvision", torchvision.__version__)
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: built for another torch
        fix = "install the torchvision that was built for this torch, `make setup`"
        yield Finding("FAIL", "torchvision", f"cannot be imported ({_first_line(error)}); {fix}")
    yield from _check_gpus()


def _check_gpus() -> Iterator[Finding]:
    """Name the GPUs that training would use; a ZEROVL_DEVICE that it would refuse is to be fixed."""
    import torch

    from zerovl.device import VARIABLE, gpu_count

    try:
        gpus = gpu_count()
    except ZeroVLError as error:
        yield Finding("FAIL", "gpu", str(error))
        return
    if not gpus:
        text = "none; training runs on the CPU, fit for the demo and small sources"
        if os.environ.get(VARIABLE) == "cpu":
            text = f"{VARIABLE} is cpu: training runs on the CPU, whatever this machine has"
        elif shutil.which("nvidia-smi"):
            text = "torch sees none although nvidia-smi is there; check the driver and CUDA_VISIBLE_DEVICES"
        yield Finding("note", "gpu", text)
        return
    for index in range(gpus):
        properties = torch.cuda.get_device_properties(index)
        yield Finding("ok", "gpu", f"{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")


def check_leases() -> Iterator[Finding]:
    """Say who has which GPU, and who waits; on a machine without, who has the CPU, where anybody has."""
    there = gpu_names.visible()
    found = gpu_leases.look(there.names or gpu_leases.CPU)
    if there.names:
        parts = len(there.names) > there.usable  # MIG devices, each with a lease of its own
        all_of_them = plural(len(there.names), "MIG device") + ", of which a process sees one," if parts else str(there)
        yield Finding("ok", "leases", f"{found.free} of {all_of_them} free; {found}")
    elif not found.free:
        yield Finding("ok", "leases", str(found))


def check_disk(folder: Path) -> Iterator[Finding]:
    """Look how much room is left where `folder` is."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < _LOW_DISK_GB:
        yield Finding("note", "disk", f"{free:.1f} GB free in {folder}; shards and checkpoints may need more")
    else:
        yield Finding("ok", "disk", f"{free:.0f} GB free in {folder}")


def check_dvc(project: Path) -> Iterator[Finding]:
    """Look whether DVC can lock the checkout, and whether its folders that a group is to share are open to it."""
    if (project / ".dvc").is_dir() and _installed("dvc"):
        from zerovl.commands import dvc_cache, dvc_locks

        yield from (Finding(level, "locks", text) for level, text in dvc_locks.findings(project))
        yield from (Finding(level, "cache", text) for level, text in dvc_cache.findings(project))


def check_params(path: Path) -> Iterator[Finding]:
    """Read the parameters and check every key."""
    try:
        from zerovl import params_file
    except ImportError as error:
        yield Finding("FAIL", "packages", f"cannot be imported ({_first_line(error)}); run `make setup`")
        return
    try:
        params_file.load(path)
    except ZeroVLError as error:
        yield Finding("FAIL", "params", str(error))
        return
    yield Finding("ok", "params", f"{path} is valid")


def check_tools() -> Iterator[Finding]:
    """Look for git and DVC: without them single stages run, `dvc repro` does not."""
    for command, fix in (("git", "install git"), ("dvc", "run `make setup`, or add .venv/bin to PATH")):
        # `python -m` and the scripts of a venv work without it being activated.
        place = shutil.which(command) or shutil.which(command, path=str(Path(sys.executable).parent))
        if not place:
            yield Finding("FAIL", command, f"not found; {fix}")
        elif command == "dvc":
            yield Finding("ok", command, metadata.version("dvc") if _installed("dvc") else place)
        else:
            done = subprocess.run([place, "--version"], capture_output=True, text=True, timeout=20, check=False)
            yield Finding("ok", command, done.stdout.strip().removeprefix("git version "))


def store_of(params_path: Path) -> str:
    """Return the store that `zerovl register` uses, where the parameters say it; else that of `zerovl.load`."""
    from zerovl import params_file
    from zerovl.registry import fetch

    try:
        return params_file.load(params_path).register_.store
    except ZeroVLError:
        return fetch.default_store()  # another check has said what is wrong with them


def check_inputs(params_path: Path, workspace: Workspace) -> Iterator[Finding]:
    """Look whether the sources and the towers that the parameters name are there; nothing to say where they are."""
    from zerovl import params_file
    from zerovl.commands.missing_inputs import missing_inputs

    for problem in missing_inputs(params_file.load(params_path), workspace.root):
        yield Finding("FAIL", "inputs", problem)


def check_gate(params_path: Path, workspace: Workspace) -> Iterator[Finding]:
    """Look whether the data have the sources that the gate names; nothing to say before there is a manifest."""
    if not workspace.manifest_file.is_file():
        return
    from zerovl import params_file
    from zerovl.data.manifest import Manifest
    from zerovl.evaluation.gate_sources import gate_problem

    problem = gate_problem(params_file.load(params_path).register_.gate, Manifest.load(workspace.manifest))
    yield Finding("FAIL" if problem else "ok", "gate", problem or "names sources that the data have")


def check_store(uri: str) -> Iterator[Finding]:
    """Write a probe to the store, try to write it again, and remove it."""
    from zerovl.registry.stores import open_store

    try:
        store = open_store(uri)
        if "://" not in uri and not Path(uri).expanduser().exists():
            yield Finding("note", "store", f"{store.describe()} is not there yet; `zerovl register` makes it")
            return
        text = f"{store.describe()} {store.check()}"
    except PermissionError as error:
        yield Finding("FAIL", "store", f"{uri}: you may not look into it: {denied(error, Path(uri))}")
        return
    except ZeroVLError as error:
        yield Finding("FAIL", "store", str(error))
        return
    yield Finding("note" if "ignored" in text else "ok", "store", text)


def check_copies(params_path: Path) -> Iterator[Finding]:
    """Write a probe where checkpoints are copied to, and remove it; nothing to say where they are not."""
    from zerovl import params_file, s3, s3_files

    place = params_file.load(params_path).machine.checkpoint_copy
    if not place:
        return
    try:
        problem = s3_files.try_writing(place, s3.HURRIED)
    except ZeroVLError as error:
        yield Finding("FAIL", "copies", str(error))
        return
    if problem:
        yield Finding("note", "copies", f"{place} can be written; old copies of checkpoints will stay there: {problem}")
        return
    yield Finding("ok", "copies", f"{place} can be written and cleared: checkpoints are copied there")


def check_shard_cache(params_path: Path) -> Iterator[Finding]:
    """Look at the node's cache of shards; nothing to say where nothing is read through it."""
    from zerovl import params_file
    from zerovl.commands import node_cache

    yield from (Finding(level, "shards", text) for level, text in node_cache.findings(params_file.load(params_path)))


def check_prefect(url: str) -> Iterator[Finding]:
    """Ask the Prefect server, if one is named, whether it is well."""
    if not url:
        yield Finding("note", "prefect", "PREFECT_API_URL is not set; flows run without a server")
        return
    address = f"{url.rstrip('/')}/health"
    if not address.startswith(("http://", "https://")):
        yield Finding("FAIL", "prefect", f"PREFECT_API_URL={url} is not an address; it looks like http://HOST:4200/api")
        return
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            answer.read()
    except (urllib.error.URLError, OSError, ValueError) as error:
        fix = "start the server with `prefect server start`, or correct PREFECT_API_URL"
        yield Finding("FAIL", "prefect", f"no answer from {address} ({error}); {fix}")
        return
    yield Finding("ok", "prefect", f"{address} answers")


def _guarded(subject: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except ZeroVLError as error:
        yield Finding("FAIL", subject, str(error))
    except Exception as error:  # whatever is broken here, the other checks are wanted
        yield Finding("FAIL", subject, f"the check itself failed: {type(error).__name__}: {_first_line(error)}")


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]
