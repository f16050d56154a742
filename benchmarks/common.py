"""What the benchmarks share: interleaved timing, the machine's description, peak memory, result files."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import random
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from zerovl.files import read_json, sha256_file, sha256_json, write_json

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
GIB, MIB = 1 << 30, 1 << 20
_PACKAGES = ("torch", "triton", "timm", "transformers", "numpy", "open-clip-torch", "inf-cl")
_CODE = ("benchmarks", "zerovl/model", "zerovl/objective", "zerovl/engine")  # what a figure depends on
_HEAD = ("date", "machine", "code", "settings")  # of a result file; the rest are its sections

Record = dict[str, Any]
Found = TypeVar("Found")


class NotMeasured(Exception):  # noqa: N818, no error: a figure that this machine cannot give
    """Carries the reason, which the page shows in place of the figure."""


def measured(function: Callable[[], Record]) -> Record:
    """The record, or why there is none: a missing peer, too little memory or an error leaves the other figures."""
    try:
        return function()
    except NotMeasured as reason:
        return {"not_measured": str(reason)}
    except Exception as error:
        return failure(error)


def failure(error: Exception) -> Record:
    """Too little memory is a figure of this machine; anything else is marked, and its traceback is shown."""
    from zerovl.memory import is_out_of_memory  # here: it imports torch, which this module does without

    if is_out_of_memory(error):
        return {"not_measured": "out of memory"}
    traceback.print_exception(error)
    return {"not_measured": ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]]), "failed": True}


def find_all(finders: Mapping[str, Callable[[], Found]]) -> tuple[dict[str, Found], dict[str, Record]]:
    """What this machine has, and of the rest why it has not."""
    found: dict[str, Found] = {}
    missing: dict[str, Record] = {}
    for name, find in finders.items():
        try:
            found[name] = find()
        except NotMeasured as reason:
            missing[name] = {"not_measured": str(reason)}
        except Exception as error:
            missing[name] = failure(error)
    return found, missing


def interleaved(
    variants: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float], warm_ups: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call, round by round: each variant once a round, in a newly drawn order.

    So a machine that slows down slows all of them, and none always runs after the same neighbour, whose
    freed memory can make the next call dearer or cheaper.
    """
    names = list(variants)
    for name in names:
        for _ in range(warm_ups):
            variants[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    frozen = gc.get_freeze_count() > 0  # by the process, as that of the tests: that stays so
    gc.collect()
    if not frozen:
        gc.freeze()  # what is there now is not searched again and again
    try:
        for number in range(rounds):
            for name in random.Random(number).sample(names, len(names)):
                gc.collect()
                start = clock()
                variants[name]()
                seconds[name].append(clock() - start)
    finally:
        if not frozen:
            gc.unfreeze()
    return seconds


def surviving(
    variants: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float], warm_ups: int = 1
) -> tuple[dict[str, list[float]], dict[str, Record]]:
    """As `interleaved`, of the variants that do not fail, and the records of those that do.

    After a failure the rounds begin again without the one that failed, so that the others were timed alike.
    """
    left, failed = dict(variants), dict[str, Record]()
    while left:
        try:
            guarded = {name: partial(_call, name, variant) for name, variant in left.items()}
            return interleaved(guarded, rounds, clock, warm_ups), failed
        except _VariantFailed as end:
            failed[end.name] = end.record
            del left[end.name]
    return {}, failed


class _VariantFailed(Exception):  # noqa: N818, says which one
    def __init__(self, name: str, record: Record) -> None:
        super().__init__(name)
        self.name, self.record = name, record


def _call(name: str, variant: Callable[[], object]) -> None:
    try:
        variant()
        return
    except Exception as error:
        record = failure(error)
    raise _VariantFailed(name, record)  # out here: the error is gone, and with its frames the tensors in them


def summary(seconds: list[float], baseline: list[float] | None = None) -> Record:
    """Median and range of one variant, and its ratio to the baseline: the median of the ratios round by round."""
    record: Record = {
        "seconds": rounded(median(seconds)),
        "fastest": rounded(min(seconds)),
        "slowest": rounded(max(seconds)),
    }
    if baseline:
        ratios = [own / other for own, other in zip(seconds, baseline, strict=True)]
        record |= {
            "ratio": rounded(median(ratios)),
            "lowest_ratio": rounded(min(ratios)),
            "highest_ratio": rounded(max(ratios)),
        }
    return record


def rounded(value: float) -> float:
    """Five significant digits: what a timing can bear, and readable in a diff."""
    return float(f"{value:.5g}")


def peak_resident() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let `peak_resident` begin again, where the kernel allows it; else an earlier peak stays, which never flatters."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def resident() -> int:
    """Resident memory of this process now, in bytes."""
    return _status("VmRSS")


def _status(field: str) -> int:
    """Not getrusage: its peak is inherited from the parent and can be that of another program."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        raise NotMeasured("peak memory is read from /proc, which only Linux has") from None
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise NotMeasured(f"/proc/self/status has no {field}")
    return int(found[1]) * 1024


def machine() -> Record:
    """Processor, memory, GPU and versions; no names of hosts and no paths."""
    import torch

    found: Record = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "gpu_memory_gib": round(properties.total_memory / GIB),
            "cuda": torch.version.cuda,
        }
    return found


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    family = re.findall(r"^(?:cpu family|model)\s*:\s*(\d+)$", text, re.MULTILINE)[:2]
    return f"{names[0]} (family {family[0]}, model {family[1]})" if names and len(family) == 2 else platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def zerovl(work: Path, *words: str, environment: Mapping[str, str]) -> str:
    """Run a command in a folder as one types it; returns what it printed, or ends the program with what it said."""
    command = [sys.executable, "-m", "zerovl.cli", *words]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"zerovl {' '.join(words)} failed in {work}:\n{done.stdout}\n{done.stderr[-2000:]}")
    return done.stdout


def zerovl_to_log(work: Path, command: str, environment: Mapping[str, str]) -> None:
    """Run a long command in a folder, all it says in `COMMAND.log`; a failure ends the program with its last words."""
    log = work / f"{command}.log"
    with open(log, "w", encoding="utf-8") as file:
        words = [sys.executable, "-m", "zerovl.cli", command]
        done = subprocess.run(words, cwd=work, env=environment, stdout=file, stderr=file, check=False)
    if done.returncode:
        raise SystemExit(f"zerovl {command} failed in {work}:\n{log.read_text(encoding='utf-8')[-2000:]}")


def code_digest() -> str:
    """Of the code that the figures depend on, so that figures of different code are not taken for one run."""
    files = sorted(path for folder in _CODE for path in (HERE.parent / folder).glob("*.py"))
    return sha256_json({str(path.relative_to(HERE.parent)): sha256_file(path) for path in files})[:16]


class Results:
    """A result file, written again after each record: a run that is cut off leaves what it had."""

    def __init__(self, file: Path, settings: Record) -> None:
        self.file = file
        self.content: Record = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "machine": machine(),
            "code": code_digest(),
            "settings": json.loads(json.dumps(settings)),  # as the file will give them back: lists for tuples
        }

    def resume(self) -> None:
        """Take up what the file holds already, but for what failed, where machine, code and settings are the same."""
        if not self.file.is_file():
            return
        before: Record = read_json(self.file)
        if any(before.get(key) != self.content[key] for key in ("machine", "code", "settings")):
            return
        sections = {key: _good(records) for key, records in before.items() if key not in _HEAD}
        self.content = {key: before[key] for key in _HEAD} | {key: own for key, own in sections.items() if own}

    def has(self, section: str, name: str) -> bool:
        return name in self.content.get(section, {})

    def add(self, section: str, name: str, record: Record) -> Record:
        self.content.setdefault(section, {})[name] = record
        write_json(self.file, self.content)
        shown = ", ".join(f"{key} {value}" for key, value in record.items() if not isinstance(value, (list, dict)))
        print(f"{section}: {name}: {shown}", flush=True)
        return record

    def status(self) -> int:
        """The exit status of a benchmark: 1, and a line for each, where entries failed."""
        failed = [
            f"{section}: {name}: {record['not_measured']}"
            for section, records in self.content.items()
            if section not in _HEAD
            for name, record in records.items()
            if record.get("failed")
        ]
        for line in failed:
            print(f"failed: {line}", file=sys.stderr)
        return 1 if failed else 0


def _good(records: dict[str, Record]) -> dict[str, Record]:
    return {name: record for name, record in records.items() if not record.get("failed")}
