"""`zerovl sweep`: try combinations of settings as experiments of DVC, within a budget.

    zerovl sweep train.lr=5e-4,1e-3,3e-3 train.weight_decay=0.001,0.05 --trials 4 --hours 8

Each trial is `dvc exp run --temp` on the commit that is checked out: one after the other, or as many at once as there
are free GPUs for (`zerovl.trials`). It has a name by its settings and the commit, so the same command again goes on:
finished trials are left out, and an interrupted training resumes.
"""

from __future__ import annotations

import copy
import json
import math
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zerovl import params_file
from zerovl.commands import dvc_locks
from zerovl.comparison import revision
from zerovl.errors import ZeroVLError
from zerovl.evaluation.metrics import HEADLINE, headline_block
from zerovl.files import sha256_json
from zerovl.release.provenance import report
from zerovl.text_format import plural, table
from zerovl.trials import Command, DvcProcess, Start, run_all, side_by_side
from zerovl.workspace import Workspace
from zerovl.yaml_file import read_yaml

COMPARED = 6  # by one `zerovl compare`


@dataclass(frozen=True)
class Budget:
    """What a sweep may take: so many trials, drawn from all combinations where these are more, and so many hours."""

    trials: int
    hours: float
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """One combination of settings, by dotted key, and the name of its experiment."""

    settings: Mapping[str, Any]
    commit: str

    @property
    def overrides(self) -> list[str]:
        """Return KEY=VALUE each, as `dvc exp run -S` reads them."""
        return [f"{key}={_for_dvc(value)}" for key, value in self.settings.items()]

    @property
    def name(self) -> str:
        """Return the experiment's name: what a branch of git may be called, and a digest of settings and commit."""
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.settings.items()}
        said = "_".join(f"{key.rpartition('.')[2]}-{text}" for key, text in sorted(texts.items()))
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", said).replace("..", ".").strip("-.")[:60]
        return f"{plain}-{sha256_json({**texts, 'commit': self.commit})[:8]}"

    @property
    def command(self) -> Command:
        """Return what it runs; several that begin at once wait for DVC's lock."""
        options = [word for override in self.overrides for word in ("-S", override)]
        words = ("--wait-for-lock", "exp", "run", "--temp", "--name", self.name, *options)
        return Command(self.name, words, " ".join(self.overrides))


@dataclass(frozen=True)
class Combinations:
    """All combinations of values by dotted key, each made when it is asked for: there may be millions."""

    values: Mapping[str, Sequence[Any]]
    commit: str

    @property
    def count(self) -> int:
        """Return how many there are."""
        return math.prod(map(len, self.values.values()))

    def trial(self, number: int) -> Trial:
        """Return one of them, counted from 0; the values of the last key change first."""
        chosen: dict[str, Any] = {}
        for key, values in reversed(list(self.values.items())):
            number, place = divmod(number, len(values))
            chosen[key] = values[place]
        return Trial({key: chosen[key] for key in self.values}, self.commit)

    def drawn(self, most: int, seed: int) -> list[Trial]:
        """Return all of them in their order, or as many as `most` by a draw that `seed` repeats."""
        numbers: Iterable[int] = range(min(self.count, most))
        if self.count > sys.maxsize:  # more than a range may have
            draw, found = random.Random(seed), dict[int, None]()
            while len(found) < most:
                found[draw.randrange(self.count)] = None
            numbers = found
        elif self.count > most:
            numbers = random.Random(seed).sample(range(self.count), most)
        return [self.trial(number) for number in numbers]


def run(changes: Sequence[str], budget: Budget, here: Workspace, start: Start = DvcProcess.start) -> list[str]:
    """Run the trials that are not there yet; returns what to compare, the commit first, where it has scores.

    Args:
        changes: KEY=VALUE,VALUE,... each.
        budget: at its end the running trials save their checkpoints, and no other begins.
        here: a checkout without changes.
        start: runs dvc.

    Raises:
        ZeroVLError: a key or a value is wrong, before anything runs; or files differ from the commit, whose name the
            trials have.
    """
    if budget.trials < 1:
        raise ZeroVLError(f"--trials {budget.trials}: give 1 or more")
    if budget.hours < 0.0:
        raise ZeroVLError(f"--hours {budget.hours:g}: give 0 or more")
    commit = _clean_head(here.root)
    dvc_locks.require(here.root)
    possible = combinations(changes, commit)
    chosen = possible.drawn(budget.trials, budget.seed)
    check(chosen, here.root / "params.yaml")
    known = revision.experiments(here.root)
    open_ = [trial for trial in chosen if trial.name not in known]
    there = f"{len(chosen) - len(open_)} there already"
    print(f"{plural(len(chosen), 'trial')} of {plural(possible.count, 'combination')}, {there}")
    baseline = _baseline(commit, here.root)
    if open_:
        jobs = min(len(open_), side_by_side(_ranks(open_, here.root / "params.yaml")))
        if jobs > 1:
            print(f"{jobs} at once, each on GPUs of its own")
        commands = [trial.command for trial in open_]
        run_all(commands, time.monotonic() + budget.hours * 3600.0, start, jobs, here.runs / "sweeps")
    known = revision.experiments(here.root)
    best = _ranked([trial.name for trial in chosen if trial.name in known], here.root)
    return [*baseline, *best][:COMPARED]


def combinations(changes: Sequence[str], commit: str) -> Combinations:
    """Return the combinations of the values; raises `ZeroVLError` for what is not KEY=VALUE,VALUE."""
    values: dict[str, list[Any]] = {}
    for change in changes:
        key, separator, text = change.partition("=")
        if re.match(r"\s*(range|choice)\(", text):
            raise ZeroVLError(f"{change!r}: range(...) and choice(...) are for `dvc exp run --queue`; give the values")
        try:
            found = yaml.safe_load(f"[{text}]")
        except yaml.YAMLError as error:
            raise ZeroVLError(f"{change!r}: {text!r} is not a list of values: {error}") from None
        if any(isinstance(value, dict) for value in found):
            raise ZeroVLError(f"{change!r}: {key} is a mapping; name the key inside it, as {key}.KEY=VALUE,VALUE")
        if not separator or not key or not found or key in values:
            raise ZeroVLError(f"{change!r}: expected KEY=VALUE,VALUE with each key once, as in train.lr=1e-3,3e-3")
        values[key] = _different([_number(value) for value in found])
    return Combinations(values, commit)


def _different(values: Sequence[Any]) -> list[Any]:
    """Return values without those that are there already; 1 and true are two, 2 and 2.0 are one."""
    found: dict[Any, Any] = {}
    for value in values:
        found.setdefault(_compared(value), value)
    return list(found.values())


def _compared(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_compared, value))
    return json.dumps(value) if isinstance(value, dict) else (isinstance(value, bool), value)


def _for_dvc(value: Any) -> str:
    """Return a value as the grammar of Hydra has it, by which DVC reads overrides.

    A text stands in quotes, in which a backslash is one unless a quote follows
    (https://hydra.cc/docs/advanced/override_grammar/basic/#quoted-values).
    """
    if isinstance(value, str):
        escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + (found[2] and '\\"'), value)
        return f'"{escaped}"'
    if isinstance(value, list):
        return f"[{','.join(map(_for_dvc, value))}]"
    return json.dumps(value)


def check(trials: Sequence[Trial], path: Path) -> None:
    """Raise `ZeroVLError` where the parameters of a trial would be refused; DVC changes keys of the file alone."""
    written = read_yaml(path)
    for trial in trials:
        values = copy.deepcopy(written)
        for key, value in trial.settings.items():
            if "${" in json.dumps(value):
                raise ZeroVLError(f"{key}: {value}: DVC takes ${{...}} for another key's value; give the value itself")
            *sections, last = key.split(".")
            place: Any = values
            for section in sections:
                place = place.get(section) if isinstance(place, dict) else None
            if not isinstance(place, dict) or last not in place:
                raise ZeroVLError(f"{path}: {key}: no such key; {_fix_of(key)}")
            place[last] = value
        params_file.parse(values, f"{path.name} with {' '.join(trial.overrides)}")


def _fix_of(key: str) -> str:
    like = params_file.close_to(key.split("."))
    if like == key:  # known, but DVC changes what the file has alone
        return "write it into the file first"
    return "correct its spelling" + (f" ({like}?)" if like else ", or write it into the file first")


def _ranks(trials: Sequence[Trial], path: Path) -> int:
    """Return the largest `machine.ranks` of the trials; 0 where one takes all GPUs."""
    written = params_file.load(path).machine.ranks
    asked = {int(trial.settings.get("machine.ranks", written)) for trial in trials}
    return 0 if 0 in asked else max(asked)


def _ranked(names: Sequence[str], root: Path) -> list[str]:
    """Print the score of each trial, the best first; returns their names in this order."""
    scores = {name: score for name in names if (score := _score(name, root)) is not None}
    best = sorted(scores, key=lambda name: -scores[name])
    print(
        table([("TRIAL", HEADLINE.label), *((name, f"{scores[name]:.2f}") for name in best)]) if best else "no scores"
    )
    return best


def _baseline(commit: str, root: Path) -> list[str]:
    """Return the commit, where all that a comparison reads can be had; else say so before the hours of the trials.

    By its own name: the checkout may be of another one when they are over.
    """
    name = commit[:12]
    with tempfile.TemporaryDirectory() as folder:
        try:
            revision.fetch(name, root, Path(folder))
        except ZeroVLError as error:
            print(
                f"the commit's scores cannot be had ({error}); the trials will be compared with each other alone, "
                "so end here and fix that first to have it beside them"
            )
            return []
    return [name]


def _score(name: str, root: Path) -> float | None:
    path = Workspace().evaluation_metrics
    with tempfile.TemporaryDirectory() as folder:
        revision.copy_files(name, root, Path(folder), [path])
        metrics = report(Path(folder) / path)
    return float(headline_block(metrics)[1][HEADLINE.name]) if metrics else None


def _number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _clean_head(root: Path) -> str:
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=False)
    if head.returncode:
        raise ZeroVLError(f"{root.resolve()}: git has no commit here ({head.stderr.strip()}); commit the project first")
    changed = ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"]
    files = subprocess.run(changed, capture_output=True, text=True, check=False).stdout.split("\n")
    if names := [line[3:] for line in files if line]:
        raise ZeroVLError(f"{', '.join(names)}: differ from the commit, whose name the trials have; commit them first")
    return head.stdout.strip()
