"""The stage `validate`: the manifest against the rules of `params.yaml`.

All numbers are computed exactly in one streamed pass (`validation_table`, `leaks`, `drift`). Great
Expectations then checks three bounded tables in one Checkpoint: a uniform sample of rows, one row a
shard, and one row with the value of every rule. A rule holds when all of its expectations do.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from zerovl.data import drift, validation_page
from zerovl.data.manifest import Manifest
from zerovl.data.validation_rules import Repetition, Rule, judge, open_spills, statistics
from zerovl.data.validation_statistics import Scan
from zerovl.data.validation_table import CONTROL, scan
from zerovl.errors import ZeroVLError
from zerovl.files import atomic_write, write_json
from zerovl.params import Params, ValidateParams
from zerovl.workspace import Workspace

_EXACT = ("key", "source", "split", "shard", "image_id", "caption", "width", "height", "bytes", "sha256")


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
        outcomes, version = _great_expectations(report, manifest, counted, rules, settings)
        verdict = _verdict(manifest, counted, rules, outcomes, version)
        validation_page.write(report / "index.html", verdict, counted)
        write_json(report / "verdict.json", verdict)
        if verdict["passed"]:
            drift.keep(workspace.runs, manifest.digest, verdict["statistics"])
    except OSError as error:
        raise ZeroVLError(
            f"{error.filename or report}: {error.strerror or error}; make room or set the permissions, then run again"
        ) from None
    _tell(verdict, rules, report)


def _look(manifest: Manifest, settings: ValidateParams, workspace: Workspace) -> tuple[Scan, list[Rule]]:
    before = drift.previous(workspace.runs, manifest.digest)
    rows = sum(info.pairs + info.broken for info in manifest.splits.values())
    with _scratch(workspace.validation_report / "scratch") as scratch, ExitStack() as stack:
        spills = open_spills(scratch, manifest)
        for spill in (spills.keys, spills.image_ids, spills.caption_ids, spills.pictures):
            stack.enter_context(spill)
        bar = stack.enter_context(tqdm(total=rows, desc="validate", unit="row", unit_scale=True, delay=2, leave=False))
        counted = scan(manifest, settings, spills, workspace.validation_report / "broken.csv", bar.update)
        bar.close()
        found = Repetition.find(manifest, counted, spills, settings)
        return counted, judge(manifest, counted, found, before, settings)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for bucket files; what a killed run left in it is removed first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _great_expectations(
    report: Path, manifest: Manifest, counted: Scan, rules: list[Rule], settings: ValidateParams
) -> tuple[list[dict[str, Any]], str]:
    """Check the three tables in one Checkpoint; returns one outcome an expectation, and the version.

    The file context stays in `gx/`, its Data Docs in `data_docs/`.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the library is imported
    tables = report / "tables"
    filled = _write_tables(tables, manifest, counted, rules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own and of pandas' future versions
        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context = gx.get_context(mode="file", project_root_dir=report)
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        context.variables.analytics_enabled = False
        context.variables.save()
        context.delete_data_docs_site("local_site")
        context.add_data_docs_site("report", _DATA_DOCS)
        # A relative path keeps the machine's folders out of the files that GX writes.
        source = context.data_sources.add_pandas_filesystem("report", base_directory=Path(os.path.relpath(tables)))
        definitions = []
        suites = _suites(rules, settings)
        for name in filled:
            batch = source.add_parquet_asset(name).add_batch_definition_path("file", path=f"{name}.parquet")
            suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=suites[name]))
            definitions.append(
                context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
            )
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name="validate",
                validation_definitions=definitions,
                actions=[gx.checkpoint.UpdateDataDocsAction(name="data_docs")],
                result_format={"result_format": "SUMMARY", "partial_unexpected_count": 5},
            )
        )
        results = checkpoint.run().run_results.values()
    outcomes = [_outcome(result.suite_name, each) for result in results for each in result.results]
    # Their order is GX's own; a fixed one keeps equal verdicts equal to the byte.
    return sorted(outcomes, key=lambda each: [str(each[name]) for name in _ORDER]), gx.__version__


_ORDER = ("table", "rule", "expectation", "column")
_DATA_DOCS = {
    "class_name": "SiteBuilder",
    "show_how_to_buttons": False,
    "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": "../data_docs/"},
    "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
}


def _write_tables(folder: Path, manifest: Manifest, counted: Scan, rules: list[Rule]) -> list[str]:
    """Write the tables that have rows; returns their names."""
    listed = {shard.path: shard.samples for info in manifest.splits.values() for shard in info.shards}
    names = sorted(listed.keys() | counted.shards.keys())
    shards = [vars(counted.shards[name]) if name in counted.shards else {} for name in names]
    columns = {
        name: pa.array([_finite(shard.get(name)) for shard in shards], pa.float64())
        for name in ("nulls", "words_min", "words_max", "side_min", "aspect_max")
    }
    tables = {
        "sample": counted.sample,
        "shards": pa.table(
            {
                "shard": pa.array(names, pa.string()),
                "listed": pa.array([listed.get(name, 0) for name in names], pa.int64()),
                "pairs": pa.array([shard.get("pairs", 0) for shard in shards], pa.int64()),
                **columns,
            }
        ),
        "rules": pa.table({rule.name: pa.array([rule.value], pa.float64()) for rule in rules}),
    }
    filled = {name: table for name, table in tables.items() if table is not None and len(table)}
    for name, table in filled.items():
        with atomic_write(folder / f"{name}.parquet") as file:
            pq.write_table(table, file)
    return list(filled)


def _finite(value: float | None) -> float | None:
    return None if value is None or value in (float("inf"), float("-inf")) else value


def _suites(rules: list[Rule], settings: ValidateParams) -> dict[str, list[Any]]:
    """Expectations a table; `meta` ties each to its rule."""
    import great_expectations.expectations as gxe

    def between(column: str, rule: str, low: float | None = None, high: float | None = None) -> Any:
        return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high, meta={"rule": rule})

    sample = [
        *(gxe.ExpectColumnValuesToNotBeNull(column=column, meta={"rule": "complete"}) for column in _EXACT),
        gxe.ExpectColumnValuesToBeUnique(column="key", meta={"rule": "keys_unique"}),
        gxe.ExpectCompoundColumnsToBeUnique(
            column_list=["source", "image_id"],
            ignore_row_if="any_value_is_missing",
            meta={"rule": "image_ids_unique"},
        ),
        gxe.ExpectColumnValuesToMatchRegex(column="caption", regex=r"\S", meta={"rule": "captions_not_blank"}),
        gxe.ExpectColumnValuesToNotMatchRegex(column="caption", regex=CONTROL, meta={"rule": "caption_content"}),
        between("words_min", "caption_words_min", low=settings.min_caption_words),
        between("words_max", "caption_words_max", high=settings.max_caption_words),
        between("side", "image_side", low=settings.min_side),
        between("aspect", "image_aspect", high=settings.max_aspect),
    ]
    shards = [
        between("nulls", "complete", high=0),
        gxe.ExpectColumnPairValuesToBeEqual(column_A="listed", column_B="pairs", meta={"rule": "manifest_counts"}),
        between("words_min", "caption_words_min", low=settings.min_caption_words),
        between("words_max", "caption_words_max", high=settings.max_caption_words),
        between("side_min", "image_side", low=settings.min_side),
        between("aspect_max", "image_aspect", high=settings.max_aspect),
    ]
    exact = [between(rule.name, rule.name, rule.minimum, rule.maximum) for rule in rules]
    return {"sample": sample, "shards": shards, "rules": exact}


def _outcome(table: str, result: Any) -> dict[str, Any]:
    configuration = result.expectation_config
    raised = result.exception_info or {}
    # Either one mapping, or one a metric.
    for info in [raised] if "raised_exception" in raised else raised.values():
        if info.get("raised_exception"):
            raise RuntimeError(f"Great Expectations failed at {configuration.type} on {table}: {info}")
    columns = configuration.kwargs
    return {
        "table": table,
        "rule": configuration.meta["rule"],
        "expectation": configuration.type,
        "column": columns.get("column") or columns.get("column_list") or [columns["column_A"], columns["column_B"]],
        "success": bool(result.success),
        "unexpected": int(result.result.get("unexpected_count") or 0),
    }


def _verdict(
    manifest: Manifest, counted: Scan, rules: list[Rule], outcomes: list[dict[str, Any]], version: str
) -> dict[str, Any]:
    """What `verdict.json` holds; equal data give equal bytes."""
    listed = [
        {
            "name": rule.name,
            "level": rule.level,
            "bound": rule.bound,
            "value": rule.value,
            "passed": all(each["success"] for each in outcomes if each["rule"] == rule.name),
            "message": rule.message,
            "examples": rule.examples,
        }
        for rule in rules
    ]
    return {
        "passed": all(rule["passed"] for rule in listed if rule["level"] == "hard"),
        "manifest_digest": manifest.digest,
        "rows": counted.rows,
        "sampled_rows": 0 if counted.sample is None else len(counted.sample),
        "great_expectations": version,
        "rules": listed,
        "statistics": statistics(counted),
        "quarantine": {
            reason: {"count": offences.count, "examples": offences.examples}
            for reason, offences in sorted(counted.reasons.items(), key=lambda item: (-item[1].count, item[0]))
        },
        "expectations": outcomes,
    }


def _tell(verdict: dict[str, Any], rules: list[Rule], report: Path) -> None:
    fixes = {rule.name: rule.fix for rule in rules}
    broken = [rule for rule in verdict["rules"] if not rule["passed"]]
    hard = [rule for rule in broken if rule["level"] == "hard"]
    for rule in broken:
        if rule["level"] == "soft":
            print(f"warning: {_describe(rule, fixes[rule['name']])}", file=sys.stderr)
    page = report / "index.html"
    if hard:
        lines = "\n".join(_describe(rule, fixes[rule["name"]]) for rule in hard)
        raise ZeroVLError(f"{len(hard)} of {len(rules)} rules broken; all numbers: {page}\n{lines}")
    print(f"validation passed: {len(rules)} rules, {len(broken)} warnings, {verdict['rows']} rows; see {page}")


def _describe(rule: dict[str, Any], fix: str) -> str:
    lines = [f"{rule['name']} ({rule['level']}) is {rule['value']:.6g}, must be {rule['bound']}: {rule['message']}"]
    for each in rule["examples"]:
        origin = f" ({each['origin']})" if each["origin"] else ""
        lines.append(f"    {each['key'] or 'no key'}{origin}: {each['detail']}")
    return "\n  ".join([*lines, f"  fix: {fix}"])
