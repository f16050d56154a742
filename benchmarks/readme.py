"""What README and docs show of the demo: its summary, its score, a comparison of two releases.

    python -m benchmarks.readme --work FOLDER    # runs the demo and a second training in FOLDER, keeps what they print
    python -m benchmarks.readme                  # writes the pages from the result files

Every place is known by what stands around it (`PLACES`); all else of a page is written by hand and stays.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, machine
from zerovl import params_file
from zerovl.evaluation.holder import holder_from
from zerovl.files import atomic_write, read_json, write_json

ROOT = Path(__file__).parents[1]
FILE = "readme.json"
SECOND = "train.lr=0.002"  # of the release that is compared with the demo's
_TABLE_LINES = 5  # of the comparison's scores, head included; there are many more
_STAGES = ("train", "evaluate", "register")


@dataclass(frozen=True)
class Place:
    """A piece of a page that is made from result files."""

    page: str
    pattern: str  # of the piece, once in the page
    make: Callable[[Mapping[str, Any], Path], str]  # from what was printed, and the folder of the results


def _summary(printed: Mapping[str, Any], _: Path) -> str:
    return "```\n" + "\n".join(printed["summary"]) + "\n```"


def _score(printed: Mapping[str, Any], results: Path) -> str:
    scores = [run["rsum"] for run in read_json(results / "demo.json")["runs"].values()]
    return f"RSUM {printed['rsum']:.1f}; [{min(scores):.0f} to {max(scores):.0f}](benchmarks/results/demo.md)"


def _compare(printed: Mapping[str, Any], _: Path) -> str:
    return "$ zerovl compare zerovl@1 zerovl@2\n" + "\n".join(printed["compare"]) + "\n```"


def _holder(printed: Mapping[str, Any], _: Path) -> str:
    return f"`{printed['holder']}`"


def _debiased(_: Mapping[str, Any], results: Path) -> str:
    """The difference that debiased sampling makes to seen sources, from the table of the ablation."""
    rows = (line.split("|") for line in (results / "ablation.md").read_text(encoding="utf-8").splitlines())
    row = next(row for row in rows if len(row) > 1 and row[1].strip() == "+ debiased sampling")
    return f"debiased sampling: RSUM {row[6].strip()}"


PLACES = (
    Place("README.md", r"```\n  RSUM .*?\n```", _summary),
    Place("README.md", r"RSUM [\d.]+; \[\d+ to \d+\]\(benchmarks/results/demo\.md\)", _score),
    Place("README.md", r"debiased sampling: RSUM [-+\d.]+ ± [\d.]+", _debiased),
    Place("docs/compare.md", r"\$ zerovl compare zerovl@1 zerovl@2\n.*?\n```", _compare),
    Place("docs/registry.md", r"`zerovl@production was zerovl@1, RSUM [^`]*`", _holder),
)


def render(place: Place, text: str, results: Path = RESULTS) -> str:
    """Return a page's text with a place made again; raises `ValueError` where the place is not there once."""
    made = place.make(read_json(results / FILE), results)
    text, count = re.subn(place.pattern, lambda _: made, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{place.page}: {place.pattern!r} is there {count} times; expected once")
    return text


def write_pages() -> None:
    for place in PLACES:
        page = ROOT / place.page
        text = render(place, page.read_text(encoding="utf-8"))
        with atomic_write(page, "w") as file:
            file.write(text)


def measure(work: Path) -> dict[str, Any]:
    """Run the demo, then a second training, in a folder; returns what README and docs show of them."""
    work.mkdir(parents=True)
    params_file.write(params_file.from_recipe({}, [], "demo"), work / "params.yaml")
    for command in ("demo-data", "prepare", "validate", *_STAGES):
        _zerovl(work, command)
    summary = _zerovl(work, "summary").replace(work.resolve().as_uri(), "file:///...")
    rsum = read_json(work / "reports" / "evaluation" / "metrics.json")["mean"]["rsum"]
    params_file.write(params_file.from_recipe({}, [SECOND], "demo"), work / "params.yaml")
    for command in _STAGES:
        _zerovl(work, command)
    holder = holder_from(read_json(work / "reports" / "release.json")["verdict"])
    assert holder, "the first release has the alias"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "rsum": rsum,
        "summary": [line for line in summary.splitlines() if line.strip()],
        "compare": shortened(_zerovl(work, "compare", "zerovl@1", "zerovl@2").splitlines()),
        "holder": f"{holder.alias} was {holder}",
    }


def shortened(lines: list[str]) -> list[str]:
    """Return a comparison with the first scores alone; the tables of its parts stand apart by blank lines."""
    first = next(number for number, line in enumerate(lines) if line.startswith("SCORE"))
    end = next((number for number, line in enumerate(lines) if number > first and not line.strip()), len(lines))
    cut = lines[first : min(end, first + _TABLE_LINES)]
    return [*lines[:first], *cut, *(["..."] if end > first + _TABLE_LINES else []), *lines[end:]]


def _zerovl(work: Path, *words: str) -> str:
    """Run a command in the folder as one types it; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("ZEROVL_STORE", "OMP_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-m", "zerovl.cli", *words],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"zerovl {' '.join(words)} failed in {work}:\n{done.stdout}\n{done.stderr[-2000:]}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="a new folder: run the demo there first")
    work = parser.parse_args().work
    if work:
        write_json(RESULTS / FILE, measure(work.resolve()))
    write_pages()
    return 0


if __name__ == "__main__":
    sys.exit(main())
