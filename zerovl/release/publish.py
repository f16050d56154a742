"""Making a release of a model and its reports: assembled, judged by the gate, published, promoted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zerovl.errors import ZeroVLError
from zerovl.evaluation.holder import Holder
from zerovl.evaluation.metrics import HEADLINE, OVERALL, headline_block
from zerovl.files import read_json, sha256_file
from zerovl.log import logger
from zerovl.model import export_forms
from zerovl.model.architecture import Architecture
from zerovl.params import Params, RegisterParams, as_dict
from zerovl.registry import release_files
from zerovl.registry.records import Move, Version
from zerovl.registry.registry import Registry
from zerovl.registry.release_files import SAMPLE_FILES, as_bytes
from zerovl.release import forget, hooks, model_card, moved_away, provenance
from zerovl.release.gate import Compare, Comparison, LostHolder, NoHolder, Verdict, judge
from zerovl.release.moved_away import MovedAway
from zerovl.release.promote import promote
from zerovl.release.usage import NO_SAMPLE, example_caption, usage_lines
from zerovl.workspace import Workspace

_ATTEMPTS = 10  # of a decision, where others keep moving the alias


@dataclass(frozen=True)
class Candidate:
    """A release that is about to be published."""

    files: dict[str, Path | bytes]
    metrics: dict[str, Any]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Registered:
    """What became of a candidate."""

    version: Version
    verdict: Verdict  # of now; a version that was there before keeps its own
    caption: str  # of its sample, as an example
    move: Move | None = None  # of the alias; None where it did not move
    moved_away: MovedAway | None = None  # why the alias stays although the gate passed the model


def assemble(params: Params, workspace: Workspace, source: provenance.Source | None = None) -> Candidate:
    """Collect the files of the release.

    Args:
        params: those that the model was made with.
        workspace: has model and reports.
        source: where they come from, if not from the workspace's checkout as it is.

    Raises:
        ZeroVLError: a report is missing or broken, or is not of this model or of the data of the manifest.
    """
    manifest = read_json(workspace.manifest_file)
    _require_valid_data(workspace.validation_verdict, manifest)
    metrics_path = workspace.evaluation_metrics
    metrics = read_json(metrics_path)
    if not isinstance(metrics, dict) or not isinstance(metrics.get(OVERALL), dict):
        raise ZeroVLError(f"{metrics_path}: no overall scores in it; run `dvc repro -f evaluate`")
    _require_of_model(metrics_path, metrics, workspace.model / release_files.WEIGHTS)
    values = as_dict(params)
    source = source or provenance.Source.of_checkout(workspace.root, values)
    origin = provenance.gather(workspace.root, values, manifest, source)
    origin["training"] = provenance.report(workspace.training_metrics)
    if run := provenance.report(workspace.training_run):
        origin["run"] = run
    if sets := provenance.classification_sets(workspace.evaluation_details):
        origin["classification"] = sets
    # The number is not known yet, and the alias may stay with another version.
    usage = "# VERSION: see `zerovl registry list`, or name the folder of this card instead\n"
    sample = {name: _require(workspace.evaluation_report / name) for name in SAMPLE_FILES if params.evaluate.sample}
    usage += usage_lines(params.register_, "VERSION", _caption(sample))
    details = provenance.report(workspace.evaluation_details)
    refused = _refused_exports(workspace.model / release_files.CONFIG)
    card = model_card.render(params, metrics, manifest, origin, usage=usage, details=details, refused=refused)
    files: dict[str, Path | bytes] = dict(release_files.collect(workspace.model))
    files[release_files.METRICS] = metrics_path
    files[release_files.QUERIES] = _require(workspace.evaluation_queries)
    if workspace.evaluation_items.is_file():  # an evaluation of before there was one lacks it
        files[release_files.ITEMS] = workspace.evaluation_items
    files |= sample
    files[release_files.PROVENANCE] = (json.dumps(origin, indent=2, ensure_ascii=False) + "\n").encode()
    files[release_files.MODEL_CARD] = card.encode()
    return Candidate(files, metrics, origin)


def publish_and_judge(
    registry: Registry, candidate: Candidate, section: RegisterParams, compare: Compare
) -> Registered:
    """Judge against the holder of the alias, publish, promote; judge again where the holder changed meanwhile.

    A model that had the alias and lost it is not promoted again, whatever the gate says (`release.moved_away`).

    Raises:
        ZeroVLError: the release does not pass the check before the promotion (it is published all the same), or
            others kept moving the alias.
    """
    by = provenance.who()
    files = forget.without_forgotten(registry, section.name, candidate.files)
    caption = _caption(files)
    identity = release_files.identity({name: release_files.describe_file(source) for name, source in files.items()})
    for _ in range(_ATTEMPTS):
        current = registry.current(section.name, section.alias) if section.alias else None
        holder = _measure(registry, current, identity, compare) if section.alias else NoHolder("no alias is to move")
        verdict = judge(candidate.metrics, holder, section.gate)
        version = registry.publish(
            section.name,
            files,
            metrics=candidate.metrics,
            provenance=candidate.provenance,
            by=by,
            verdict=verdict.to_json(),
        )
        if forget.withdraw(registry, version, by):  # one that was named while the version was written
            version = registry.version(version.name, version.number)
            logger().warning(
                f"a picture was withdrawn from {version.reference} while it was registered; "
                f"`zerovl registry gc {version.name}` removes the files that have it"
            )
        if not section.alias or not verdict.passed:
            return Registered(version, verdict, caption)
        if away := moved_away.find(registry, version, section.alias):
            return Registered(version, verdict, caption, moved_away=away)
        move = promote(
            registry,
            version,
            section.alias,
            why=f"gate passed, {HEADLINE.label} {headline_block(candidate.metrics)[1][HEADLINE.name]:.2f}",
            by=by,
            verdict=verdict.to_json(),
            after=current.number if current else 0,
            hooks=hooks.configured(section.hooks),
        )
        if move:
            return Registered(version, verdict, caption, move)
    raise ZeroVLError(
        f"{version.reference}: registered, but {section.name}@{section.alias} was moved by others {_ATTEMPTS} times "
        "meanwhile; run `dvc repro register` again"
    )


def _measure(
    registry: Registry, current: Move | None, identity: str, compare: Compare
) -> Comparison | LostHolder | NoHolder:
    if current is None:
        return NoHolder("the alias has no holder yet")
    holder = registry.version(current.name, current.version)
    if holder.identity == identity:
        return NoHolder("it holds the alias already")
    return replace(
        compare(registry, holder),
        holder=Holder.released(holder.reference, f"{holder.name}@{current.alias}", holder.metrics),
    )


def _caption(files: Mapping[str, Path | bytes]) -> str:
    pairs = files.get(SAMPLE_FILES[0])
    return NO_SAMPLE if pairs is None else example_caption(as_bytes(pairs), SAMPLE_FILES[0])


def _refused_exports(config: Path) -> dict[str, str]:
    """Why a model has a form of export not, by the form; nothing of one whose config nobody can read or load."""
    try:
        return export_forms.reasons_against(Architecture.from_json(read_json(config), str(config)))
    except ZeroVLError:
        return {}


def _require(path: Path) -> Path:
    if not path.is_file():
        raise ZeroVLError(f"{path}: no such file, but it goes with the release; run `dvc repro -f evaluate`")
    return path


def _require_of_model(path: Path, metrics: dict[str, Any], weights: Path) -> None:
    """Raise `ZeroVLError` for scores of another model; outside of the pipeline nothing else holds the two together."""
    evaluated = metrics.get("model_digest")
    if evaluated and weights.is_file() and evaluated != sha256_file(weights):
        raise ZeroVLError(f"{path}: of another model than {weights}; run `dvc repro evaluate` on this one first")


def _require_valid_data(path: Path, manifest: dict[str, Any]) -> None:
    verdict = read_json(path)
    if not verdict.get("passed"):
        raise ZeroVLError(f"{path}: the data did not pass; nothing is released from them. Run `dvc repro validate`")
    digest = verdict.get("manifest_digest", manifest.get("digest"))
    if digest != manifest.get("digest"):
        raise ZeroVLError(
            f"{path}: of data {digest}, but the manifest is {manifest.get('digest')}; run `dvc repro validate`"
        )
