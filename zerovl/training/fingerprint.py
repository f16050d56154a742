"""Which run is this: parameters, data and code that shape the weights, as one digest.

The same fingerprint resumes, anything else starts a run of its own. What shapes the weights only by rounding
(the section `machine`) or not at all (how often validation pairs are scored) is left out; of the code the syntax
counts, over what the train stage imports (see `code_closure`), so that a comment resumes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zerovl import code_closure
from zerovl.data.manifest import Manifest
from zerovl.files import sha256_file, sha256_json
from zerovl.model.architecture import Architecture
from zerovl.model.text import FILES as TOKENIZER_FILES
from zerovl.params import FineTuningParams, Params, as_dict
from zerovl.training.start import Checkpoint, Start

# Settings that came later: at these values a run is what it was before there was such a setting.
_LATER: dict[str, Any] = {"fine_tuning": as_dict(FineTuningParams())}
_NOT_SHAPING = ("valid_checks", "valid_pairs", "continue_from")
# Settings of the towers that came after fingerprints: left out where they are what runs before them had.
_LATER = {"image_tower.weights": "", "text_tower.pooling": "first"}


def describe(
    params: Params,
    architecture: Architecture,
    manifest: Manifest,
    tokenizer: Path,
    start: Start | None,
    parent: Checkpoint | None,
) -> dict[str, Any]:
    """Return all that the fingerprint covers, readable; kept beside the run so that two runs can be compared."""
    train = {
        key: value
        for key, value in as_dict(params.train).items()
        if key not in _NOT_SHAPING and not (key in _LATER and value == _LATER[key])
    }
    return {
        "model": _model(params, architecture),
        "train": train,
        "data": manifest.digest,
        "tokenizer": sha256_json(
            {name: sha256_file(tokenizer / name) for name in TOKENIZER_FILES if (tokenizer / name).is_file()}
        ),
        "start": start.digest if start else None,
        "parent": {"run": parent.run.name, "step": parent.step} if parent else None,
        "code": code_closure.digests("train"),
    }


def _model(params: Params, architecture: Architecture) -> dict[str, Any]:
    """The section `model`, with what `auto` stands for."""
    values = as_dict(params.model)
    values["text_tower"]["pooling"] = architecture.pooling
    for path, before in _LATER.items():
        section, key = path.split(".")
        if values[section][key] == before:
            del values[section][key]
    return values


def digest(description: dict[str, Any]) -> str:
    """Return the name of the run."""
    return sha256_json(description)[:16]


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what two descriptions differ in, one "key: old -> new" each; of the code the files."""
    found = []
    for section, later in (("model", {}), ("train", _LATER)):
        old, new = (dict(_leaves(later | description.get(section, {}))) for description in (before, after))
        found += [
            f"{section}.{key}: {old.get(key, _LATER.get(key))} -> {new.get(key, _LATER.get(key))}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
    found += [name for name in ("data", "tokenizer") if before.get(name) != after.get(name)]
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
