"""What README and docs show of the demo, of a plan, and of what a clean machine takes.

    python -m benchmarks.readme --work FOLDER    # runs the demo and a second training in FOLDER, keeps what they print
    python -m benchmarks.readme --plan           # plans the paper's recipe, keeps what that prints
    python -m benchmarks.readme --ci LOG         # keeps what the steps of `.ci/run` took, from what it printed
    python -m benchmarks.readme                  # writes the pages from the result files

Every place is known by what stands around it (`readme_places`); all else of a page is written by hand and stays.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, machine, zerovl
from benchmarks.readme_places import FILE, MINUTES, PLACES, PLAN, ROOT, render
from zerovl import params_file
from zerovl.evaluation.holder import holder_from
from zerovl.files import atomic_write, read_json, write_json

Run = Callable[..., str]  # a folder and the words of a command, to what it printed
SECOND = "train.lr=0.002"  # of the release that is compared with the demo's
_TABLE_LINES = 5  # of the comparison's scores, head included; there are many more
PLANNED = ("--gpus", "8", "--gpu-memory", "16GiB", "--pairs", "14200000")
_PLAN_LINES = ("target", "steps", "batch", "memory", "suggested")  # of a plan, and no others
_PLAN_WIDTH = 132  # where a line is cut
_STAGES = ("train", "evaluate", "register")


def write_pages() -> None:
    for place in PLACES:
        page = ROOT / place.page
        text = render(place, page.read_text(encoding="utf-8"))
        with atomic_write(page, "w") as file:
            file.write(text)


def measure(work: Path, run: Run, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Run the demo, then a second training, in a folder; returns what README and docs show of them.

    Args:
        work: a new folder.
        run: runs a command of `zerovl` there and returns what it printed.
        changes: of the demo's parameters, as KEY=VALUE; a test has a demo that takes seconds.
    """
    work.mkdir(parents=True)
    params_file.write(params_file.from_recipe({}, list(changes), "demo"), work / "params.yaml")
    for command in ("demo-data", "prepare", "validate", *_STAGES):
        run(work, command)
    summary = run(work, "summary").replace(work.resolve().as_uri(), "file:///...")
    rsum = read_json(work / "reports" / "evaluation" / "metrics.json")["mean"]["rsum"]
    params_file.write(params_file.from_recipe({}, [*changes, SECOND], "demo"), work / "params.yaml")
    for command in _STAGES:
        run(work, command)
    holder = holder_from(read_json(work / "reports" / "release.json")["verdict"])
    assert holder, "the first release has the alias"
    return {
        **_here(),
        "rsum": rsum,
        "summary": [line for line in summary.splitlines() if line.strip()],
        "compare": shortened(run(work, "compare", "zerovl@1", "zerovl@2").splitlines()),
        "holder": f"{holder.alias} was {holder}",
    }


def plan() -> str:
    """Return what the plan of the paper's recipe says first; no data, no weights and no GPU is needed for it."""
    with tempfile.TemporaryDirectory() as work:
        _zerovl(Path(work), "recipe", str(ROOT / "recipes" / "zerovl-14m.yaml"))
        return shortened_plan(_zerovl(Path(work), "plan", *PLANNED))


def shortened_plan(printed: str) -> str:
    """Return the lines of a plan that the page has, long ones cut after a comma."""
    lines = [line for line in printed.splitlines() if line.split(" ")[2:3] and line.split()[0] in _PLAN_LINES]
    cut = [line if len(line) <= _PLAN_WIDTH else f"{line[:_PLAN_WIDTH].rpartition(',')[0]}, ..." for line in lines]
    return "".join(f"{line}\n" for line in cut)


def step_seconds(log: str) -> dict[str, int]:
    """Return what each step of `.ci/run` took, by its name; raises `ValueError` where it did not come to its end."""
    begun = [(name, int(second)) for name, second in re.findall(r"^== (.+) \((\d+) s\)$", log, re.MULTILINE)]
    if not begun or begun[-1][0] != "done":
        raise ValueError("the log of .ci/run has no last line `== done`: it did not pass; take one that did")
    return {name: end - start for (name, start), (_, end) in pairwise(begun)}


def shortened(lines: list[str]) -> list[str]:
    """Return a comparison with the first scores alone; the tables of its parts stand apart by blank lines."""
    first = next(number for number, line in enumerate(lines) if line.startswith("SCORE"))
    end = next((number for number, line in enumerate(lines) if number > first and not line.strip()), len(lines))
    cut = lines[first : min(end, first + _TABLE_LINES)]
    return [*lines[:first], *cut, *(["..."] if end > first + _TABLE_LINES else []), *lines[end:]]


def _zerovl(work: Path, *words: str) -> str:
    """Run a command as on a machine with no settings of its own; returns what it printed."""
    left_out = ("ZEROVL_STORE", "OMP_NUM_THREADS")
    return zerovl(work, *words, environment={key: value for key, value in os.environ.items() if key not in left_out})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="a new folder: run the demo there first")
    parser.add_argument("--plan", action="store_true", help="plan the paper's recipe first")
    parser.add_argument("--ci", type=Path, metavar="LOG", help="what .ci/run printed on this machine: keep its times")
    arguments = parser.parse_args()
    if arguments.work:
        write_json(RESULTS / FILE, measure(arguments.work.resolve(), _zerovl))
    if arguments.plan:
        (RESULTS / PLAN).write_text(plan(), encoding="utf-8")
    if arguments.ci:
        seconds = step_seconds(arguments.ci.read_text(encoding="utf-8", errors="replace"))
        write_json(RESULTS / MINUTES, {**_here(), "seconds": seconds})
    write_pages()
    return 0


def _here() -> dict[str, Any]:
    return {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}


if __name__ == "__main__":
    sys.exit(main())
