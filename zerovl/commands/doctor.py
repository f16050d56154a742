"""`zerovl doctor`: is this machine ready? One line a check: ok, note, or FAIL with the fix."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from zerovl.commands import machine_checks, params_checks
from zerovl.commands.finding import Check, Finding, first_line
from zerovl.errors import ZeroVLError
from zerovl.workspace import Workspace


def run(params_path: Path) -> int:
    """Print all findings as they come; returns 1 if one is FAIL, else 0.

    The parameters come first: a misspelt key is told at once, and what takes seconds to import, or is named by them,
    is looked at only once they are right. A check that breaks is a FAIL, not a crash.
    """
    # Imports happen inside the checks: a missing package is a finding too.
    cheap: list[tuple[str, Check]] = [
        ("python", machine_checks.check_python),
        ("params", lambda: params_checks.check_params(params_path)),
        ("disk", lambda: machine_checks.check_disk(Path.cwd())),
        ("tools", machine_checks.check_tools),
        ("leases", machine_checks.check_leases),
        ("cache", lambda: machine_checks.check_dvc(Path.cwd())),
        ("prefect", lambda: machine_checks.check_prefect(os.environ.get("PREFECT_API_URL", ""))),
    ]
    later: list[tuple[str, Check]] = [
        ("inputs", lambda: params_checks.check_inputs(params_path, Workspace())),
        ("gate", lambda: params_checks.check_gate(params_path, Workspace())),
        ("store", lambda: params_checks.check_store(params_checks.store_of(params_path))),
        ("copies", lambda: params_checks.check_copies(params_path)),
        ("shards", lambda: params_checks.check_shard_cache(params_path)),
        ("torch", machine_checks.check_torch),
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


def _guarded(subject: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except ZeroVLError as error:
        yield Finding("FAIL", subject, str(error))
    except Exception as error:  # whatever is broken here, the other checks are wanted
        yield Finding("FAIL", subject, f"the check itself failed: {type(error).__name__}: {first_line(error)}")
