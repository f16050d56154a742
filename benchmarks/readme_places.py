"""The pieces of README and docs that are made from result files, and from the heads of recipes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from zerovl.files import read_json
from zerovl.params import DemoParams

ROOT = Path(__file__).parents[1]
FILE = "readme.json"  # what the demo printed
MINUTES = "minutes.json"  # what the steps of `.ci/run` took
RUNS_AT_ONCE = "runs_at_once.json"  # what of several runs arrived on a server
CANCEL = "cancel.json"  # what passed from Cancel to the end of a run
PLAN = "plan.txt"  # what the plan of the paper's recipe prints
_DOWNLOAD_SECONDS = 60  # a set-up that takes less found its packages in the installer's cache


@dataclass(frozen=True)
class Place:
    """A piece of a page that is made from result files."""

    page: str
    pattern: str  # of the piece, once in the page
    make: Callable[[Mapping[str, Any], Path], str]  # from what was printed, and the folder of the results


def render(place: Place, text: str, results: Path = RESULTS) -> str:
    """Return a page's text with a place made again; raises `ValueError` where the place is not there once."""
    made = place.make(read_json(results / FILE), results)
    text, count = re.subn(place.pattern, lambda _: made, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{place.page}: {place.pattern!r} is there {count} times; expected once")
    return text


def _summary(printed: Mapping[str, Any], _: Path) -> str:
    return "```\n" + "\n".join(printed["summary"]) + "\n```"


def _demo(_: Mapping[str, Any], results: Path) -> str:
    """The first command: with the set-up that it brings along."""
    seconds = read_json(results / MINUTES)["seconds"]
    cached = ", packages cached" if seconds["make setup"] < _DOWNLOAD_SECONDS else ""
    return f"registered model: about {_minutes(seconds['make setup'] + seconds['make demo'])} on 2 CPU cores{cached}"


def _test(_: Mapping[str, Any], results: Path) -> str:
    return f"all tests: about {_minutes(read_json(results / MINUTES)['seconds']['make test'])} on 2 CPU cores"


def _minutes(seconds: float) -> str:
    """Say minutes, rounded up: whoever waits has been told no less than it takes."""
    return f"{math.ceil(seconds / 60)} minutes"


def _demo_row(printed: Mapping[str, Any], results: Path) -> str:
    scores = [run["rsum"] for run in read_json(results / "demo.json")["runs"].values()]
    return (
        f"| `demo` (default) | 3 drawn sources, {3 * DemoParams().train_pairs:,} pairs | 2 CPU cores "
        f"| {_minutes(read_json(results / MINUTES)['seconds']['make demo'])} in all "
        f"| RSUM {printed['rsum']:.1f}; [{min(scores):.0f} to {max(scores):.0f}](benchmarks/results/demo.md)"
    )


def _photos_row(_: Mapping[str, Any], __: Path) -> str:
    head = _head("photos")
    pictures = sum(int(number.replace(",", "")) for number in re.findall(r"\d+,\d{3}", head["data"]))
    cost = _found(r"\d+ minutes of CPU", head["cost"])[0]
    mean, flickr = _found(r"RSUM ([\d.]+), mean of sources: flickr8k \(dev\) ([\d.]+)", head["score"]).groups()
    return (
        f"| `recipes/photos.yaml` | photographs, 3 sources, {pictures:,} pictures; pretrained towers (`make towers`) "
        f"| 2 CPU cores | {cost} | RSUM {mean}; [flickr8k {flickr}](docs/results.md) |"
    )


def _small_row(_: Mapping[str, Any], __: Path) -> str:
    head = _head("small-real")
    pictures, sources = _found(r"([\d,]+) training pictures in (\d+) sources", head["data"]).groups()
    cost = _found(r"about \d+ minutes of training", head["cost"])[0]
    data = f"{sources} real sources, {pictures} pictures"
    return f"| `recipes/small-real.yaml` | {data} | 2 CPU cores | {cost} on one core |"


def _paper_row(_: Mapping[str, Any], __: Path) -> str:
    head = _head("zerovl-14m")
    coco, flickr = _found(r"published: RSUM ([\d.]+) on COCO, ([\d.]+) on Flickr30K", head["score"]).groups()
    pairs = _found(r"complete list of the ([\d.]+M) pairs", head["data"])[1]
    return (
        f"| `recipes/zerovl-14m.yaml` | {pairs} pairs | 8 GPUs | not measured "
        f"| published: COCO {coco}, Flickr30K {flickr} |"
    )


def _finetuned(recipe: str) -> Callable[[Mapping[str, Any], Path], str]:
    """What the paper published of a recipe that fine-tunes, as the recipe's head has it."""

    def published(_: Mapping[str, Any], __: Path) -> str:
        score = _found(r"published: RSUM ([\d.]+)", _head(recipe)["score"])[1]
        return f"not measured | published: {score} |"

    return published


def _head(recipe: str) -> dict[str, str]:
    """Return what a recipe's head says of its data, cost and score."""
    text = (ROOT / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
    parts = re.findall(r"^# (\w+): +(.*(?:\n# {3,}\S.*)*)", text, re.MULTILINE)
    return {label: re.sub(r"\n# +", " ", words) for label, words in parts}


def _found(pattern: str, text: str) -> re.Match[str]:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"{pattern!r} is not in {text!r}")
    return match


def _compare(printed: Mapping[str, Any], _: Path) -> str:
    return "$ zerovl compare zerovl@1 zerovl@2\n" + "\n".join(printed["compare"]) + "\n```"


def _holder(printed: Mapping[str, Any], _: Path) -> str:
    return f"`{printed['holder']}`"


def _debiased(_: Mapping[str, Any], results: Path) -> str:
    """The difference that debiased sampling makes to seen sources, without and over open_clip's trainer."""
    rows = [
        [cell.strip() for cell in line.split("|")]
        for line in (results / "ablation.md").read_text(encoding="utf-8").splitlines()
    ]
    alone = next(row[6] for row in rows if row[1:2] == ["+ debiased sampling"])
    over = next(row[5] for row in rows if row[1:3] == ["+ debiased sampling", "temperature"])
    return f"debiased sampling: RSUM {alone}, and {over} over open_clip's trainer"


def _runs_at_once(_: Mapping[str, Any], results: Path) -> str:
    """What arrived of runs at once: of each kind how many, of how many."""
    record = read_json(results / RUNS_AT_ONCE)
    runs, expected, lost = record["runs"], record["expected"], record["lost"]
    named = {
        "states of runs": "states of the runs",
        "states of tasks": "of their tasks",
        "pages": "pages",
        "bars at their end": "bars at their end",
        "lines": "lines of log",
    }
    arrived = [f"{expected[kind] - lost[kind]} of {expected[kind]} {name}" for kind, name in named.items()]
    asked = dict(record["attempts of the runs"])
    requests = asked.pop("requests")
    again = ", ".join(f"{count} ({answer})" for answer, count in sorted(asked.items())) or "none"
    ended, seconds = runs - record["runs that failed"], record["seconds"]
    return (
        f"{ended} of {runs} runs\ncame to their end in {seconds} s, and there were {', '.join(arrived[:-1])}\n"
        f"and {arrived[-1]}. Refused and sent again, of {requests} requests of the runs: {again}."
    )


def _cancelled(_: Mapping[str, Any], results: Path) -> str:
    """Seconds to the end of runs that were cancelled, a row for each place where they were."""
    record = read_json(results / CANCEL)
    rows = [
        f"| {f'`{where}`' if where.isalpha() else where} | {row['seconds_to_no_process']:.0f} s "
        f"| {row['seconds_to_cancelled']:.0f} s |"
        for where, row in record["cancelled"].items()
    ]
    cores = f"{record['machine']['processor']}, {record['machine']['cores']} cores"
    return "\n".join([_CANCELLED, "|---|---|---|", *rows, "", f"Measured {record['date']} on {cores}"])


def _plan(_: Mapping[str, Any], results: Path) -> str:
    return "--pairs 14200000\n" + (results / PLAN).read_text(encoding="utf-8") + "```"


_CANCELLED = "| a run is cancelled in the middle of | no process is left after | the run is Cancelled after |"
_NUMBER = r"[-+\d.,]+"
PLACES = (
    Place("README.md", r"registered model: about \d+ minutes on 2 CPU cores(?:, packages cached)?", _demo),
    Place("README.md", r"all tests: about \d+ minutes on 2 CPU cores", _test),
    Place("README.md", r"```\n  RSUM .*?\n```", _summary),
    Place("README.md", r"\| `demo` \(default\) \|[^\n]*?\(benchmarks/results/demo\.md\)", _demo_row),
    Place("README.md", r"\| `recipes/photos\.yaml` \|[^\n]*", _photos_row),
    Place("README.md", r"\| `recipes/small-real\.yaml` \|[^\n]*? on one core \|", _small_row),
    Place("README.md", r"\| `recipes/zerovl-14m\.yaml` \|[^\n]*", _paper_row),
    Place("README.md", r"(?<=\| COCO \| 8 GPUs \| )[^\n]*", _finetuned("coco-finetune")),
    Place("README.md", r"(?<=\| Flickr30K \| 8 GPUs \| )[^\n]*", _finetuned("flickr30k-finetune")),
    Place(
        "README.md",
        rf"debiased sampling: RSUM {_NUMBER} ± {_NUMBER}, and {_NUMBER} ± {_NUMBER} over open_clip's trainer",
        _debiased,
    ),
    Place("flows/README.md", r"\d+ of \d+ runs\ncame to their end in .*? requests of the runs: [^.]*\.", _runs_at_once),
    Place("flows/README.md", rf"{re.escape(_CANCELLED)}\n.*?Measured [^\n]*? cores", _cancelled),
    Place("docs/training.md", r"--pairs 14200000\n.*?```", _plan),
    Place("docs/compare.md", r"\$ zerovl compare zerovl@1 zerovl@2\n.*?\n```", _compare),
    Place("docs/registry.md", r"`zerovl@production was zerovl@1, RSUM [^`]*`", _holder),
)
