"""The stage `validate`: the manifest against the rules of `params.yaml`.

All numbers are computed exactly in one streamed pass (`scan`, `repeats`, `drift`); Great Expectations then checks
bounded tables (`expectations`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from zerovl.data.broken_inputs import BROKEN_CSV
from zerovl.data.manifest import Manifest
from zerovl.data.validation import drift, page
from zerovl.data.validation.compared_columns import open_compared
from zerovl.data.validation.expectations import check_expectations
from zerovl.data.validation.repetition import Repetition
from zerovl.data.validation.rules import Rule, judge
from zerovl.data.validation.scan import scan
from zerovl.data.validation.statistics import Scan
from zerovl.data.validation.verdict import NOT_LOOKED_AT, describe_rule, make_verdict
from zerovl.errors import ZeroVLError
from zerovl.files import write_json
from zerovl.log import logger
from zerovl.params import Params, TrainParams, ValidateParams
from zerovl.text_format import plural
from zerovl.workspace import Workspace


def run(params: Params, workspace: Workspace = Workspace()) -> None:  # noqa: B008 - frozen
    """Write `reports/validation/`; raises `ZeroVLError` with names and examples where a hard rule is broken.

    `verdict.json` is written last, in both cases: it is the proof that the stage ran.
    """
    settings = params.validate_
    manifest = Manifest.load(workspace.manifest)
    report = workspace.validation_report
    try:
        shutil.rmtree(report, ignore_errors=True)  # no verdict of older data stays behind a failure
        report.mkdir(parents=True)
        counted, rules = _look(manifest, settings, workspace)
        outcomes, version = check_expectations(report, manifest, counted, rules, settings)
        verdict = make_verdict(manifest, counted, rules, outcomes, version) | _not_looked_at(params.train)
        page.write(workspace.validation_page, verdict, counted)
        write_json(workspace.validation_verdict, verdict)
        if verdict["passed"]:
            drift.keep(workspace.runs, manifest.digest, verdict["statistics"])
    except OSError as error:
        raise ZeroVLError(
            f"{error.filename or report}: {error.strerror or error}; make room or set the permissions, then run again"
        ) from None
    _tell(verdict, rules, workspace)
    if not manifest.sources("valid"):
        logger().warning(
            "no source has a valid split: a model can be trained and not evaluated, so `dvc repro` will end there; set "
            "pictures aside by prepare.draw_valid.fraction, or add a split to a source (data/README.md)"
        )


def _look(manifest: Manifest, settings: ValidateParams, workspace: Workspace) -> tuple[Scan, list[Rule]]:
    before = drift.previous(workspace.runs, manifest.digest)
    rows = sum(info.pairs + info.broken for info in manifest.splits.values())
    with _scratch(workspace.validation_report / "scratch") as scratch, ExitStack() as stack:
        compared = open_compared(scratch, manifest)
        for files in vars(compared).values():
            stack.enter_context(files)
        bar = stack.enter_context(tqdm(total=rows, desc="validate", unit="row", unit_scale=True, delay=2, leave=False))
        counted = scan(manifest, settings, compared, workspace.validation_report / BROKEN_CSV, bar.update)
        bar.close()
        found = Repetition.find(manifest, counted, compared, settings)
        return counted, judge(manifest, counted, found, before, settings)


def _not_looked_at(train: TrainParams) -> dict[str, list[str]]:
    """Return the sources that training streams, and that no rule has seen; nothing where all pairs are prepared."""
    return {NOT_LOOKED_AT: train.streamed} if train.streamed else {}


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Yield a folder for bucket files; what a killed run left in it is removed first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tell(verdict: dict[str, Any], rules: list[Rule], workspace: Workspace) -> None:
    fixes = {rule.name: rule.fix for rule in rules}
    broken = [rule for rule in verdict["rules"] if not rule["passed"]]
    hard = [rule for rule in broken if rule["level"] == "hard"]
    for rule in broken:
        if rule["level"] == "soft":
            logger().warning(describe_rule(rule, fixes[rule["name"]]))
    page_file = workspace.validation_page
    if hard:
        lines = "\n".join(describe_rule(rule, fixes[rule["name"]]) for rule in hard)
        raise ZeroVLError(f"{len(hard)} of {len(rules)} rules broken; all numbers: {page_file}\n{lines}")
    unchecked = sum(rule["value"] is None for rule in verdict["rules"])
    held = plural(len(rules), "rule") + (f" ({unchecked} with nothing to check)" if unchecked else "")
    counts = ", ".join((held, plural(len(broken), "warning"), plural(verdict["rows"], "row")))
    for split, names in sorted(verdict.get("sources_without", {}).items()):
        print(f"without a {split} split: {', '.join(names)}")
    print(f"validation passed: {counts}; see {page_file}")
    if streamed := verdict.get(NOT_LOOKED_AT):
        print(f"not looked at, as training streams them: {', '.join(streamed)}")
