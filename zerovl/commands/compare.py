"""`zerovl compare A B [C ...]`: scores, parameters, curves and queries of models side by side."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from zerovl.comparison import page, terminal
from zerovl.comparison.differences import compare
from zerovl.comparison.opening import open_subject
from zerovl.comparison.parameters import differing
from zerovl.comparison.shown_queries import choose
from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write, write_json
from zerovl.params import EvaluateParams
from zerovl.workspace import Workspace

_PLOTS = Path("dvc_plots") / "index.html"  # where `dvc plots show` and `dvc plots diff` write
MOST = 6  # colours that can be told apart


def run(references: Sequence[str], out: Path, json: Path | None, here: Workspace) -> None:
    """Print the tables, write the page to `out`, and the same numbers to `json` where that is given.

    Raises:
        ZeroVLError: fewer than two or more than six references, one twice, or one that names nothing.
    """
    if not 2 <= len(references) <= MOST:
        raise ZeroVLError(f"{len(references)} given; name two to {MOST} models, runs or revisions to compare")
    if twice := next((name for name in references if references.count(name) > 1), None):
        raise ZeroVLError(f"{twice}: given twice; name two different ones")
    settings = EvaluateParams()
    with tempfile.TemporaryDirectory() as folder:
        subjects = [
            open_subject(reference, Path(folder) / str(place), here) for place, reference in enumerate(references)
        ]
        scores = compare(subjects, settings.bootstrap, settings.seed)
        parameters = differing(subjects)
        queries = choose(subjects, here)
    text = page.render(page.Content(subjects, scores, parameters, queries, settings.bootstrap, _plots(out, here)))
    with atomic_write(out, "w") as file:
        file.write(text)
    if json:
        write_json(json, terminal.as_json(subjects, scores, parameters))
    print(terminal.tables(subjects, scores, parameters))
    print(f"\npage: {out}")


def _plots(out: Path, here: Workspace) -> str:
    """The way from the page to that of `dvc plots`, empty where there is none."""
    plots = here.root / _PLOTS
    return os.path.relpath(plots, out.parent) if plots.is_file() else ""
