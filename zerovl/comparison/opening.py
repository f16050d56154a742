"""Turn what a user names into a `Subject`.

    zerovl@3, zerovl@production, s3://bucket/zerovl@3     a release
    path/to/model                                         a bundle: a pulled release, or the model of a checkout
    path/to/checkout                                      its reports, as they are now
    runs/3f2a90c14be7d105                                 a run: parameters and curves; scores where it is the last one
    HEAD~1, a-branch, an-experiment                       what DVC has of a git revision or an experiment

Nothing is embedded or ranked: scores are those that were computed when the model was evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerovl import foreign_folders
from zerovl.comparison import revision
from zerovl.comparison.parameters import by_key
from zerovl.comparison.subject import Subject, in_order
from zerovl.errors import ZeroVLError
from zerovl.evaluation.items import NewerFormError, read_items
from zerovl.evaluation.query_ranks import read_queries
from zerovl.evaluation.report.curves import Curves, read_curves
from zerovl.files import read_json, sha256_file
from zerovl.registry import fetch, release_files, transfer
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store
from zerovl.release.provenance import classification_sets, report
from zerovl.workspace import RUN_DESCRIPTION, RUN_LOG, Workspace
from zerovl.yaml_file import read_yaml

_RELEASE = re.compile(r"(?:.*/)?[A-Za-z0-9_-]+@[A-Za-z0-9_-]+")
_OF_A_RUN = ("model", "train")  # sections that a run's fingerprint has


def open_subject(reference: str, aside: Path, here: Workspace) -> Subject:
    """Return what a reference names; files of releases and revisions are put `aside`, an empty folder.

    Raises:
        ZeroVLError: there is nothing of that name, or what there is cannot be read.
    """
    if not reference.strip():
        raise ZeroVLError(f"{reference!r}: names nothing; give a folder, a release (NAME@NUMBER) or a git revision")
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return _of_folder(reference, folder)
    with revision.said_of(reference, aside):
        if _RELEASE.fullmatch(reference):
            return _of_release(reference, aside, here)
        return _of_revision(reference, aside, here)


def _of_folder(label: str, folder: Path) -> Subject:
    if (folder / RUN_DESCRIPTION).is_file():
        return _of_run(label, folder)
    foreign_folders.refuse(folder, label)
    if release_files.is_bundle(folder):
        return _of_bundle(label, folder)
    checkout = Workspace(folder)
    if checkout.evaluation_metrics.is_file():
        return _of_checkout(label, "the reports of a checkout, as they are now", checkout)
    raise ZeroVLError(
        f"{label}: neither a model ({release_files.CONFIG} and {release_files.WEIGHTS}), nor a run "
        f"({RUN_DESCRIPTION}), nor a checkout with {checkout.evaluation_metrics.relative_to(folder)}; "
        "name one of these, a release (NAME@NUMBER), a git revision or an experiment"
    )


def _of_bundle(label: str, folder: Path) -> Subject:
    """A pulled release has its scores beside it; those of a checkout's model are in its reports."""
    if (folder / release_files.METRICS).is_file():
        origin = report(folder / release_files.PROVENANCE)
        return _evaluated(label, "the folder of a release", folder, _params(origin, label), _sets(origin))
    checkout = Workspace(folder.absolute().parent)
    if checkout.evaluation_metrics.is_file():
        digest = read_json(checkout.evaluation_metrics).get("model_digest")
        if digest == sha256_file(folder / release_files.WEIGHTS):
            return _of_checkout(label, "a model with the reports of its checkout", checkout)
    return Subject(label, "a model without scores: no evaluation of these weights lies beside it")


def _of_checkout(label: str, origin: str, checkout: Workspace) -> Subject:
    fingerprint = report(checkout.training_run).get("fingerprint")
    params = read_yaml(checkout.root / "params.yaml") if (checkout.root / "params.yaml").is_file() else {}
    # params.yaml may have been edited since; the run says what the model was trained with, and what "auto" came to.
    run = report(checkout.runs / str(fingerprint) / RUN_DESCRIPTION)
    said = by_key(params, label)
    said |= _of_description(run, label)
    sets = classification_sets(checkout.evaluation_details)
    return _evaluated(label, origin, checkout.evaluation_report, said, sets, read_curves(checkout.training_log))


def _of_description(described: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Parameters of a run's fingerprint, which leaves out the pooling where it is the first token."""
    found = by_key({name: described[name] for name in _OF_A_RUN if name in described}, label)
    if "model" in described:
        found["model.text_tower.pooling"] = described["model"].get("text_tower", {}).get("pooling", "first")
    return found


def _of_run(label: str, folder: Path) -> Subject:
    """Scores are there where the run's model is the one that its checkout evaluated last."""
    described = read_json(folder / RUN_DESCRIPTION)
    params = _of_description(described, label)
    curves = read_curves(folder / RUN_LOG)
    checkout = Workspace(folder.absolute().parent.parent)
    metrics, weights = report(checkout.evaluation_metrics), checkout.model / release_files.WEIGHTS
    last = report(checkout.training_run).get("fingerprint") == folder.absolute().name
    if last and weights.is_file() and metrics.get("model_digest") == sha256_file(weights):
        sets = classification_sets(checkout.evaluation_details)
        return _evaluated(label, "a run, the last one evaluated", checkout.evaluation_report, params, sets, curves)
    return Subject(
        label, "a run; its model is not the one evaluated last, so without scores", params=params, curves=curves
    )


def _of_release(reference: str, aside: Path, here: Workspace) -> Subject:
    uri, name = fetch.split_store(reference)
    registry = Registry(open_store(uri))
    version = registry.resolve(name)
    for file in (release_files.QUERIES, release_files.ITEMS, f"{release_files.SAMPLE}/{release_files.SAMPLE_PAIRS}"):
        if file in version.files:
            transfer.fetch_file(registry.store, version, file, aside / file)
    what = f"release {version.reference} of {version.created[:10]}"
    fingerprint = (version.provenance.get("run") or {}).get("fingerprint")
    params = _params(version.provenance, reference)
    sets, curves = _sets(version.provenance), _curves_here(fingerprint, here)
    return _evaluated(reference, what, aside, params, sets, curves, version.metrics)


def _of_revision(reference: str, aside: Path, here: Workspace) -> Subject:
    commit = revision.fetch(reference, here.root, aside)
    return _of_checkout(reference, f"git commit {commit[:10]}", Workspace(aside))


def _evaluated(
    label: str,
    origin: str,
    folder: Path,
    params: Mapping[str, Any],
    sets: Mapping[str, Any],
    curves: Curves | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Subject:
    """Read metrics, figures by query and item, and sample from a folder that has them by their usual names, or some."""
    queries, items = folder / release_files.QUERIES, folder / release_files.ITEMS
    pairs = folder / release_files.SAMPLE / release_files.SAMPLE_PAIRS
    kept, newer = None, ""
    if items.is_file():
        try:
            kept = read_items(items)
        except NewerFormError as error:  # the rest of it can be compared
            newer = error.why
    return Subject(
        label,
        origin,
        report(folder / release_files.METRICS) if metrics is None else metrics,
        in_order(read_queries(queries)) if queries.is_file() else None,
        kept,
        newer,
        sets,
        params,
        curves or Curves([], []),
        pairs if pairs.is_file() else None,
    )


def _sets(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return provenance.get("classification") or {}


def _params(provenance: Mapping[str, Any], label: str) -> dict[str, Any]:
    return by_key(provenance.get("params") or {}, label)


def _curves_here(fingerprint: str | None, here: Workspace) -> Curves:
    """A release has no curves; its run may still be in this checkout."""
    if not fingerprint:
        return Curves([], [])
    if report(here.training_run).get("fingerprint") == fingerprint:
        return read_curves(here.training_log)
    return read_curves(here.runs / fingerprint / RUN_LOG)
