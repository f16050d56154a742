"""Look up who holds the alias that a model is to be registered for, while its report is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.evaluation.holder import Holder
from zerovl.log import logger
from zerovl.params import Params
from zerovl.registry import release_files
from zerovl.registry.records import Version
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store, store_uri
from zerovl.release.gate import Comparison
from zerovl.release.holder import Holders
from zerovl.workspace import Workspace


def look_up(params: Params, workspace: Workspace, metrics: Mapping[str, Any]) -> Holder | None:
    """Return the holder with the difference of the evaluated model, by ranks that both kept.

    None where there is no alias, where it has no holder, and where the store cannot be read now: a report is no
    reason to fail, and the gate asks again.

    Args:
        params: `register` names store, model and alias.
        workspace: has the ranks by query of the model.
        metrics: the content of its `metrics.json`.
    """
    section = params.register_
    if not section.alias:
        return None
    try:
        registry = Registry(open_store(store_uri(section.store, workspace.shared)))
        move = registry.current(section.name, section.alias)
        if move is None:
            return None
        version = registry.version(section.name, move.version)
        holder = Holder.released(version.reference, f"{section.name}@{section.alias}", version.metrics)
        if _is_model(version, workspace.model):
            return replace(holder, why="it is this model")
        found = Holders.of(params, workspace).by_kept_ranks(registry, version, metrics)
    except (ZeroVLError, OSError) as error:
        logger().info(f"the report does not name the holder of {section.name}@{section.alias}: {error}")
        return None
    if isinstance(found, Comparison):
        return holder.compared(metrics, found.headline)
    return replace(holder, why=f"{found.why}; the gate scores it again")


def _is_model(version: Version, folder: Path) -> bool:
    """Whether a release has the very files of a model: equal weights with another tokenizer are another model."""
    files = release_files.collect(folder)
    return all(version.files.get(name) == release_files.describe_file(path) for name, path in files.items())
