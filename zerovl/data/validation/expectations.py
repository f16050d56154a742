"""Great Expectations over three bounded tables in one Checkpoint: the one module that imports it.

A uniform sample of rows, one row a shard, and one row with the value of every rule. A rule holds when all of its
expectations do.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zerovl.data.manifest import Manifest
from zerovl.data.validation.expectations_section import in_words
from zerovl.data.validation.row_rules import CONTROL
from zerovl.data.validation.rules import Rule
from zerovl.data.validation.statistics import Scan
from zerovl.files import atomic_write
from zerovl.params import ValidateParams

_EXACT = ("key", "source", "split", "shard", "image_id", "caption", "width", "height", "bytes", "sha256")


def check_expectations(
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
    columns, found = configuration.kwargs, result.result
    return {
        "table": table,
        "rule": configuration.meta["rule"],
        "expectation": configuration.type,
        "column": columns.get("column") or columns.get("column_list") or [columns["column_A"], columns["column_B"]],
        "expected": in_words(configuration.type, columns),
        "success": bool(result.success),
        "checked": int(found["element_count"]) - int(found.get("missing_count") or 0),
        "unexpected": int(found.get("unexpected_count") or 0),
        # Missing values, None and NaN, have nothing to show.
        "examples": [_readable(each) for each in found["partial_unexpected_list"] if each is not None and each == each],
    }


def _readable(value: Any) -> str:
    """Return an unexpected value, or several of a row, as text without control characters."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else [value]
    plain = [part.item() if hasattr(part, "item") else part for part in parts]  # rows of columns have numpy's numbers
    return " / ".join(f"{part:g}" if isinstance(part, float) else repr(part) for part in plain)
