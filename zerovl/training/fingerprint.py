"""Which run is this: parameters, data and code that shape the weights, as one digest.

The same fingerprint resumes, anything else starts a run of its own. What shapes the weights only by rounding
(the section `machine`) or not at all (how often validation pairs are scored) is left out; of the code the syntax
counts, over what the train stage imports (see `code_closure`), so that a comment resumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zerovl import code_closure
from zerovl.bundle_files import TOKENIZER as TOKENIZER_FILES
from zerovl.data.manifest import Manifest
from zerovl.files import sha256_file, sha256_json
from zerovl.model.architecture import Architecture
from zerovl.params import Params, as_dict
from zerovl.params.later import LATER
from zerovl.training.start import Checkpoint, Start
from zerovl.training.weight_digests import file_digests

_WEIGHTS = "weights"
_NOT_SHAPING = ("valid_checks", "valid_pairs", "valid_set_pictures", "continue_from")


def describe(
    params: Params,
    architecture: Architecture,
    manifest: Manifest,
    tokenizer: Path,
    start: Start | None,
    parent: Checkpoint | None,
    streams: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return all that the fingerprint covers, readable; kept beside the run so that two runs can be compared.

    The towers' own weights count where a run starts from them: by content, so that another file of the same name is
    another run. `streams` are digests of the lists of tars that are streamed, by source.
    """
    model, train = as_dict(params.model), as_dict(params.train)
    model["text_tower"]["pooling"] = architecture.pooling  # what `auto` stands for
    model["image_tower"] |= {"name": architecture.image_tower, "options": architecture.image_options}  # of a hub's name
    for key in _NOT_SHAPING:
        del train[key]
    if not streams:
        del train["streaming"]
    limits = _as_before("prepare", {key: getattr(params.prepare, key) for key in LATER["prepare"]}) if streams else {}
    weights = {} if start or parent else file_digests(params.model)
    return {
        "model": _as_before("model", model),
        "train": _as_before("train", train),
        "data": manifest.digest,
        **({"streams": dict(streams)} if streams else {}),
        **({"prepare": limits} if limits else {}),
        "tokenizer": sha256_json(
            {name: sha256_file(tokenizer / name) for name in TOKENIZER_FILES if (tokenizer / name).is_file()}
        ),
        "start": start.digest if start else None,
        "parent": {"run": parent.run.name, "step": parent.step} if parent else None,
        "code": code_closure.digests("train"),
    } | ({_WEIGHTS: weights} if weights else {})


def _as_before(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what came later and has the value that runs before it had."""
    for path, before in LATER[section].items():
        *outer, key = path.split(".")
        place = values
        for name in outer:
            place = place[name]
        if place.get(key) == before:
            del place[key]
    return values


def digest(description: dict[str, Any]) -> str:
    """Return the name of the run."""
    return sha256_json(description)[:16]


def without_weights(description: dict[str, Any]) -> dict[str, Any]:
    """Return what is asked for, apart from what the files of the towers' weights hold."""
    return {key: value for key, value in description.items() if key != _WEIGHTS}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what two descriptions differ in, one "key: old -> new" each; of the code the files."""
    found = []
    for section, later in LATER.items():
        old, new = (
            dict(_leaves(later)) | dict(_leaves(description.get(section, {}))) for description in (before, after)
        )
        found += [
            f"{section}.{key}: {old.get(key)} -> {new.get(key)}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
    found += [name for name in ("data", "streams", "tokenizer", _WEIGHTS) if before.get(name) != after.get(name)]
    code = before.get("code", {}), after.get("code", {})
    if changed := sorted(name for name in code[0].keys() | code[1].keys() if code[0].get(name) != code[1].get(name)):
        found.append(f"code: {', '.join(changed[:5])}" + (f" and {len(changed) - 5} more" if len(changed) > 5 else ""))
    return found


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
