"""What `zerovl doctor` looks at whatever the parameters say: Python, torch, GPUs, disk, tools, DVC, the server."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from zerovl import gpu_leases, gpu_names
from zerovl.commands.finding import Finding, first_line
from zerovl.errors import ZeroVLError
from zerovl.text_format import plural

_OLDEST_PYTHON, _NEXT_PYTHON = (3, 11), (3, 14)
_OLDEST_TORCH = (2, 11)
_LOW_DISK_GB = 20.0


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
        yield Finding("FAIL", "torch", f"cannot be imported ({first_line(error)}); run `make setup`")
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
        yield Finding("FAIL", "torchvision", f"cannot be imported ({first_line(error)}); {fix}")
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


def check_dvc(project: Path) -> Iterator[Finding]:
    """Look whether DVC can lock the checkout, and whether its folders that a group is to share are open to it."""
    if (project / ".dvc").is_dir() and _installed("dvc"):
        from zerovl.commands import dvc_cache, dvc_locks

        yield from (Finding(level, "locks", text) for level, text in dvc_locks.findings(project))
        yield from (Finding(level, "cache", text) for level, text in dvc_cache.findings(project))


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


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
